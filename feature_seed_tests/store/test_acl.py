"""The documented ACL lines: enough for the seeder and for the scorer, and not a right more."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import NoPermissionError

from feature_seed import features
from feature_seed.__main__ import main
from feature_seed.contract import Transaction, Welford, apply_event, read_card, read_customer, read_ready, read_state
from feature_seed.errors import StoreError
from feature_seed.features.entity import ENTITIES
from feature_seed.graph.configuration import read
from feature_seed.loading.preflight import examine
from feature_seed.sql import lua
from feature_seed.store.acl import acl
from feature_seed.store.cluster import ClusterStore
from feature_seed.store.commands import DONE_WITHOUT, NEEDED, NEEDED_BY_DECLARED, NEEDED_TO_EXPIRE
from feature_seed.store.online_store import OnlineStore
from feature_seed_tests.conftest import PASSWORD, MakeWarehouse
from feature_seed_tests.support.documents import only
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.gold import transaction
from feature_seed_tests.support.redis_server import redis_server
from feature_seed_tests.support.run import checks, seed
from feature_seed_tests.support.store import assert_holds, dump

ACL = {user: only(rf"^ACL SETUSER {user} (.*)$")[1].split() for user in ("seeder", "scorer")}

RIGHTS = [rule for rule in ACL["seeder"] if rule[0] in "+~"]

# Three features of kinds hash and zset, on keys of cards, customers and merchants.
EXAMPLE = Path(features.__file__).parent / "examples" / "riskfabric.yaml"

# Of events: before another one, and a week apart.
EARLIER = "2026-01-01T12:00:00.000+00:00"
WEEKS = ("2026-01-02T00:00:00.000+00:00", "2026-01-09T00:00:01.000+00:00")

ROWS = [transaction(i, f"c{i % 40}", seconds=i) for i in range(200)]


@pytest.fixture(scope="module")
def admin() -> Iterator[redis.Redis]:
    """A server, for which the default user asks for a password."""
    with redis_server(password=PASSWORD) as port, redis.Redis(port=port, password=PASSWORD) as client:
        yield client


@pytest.fixture
def grant(admin: redis.Redis) -> Callable[..., OnlineStore]:
    """An empty store as a documented user has it, without some of its rules."""
    admin.flushall()
    admin.script_flush()
    port = admin.connection_pool.connection_kwargs["port"]

    def set_user(user: str, without: str = "") -> OnlineStore:
        rules = [rule for rule in ACL[user] if rule != without]
        assert without == "" or len(rules) == len(ACL[user]) - 1
        admin.execute_command("ACL", "DELUSER", user)
        admin.execute_command("ACL", "SETUSER", user, *(f">{PASSWORD}" if rule == ">…" else rule for rule in rules))
        return OnlineStore(url=f"redis://{user}@127.0.0.1:{port}", password=PASSWORD)

    return set_user


def used(admin: redis.Redis) -> set[str]:
    """The commands that were run since CONFIG RESETSTAT, those of scripts included."""
    stats: Any = admin.info("commandstats")
    assert not [name for name, found in stats.items() if found.get("rejected_calls")], stats
    return {name.removeprefix("cmdstat_").upper().replace("|", " ") for name in stats}


def test_the_seeder_has_what_the_whole_job_needs(
    make_parquet: MakeWarehouse, admin: redis.Redis, grant: Callable[..., OnlineStore]
) -> None:
    """Before: an empty store. Every check, every step and both modes pass, first and again, over what others wrote; and
    what was run for it are the commands of the ACL, all of them.
    """
    warehouse, store = make_parquet(ROWS), grant("seeder")
    admin.config_set("maxmemory", "1gb")
    port = admin.connection_pool.connection_kwargs["port"]
    suspended = redis.Redis(port=port, password=PASSWORD, client_name="feature_seed:run:suspended")
    suspended.ping()
    admin.config_resetstat()
    for on_conflict in ("keep_newer", "overwrite", "keep_newer"):
        result = seed(warehouse, store, job="seed_all", on_conflict=on_conflict, full=True)
        admin.rpush("card:c1:history", "no transaction")  # a list to be mended by the next load of everything
        if on_conflict == "overwrite":
            admin.hset(next(admin.scan_iter("cust:*:stats")), "seeded", 1)  # as the version before this one left it
        assert all(check.passed for name, check in checks(result).items() if "unknown" not in name)
    commands = used(admin) - {"AUTH", "CONFIG RESETSTAT"}
    suspended.close()
    admin.config_set("maxmemory", 0)
    ready = read_ready(admin)
    assert ready and ready.state == "ready"
    admin.rpop("card:c1:history")
    assert_holds(admin, expect(ROWS))
    assert commands == {rule[1:].upper().replace("|", " ") for rule in RIGHTS if rule[0] == "+"}


def test_the_documented_lines_are_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a configuration; a cluster, replicas and declared features need more, each by itself."""
    assert main(["acl"]) == 0
    plain = capsys.readouterr().out
    assert plain.split() == [word for user in ("seeder", "scorer") for word in ("ACL", "SETUSER", user, *ACL[user])]
    monkeypatch.setenv("FEATURE_SEED_CONFIG", str(EXAMPLE))
    assert main(["acl"]) == 0
    assert {"~merch:*", "+zadd", "+hincrby"} <= set(capsys.readouterr().out.split()) - set(plain.split())
    for line in acl(ClusterStore(wait_replicas=1), ()):
        assert {"+cluster|slots", "+command", "+asking"} <= set(line.split())
        assert ("+wait" in line.split()) == ("seeder" in line)


