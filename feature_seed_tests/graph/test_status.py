"""What `python -m feature_seed` says of a store: as an operator reads it, and as machines do."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
import redis

from feature_seed.__main__ import cli, main
from feature_seed.contract import Transaction, apply_event
from feature_seed.graph.configuration import read
from feature_seed.store.local import LocalRedis
from feature_seed.store.online_store import OnlineStore
from feature_seed_tests.conftest import PASSWORD, MakeWarehouse
from feature_seed_tests.support.gold import transaction
from feature_seed_tests.support.run import metadata, seed
from feature_seed_tests.support.store import dump
from feature_seed_tests.support.webhook import webhook

ROWS = [transaction(i, f"c{i % 40}", seconds=i) for i in range(200)]

Ask = Callable[..., tuple[int, str]]


@pytest.fixture
def ask(redis_port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Runs a command against the store of the tests; its exit code, and all that it printed."""
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{redis_port}")
    monkeypatch.setenv("REDIS_PASSWORD", PASSWORD)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)

    def run(*arguments: str) -> tuple[int, str]:
        code = main(arguments)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Ask) -> Iterator[dg.DagsterInstance]:
    """That of DAGSTER_HOME."""
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as instance:
        yield instance


def live_event(client: redis.Redis, number: int) -> None:
    event = Transaction(f"live-{number}", "food", 1.0, "2026-06-01T00:00:00.000+00:00", None, None)
    apply_event(client, "of c1", "c1", event)


def test_the_status_of_a_store(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore, ask: Ask, instance: dg.DagsterInstance
) -> None:
    """Before: nothing. Then a run, a report of gold, three live events of a card, and somebody who writes."""
    code, text = ask("status")
    assert code == 1 and "empty" in text and "none: no report" in text
    warehouse = make_parquet(ROWS)
    run = seed(warehouse, store, verify=True, instance=instance)
    instance.report_runless_asset_event(dg.AssetMaterialization("gold_transactions", metadata={"gold_version": "v7"}))
    for number in range(3):
        live_event(online, number)
    online.set("feature_seed:lock", "run another on there")
    before = dump(online)
    code, text = ask("status", "--json")
    found = json.loads(text)
    assert code == 0
    assert found["last_report"].endswith(", version v7")
    assert {
        name: found[name] for name in ("state", "cards", "customers", "live_events", "sampled", "lock", "run_id")
    } == {
        "state": "ready",
        "cards": 40,
        "customers": 40,
        "live_events": 3,
        "sampled": False,
        "lock": "run another on there",
        "run_id": run.run_id,
    }
    assert found["gold_version"] == warehouse.profile().version
    assert found["watermark"] == "2026-01-01T00:03:19.000999+00:00"
    text = ask("status")[1]
    for said in ("ready since", "2026-01-01 00:03:19 UTC", "3 of cards", "run another on there", "version v7"):
        assert said in text
    lines = ask("status", "--prometheus")[1].splitlines()
    gauges = dict(line.split() for line in lines if not line.startswith("#"))
    assert gauges["feature_seed_up"] == gauges["feature_seed_ready"] == gauges["feature_seed_locked"] == "1"
    assert (gauges["feature_seed_cards"], gauges["feature_seed_live_events"]) == ("40", "3")
    assert 0 <= float(gauges["feature_seed_watermark_seconds"]) - 1767225799 < 0.01
    assert PASSWORD not in text and dump(online) == before