def test_a_scorer_of_declared_features(admin: redis.Redis) -> None:
    """Before: the scorer's line of a configuration. It reads and writes these keys by commands of its own."""
    line = acl(OnlineStore(), read(EXAMPLE).declared)[1].split()
    admin.execute_command("ACL", "DELUSER", "scorer")
    admin.execute_command(*(f">{PASSWORD}" if rule == ">…" else rule for rule in line))
    port = admin.connection_pool.connection_kwargs["port"]
    with redis.Redis(port=port, username="scorer", password=PASSWORD) as scorer:
        scorer.zadd("card:c1:burst", {"live": 1.5})
        scorer.zremrangebyscore("card:c1:burst", "-inf", 1)
        scorer.expire("card:c1:burst", 60)
        scorer.hincrby("cust:a:agg", "count")
        assert scorer.zcount("card:c1:burst", 1, 2) == 1 and scorer.hgetall("merch:m1:agg") == {}
        with pytest.raises(NoPermissionError):
            scorer.sadd("card:c1:merchants", "m1")


def test_preflight_looks_for_every_right() -> None:
    """What the scripts call is in the list, and the list is the documented one."""
    scripts = [*(entity.guard for entity in ENTITIES), lua("loading/departed")]
    called = {name for script in scripts for name in re.findall(r"redis\.p?call\('(\w+)'", script)}
    assert called <= {*NEEDED, *NEEDED_TO_EXPIRE}
    granted = {rule[1:].upper().replace("|", " ") for rule in RIGHTS if rule[0] == "+"}
    assert granted == {*NEEDED, *DONE_WITHOUT, "MULTI", "EXEC"}


def test_features_that_expire_need_more(
    make_parquet: MakeWarehouse, admin: redis.Redis, grant: Callable[..., OnlineStore]
) -> None:
    """Before: the lines for features that expire, and those without. With the former they are loaded twice, moved on by
    events, and loaded without an end; the latter are refused, and nothing is written.
    """
    with grant("seeder").client() as client, pytest.raises(StoreError, match=r"\+persist \+pexpireat \+pttl"):
        examine(client, grant("seeder"), expires=True)
    port = admin.connection_pool.connection_kwargs["port"]
    stores = {}
    for line in acl(OnlineStore(), (), expires=True):
        user = line.split()[2]
        admin.execute_command("ACL", "DELUSER", user)
        admin.execute_command(*(f">{PASSWORD}" if rule == ">…" else rule for rule in line.split()))
        stores[user] = OnlineStore(url=f"redis://{user}@127.0.0.1:{port}", password=PASSWORD)
    now = datetime.now(timezone.utc)
    warehouse = make_parquet([transaction(i, f"c{i}", timestamp=now - timedelta(hours=1 + i)) for i in range(3)])
    ends = {"cards": 86_400, "customers": 86_400}
    for expire in (ends, ends, {}):
        seed(warehouse, stores["seeder"], verify=True, expire=expire)
        event = Transaction("live", "fuel", 99.0, now.isoformat(timespec="milliseconds"), 9.0, 8.0)
        with stores["scorer"].client() as scorer:
            apply_event(scorer, "of c1", "c1", replace(event, transaction_id=str(len(expire))))
        assert (admin.pttl("card:c1:seed") > 0) == bool(expire)


def test_declared_features_need_more(admin: redis.Redis, grant: Callable[..., OnlineStore]) -> None:
    """Before: the seeder without what declared features need. All of it is named, and it is what is documented."""
    lines = acl(OnlineStore(), read(EXAMPLE).declared)
    documented = [rule for rule in lines[0].split() if rule[0] in "+~" and rule not in RIGHTS]
    assert {rule[1:].upper() for rule in documented if rule[0] == "+"} == {*NEEDED_BY_DECLARED}
    called = set(re.findall(r"redis\.call\('(\w+)'", lua("features/declared/load")))
    assert called <= {*NEEDED, *NEEDED_BY_DECLARED}
    store = grant("seeder")
    with store.client() as client:
        with pytest.raises(StoreError) as refused:
            examine(client, store, ["merch:{merchant_id}:agg"])
        assert "~merch:*" in documented and all(rule in str(refused.value).split() for rule in documented)
        admin.execute_command("ACL", "SETUSER", "seeder", *documented)
        examine(client, store, ["merch:{merchant_id}:agg"])


SPARED = [right for right in RIGHTS if right[1:].upper().replace("|", " ") in DONE_WITHOUT]


@pytest.mark.parametrize("right", [right for right in RIGHTS if right not in SPARED])
def test_the_seeder_needs_every_other_right(admin: redis.Redis, grant: Callable[..., OnlineStore], right: str) -> None:
    """Before: the seeder without a right that it cannot do without. It is named, and nothing is written."""
    store = grant("seeder", without=right)
    with pytest.raises(StoreError) as refused, store.client() as client:
        examine(client, store)
    assert right[1:] in str(refused.value)
    assert "right" in str(refused.value)
    assert PASSWORD not in str(refused.value)
    assert dump(admin) == {}


@pytest.mark.parametrize("right", SPARED)
def test_a_right_that_is_done_without(grant: Callable[..., OnlineStore], right: str) -> None:
    """Before: the seeder without one of the others. What is lost is said, and the rule that mends it."""
    store = grant("seeder", without=right)
    with store.client() as client:
        (loss,) = examine(client, store).losses
    assert loss.endswith(f": ACL SETUSER seeder {right}")
    assert DONE_WITHOUT[right[1:].upper().replace("|", " ")] in loss


def test_a_lacking_right_fails_the_run_before_it_writes(
    make_parquet: MakeWarehouse, admin: redis.Redis, grant: Callable[..., OnlineStore]
) -> None:
    store = grant("seeder", without="~cust:*")
    with pytest.raises(StoreError, match=r"User 'seeder' .* ACL SETUSER seeder ~cust:\*"):
        seed(make_parquet(ROWS), store)
    assert dump(admin) == {}