def test_a_store_that_does_not_answer(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    code, text = ask("status")
    assert code == 1 and "unreachable" in text and "check REDIS_URL" in text
    assert "feature_seed_up 0" in ask("status", "--prometheus")[1]


def test_whether_the_store_is_what_the_run_left(
    make_parquet: MakeWarehouse,
    online: redis.Redis,
    store: OnlineStore,
    ask: Ask,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Right after the run it is, and with live events too. A key that is lost, a gold that was rebuilt, and a store
    that was emptied are each told. So is what a load would do, and that it would be blocked. Nothing is written.
    """
    warehouse = make_parquet(ROWS)
    monkeypatch.setenv("FEATURE_SEED_GOLD_PARQUET", str(warehouse.gold_parquet))
    monkeypatch.delitem(
        __import__("sys").modules, "feature_seed.definitions", raising=False
    )  # made of this environment
    config = tmp_path / "seed.yaml"
    config.write_text("features: {card_seen: {key: 'card:{card_id}:seen', string: count()}}")
    monkeypatch.setenv("FEATURE_SEED_CONFIG", str(config))
    assert "is not ready, its state is 'empty': run seed_all" in ask("check")[1]
    seed(warehouse, store, job="seed_all", instance=instance, declared=read(config).declared)
    live_event(online, 1)
    before = dump(online)
    code, text = ask("check")
    assert code == 0, text
    assert "store_kept of warm_start: Redis at" in text and "parity of card_history: 0 of 40 entities differ" in text
    assert "parity of card_seen: 0 of 40 entities differ" in text
    assert dump(online) == before
    online.delete("card:c3:seen")
    code, text = ask("check")
    assert code == 1 and "card:c3:seen" in text
    online.delete("card:c2:history")
    code, text = ask("check")
    assert code == 1 and "card:c2:history" in text and "Run seed_all with FEATURE_SEED_FULL=1" in text
    make_parquet([*ROWS, transaction(999)])
    assert "Gold was rebuilt since" in ask("check")[1]
    code, text = ask("plan")
    assert code == 0 and "cards: 0 new, 1 changed, 39 unchanged, 0 gone, 0 with fewer rows than before" in text
    assert "at the rate of the last load" in text
    make_parquet(ROWS[:20])
    code, text = ask("plan")
    assert code == 1 and "gold has lost 100.00%" in text and "20 gone, 20 with fewer rows than before" in text
    ready = online.hgetall("feature_seed:ready")
    online.flushall()
    online.hset("feature_seed:ready", mapping={**ready, b"store_id": b"another"})  # type: ignore[arg-type]
    code, text = ask("check")
    assert code == 1 and "was emptied since it was seeded" in text


def test_an_entity_is_forgotten(
    make_parquet: MakeWarehouse,
    online: redis.Redis,
    store: OnlineStore,
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Before: a card with a live event and a declared key. Not while somebody writes, but then all of its keys go, and
    no other; then its customer. The next load of the same gold sends these two, and brings them back.
    """
    warehouse = make_parquet(ROWS)
    seed(warehouse, store, verify=True)
    loaded = dump(online, but=(b"feature_seed:",))
    for key in ("card:c1:burst", "card:c1:other:burst"):
        online.set(key, 1)
    (tmp_path / "seed.yaml").write_text('features: {burst: {key: "card:{card_id}:burst", string: count()}}')
    monkeypatch.setenv("FEATURE_SEED_CONFIG", str(tmp_path / "seed.yaml"))
    live_event(online, 1)
    before = dump(online)
    online.set("feature_seed:lock", "run another on there")
    code, text = ask("forget", "card", "c1")
    assert code == 1 and "is being seeded by run another on there" in text
    online.delete("feature_seed:lock")
    assert dump(online) == before
    code, text = ask("forget", "card", "c1")
    gone = {f"card:c1:{kind}" for kind in ("history", "loc", "last_ts", "seq", "seed", "burst")}
    assert code == 0 and text.startswith("6 keys of card 'c1' were deleted at ")
    assert dump(online) == {key: value for key, value in before.items() if key.decode() not in gone}
    code, text = ask("forget", "card", "c1")
    assert code == 1 and "card 'c1' is not in the store" in text
    assert ask("forget", "customer", "of c1")[0] == 0
    online.delete("card:c1:other:burst")
    again = seed(warehouse, store)
    assert [metadata(again, name)["sent"] for name in ("card_history", "customer_stats")] == [1, 1]
    assert dump(online, but=(b"feature_seed:",)) == loaded


def test_nothing_starts_a_local_redis(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where no store is named and none runs, every command that looks at one says what to set."""
    commands = [["status"], ["check"], ["wait"], ["show", "card", "c1"]]
    for command in commands:
        assert main(command) == 1
        assert "set REDIS_URL" in capsys.readouterr().err
    assert not LocalRedis(home).running() and not home.exists()


def test_every_command_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    """Which is a command that there is."""
    for name in cli.commands:
        assert main([name, "--help"]) == 0
        assert f"python -m feature_seed {name}" in capsys.readouterr().out


def test_an_alert_to_try_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It has every field of a real one; without a webhook the variable is named."""
    monkeypatch.setenv("no_proxy", "*")
    assert main(["alert-test"]) == 1 and "FEATURE_SEED_ALERT_WEBHOOK is not set" in capsys.readouterr().err
    with webhook(200) as hook:
        monkeypatch.setenv("FEATURE_SEED_ALERT_WEBHOOK", hook.url)
        assert main(["alert-test"]) == 0
    ((_, body),) = hook.received
    assert set(body) == {"text", "run_id", "job", "error", "gold_version", "will_retry", "url"}
    assert "nothing failed" in body["text"]