def test_all_that_is_lacking_is_said_at_once(grant: Callable[..., OnlineStore], admin: redis.Redis) -> None:
    """And what the message proposes is all that it takes."""
    store = grant("seeder")
    admin.execute_command("ACL", "SETUSER", "seeder", "-rpush", "-hset", "resetkeys", "~card:*")
    with pytest.raises(StoreError) as refused, store.client() as client:
        examine(client, store)
    proposed = re.search(r"ACL SETUSER seeder ([^.]*)", str(refused.value))
    assert proposed and set(proposed[1].split()) == {"+rpush", "+hset", "~cust:*", "~feature_seed:*"}
    admin.execute_command("ACL", "SETUSER", "seeder", *proposed[1].split())
    with store.client() as client:
        examine(client, store)


def test_the_scorer_has_what_it_needs(
    make_parquet: MakeWarehouse, admin: redis.Redis, grant: Callable[..., OnlineStore]
) -> None:
    """Before: a seeded store. The scorer waits for it, reads, and applies events: by the contract's script, one by
    one and in a pipeline, and by commands of its own. What was run for it is what it may, all of it.
    """
    seed(make_parquet(ROWS), grant("seeder"), verify=True)
    event = Transaction("live", "fuel", 99.0, "2026-01-02T00:00:00.000+00:00", 9.0, 8.0)
    store = grant("scorer")
    admin.config_resetstat()
    with store.client() as scorer:
        ready, card, customer = read_ready(scorer), read_card(scorer, "c1"), read_customer(scorer, "of c1")
        assert ready and ready.state == "ready" and scorer.hget("feature_seed:ready", "state") == b"ready"
        assert card and card == expect(ROWS).cards["c1"] and customer
        state = read_state(scorer, "c1", "of c1")
        assert state.card == card and state.customer == customer
        apply_event(scorer, "of c1", "c1", event)
        with scorer.pipeline(transaction=False) as pipeline:
            apply_event(pipeline, "of c1", "c1", replace(event, transaction_id="late", timestamp=EARLIER))
            apply_event(pipeline, "of c1", "c1", replace(event, transaction_id="other"), newest_first=True)
            apply_event(pipeline, "of c1", "c1", event, tags=True)
            # A record of a week ago is dropped as soon as fifty are there.
            for number in range(50):
                apply_event(
                    pipeline, "of new", "new", replace(event, transaction_id=str(number), timestamp=WEEKS[number > 0])
                )
            pipeline.execute()
        _apply_by_commands(scorer, event, customer)
    commands = used(admin) - {"AUTH", "CONFIG RESETSTAT"}
    assert admin.get("card:c1:seq") == b"%d" % (card.seq + 4)
    assert commands == {rule[1:].upper().replace("|", " ") for rule in ACL["scorer"] if rule[0] == "+"}


def _apply_by_commands(scorer: redis.Redis, event: Transaction, customer: Welford) -> None:
    scorer.rpush("card:c1:history", event.encode())
    assert scorer.lindex("card:c1:history", -1)
    scorer.lpush("card:c2:history", event.encode())
    scorer.ltrim("card:c1:history", -10, -1)
    scorer.hset("card:c1:loc", mapping={"lat": 9.0, "lon": 8.0})
    scorer.set("card:c1:last_ts", event.time.timestamp())
    scorer.incr("card:c1:seq")
    scorer.hset("cust:of c1:stats", mapping=customer.update(99.0).encode())


@pytest.mark.parametrize(
    "command",
    [
        ("FLUSHALL",),
        ("FLUSHDB",),
        ("KEYS", "*"),
        ("CONFIG", "GET", "*"),
        ("SCRIPT", "FLUSH"),
        ("HSET", "feature_seed:ready", "state", "ready"),
        ("GET", "feature_seed:lock"),
        ("GET", "unrelated"),
    ],
)
def test_the_scorer_may_not(grant: Callable[..., OnlineStore], command: tuple[str, ...]) -> None:
    with pytest.raises(StoreError, match="right"), grant("scorer").client() as scorer:
        scorer.execute_command(*command)
