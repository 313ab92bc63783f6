"""Preflight: whether the store is fit to be seeded, and whether its user has the rights. Nothing is written here.

Preflight finds out which commands the store has, and which its user may run, without running one.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis
from redis.exceptions import AskError, ClusterDownError

from feature_seed.contract import KEYS
from feature_seed.errors import StoreError, StoreUnavailableError
from feature_seed.loading.memory import MemoryEstimate
from feature_seed.store.acl import needed_by
from feature_seed.store.bulk import NEEDS_CLUSTER
from feature_seed.store.cluster import ClusterStore, primaries
from feature_seed.store.commands import DONE_WITHOUT, FIELDS, SPARED, Calls, spared
from feature_seed.store.lock import KEY as LOCK
from feature_seed.store.online_store import OnlineStore

# The oldest with every command and every rule of the README's ACL; Valkey says 7.2.4 for this.
OLDEST = (6, 2)

# For each rule of the ACL, a command with a key that the rule allows.
_KEYS = {f"~{key.split(':')[0]}:*": f"EVALSHA script 1 {key}" for key in (LOCK, *(key.of("") for key in KEYS))}

Refusals = Mapping[str, redis.ResponseError]


@dataclass(frozen=True)
class Server:
    """What a Redis says of itself. What it does not say is empty or 0."""

    policy: str  # maxmemory-policy
    used: int  # bytes
    limit: int  # likewise; 0 is none
    run_id: str  # another after every start
    expires: bool = False  # whether features do
    losses: tuple[str, ...] = ()  # texts: what is lost since the store lacks a command or says too little

    @classmethod
    def of(cls, info: Mapping[str, Any], losses: Iterable[str] = ()) -> "Server":
        """From the fields of INFO: managed stores forbid CONFIG. Some leave fields out of INFO."""
        return cls(
            policy=str(info.get("maxmemory_policy", "noeviction")),
            used=int(info.get("used_memory", 0)),
            limit=int(info.get("maxmemory", 0)),
            run_id=str(info.get("run_id", "")),
            losses=tuple(losses),
        )

    @classmethod
    def together(cls, servers: Sequence["Server"]) -> "Server":
        """All servers as one. Slots are spread evenly, so the first node that is full, or evicts, ends the load."""
        count = len(servers)
        worst = min(servers, key=lambda one: (not one.evicts, one.limit - one.used if one.limit else math.inf))
        losses = tuple(dict.fromkeys(loss for one in servers for loss in one.losses))
        return replace(worst, used=worst.used * count, limit=worst.limit * count, losses=losses)

    @property
    def evicts(self) -> bool:
        """Whether it may evict features. volatile-* evicts only keys that expire."""
        return self.limit > 0 and self.policy.startswith(("allkeys-", "volatile-") if self.expires else "allkeys-")

    def shortage(self, estimate: MemoryEstimate) -> str:
        """What is wrong with its memory, with figures, for features that need this much; '' if nothing is."""
        limit, used = _mb(self.limit), _mb(self.used)
        if self.evicts:
            return (
                f"Redis may evict features: its maxmemory-policy is {self.policy}, its maxmemory is {limit}, {used} "
                f"are in use, and this load needs about {_mb(estimate.needed)}. Set the policy to noeviction"
            )
        if self.limit and estimate.needed > self.limit - self.used:
            entities = ", ".join(f"{count:,} entities of {name}" for name, count in estimate.entities.items())
            return (
                f"Redis has too little memory: {entities} are not there yet and need about {_mb(estimate.needed)}. "
                f"Its maxmemory is {limit}, and {used} are in use. "
                f"Free memory, or raise maxmemory to {_mb(self.used + estimate.needed)} or more"
            )
        return ""


def examine(client: redis.Redis, store: OnlineStore, declared: Sequence[str] = (), expires: bool = False) -> Server:
    """What the store is, all its primaries together. A StoreError says why it cannot be seeded, and what to do.

    `declared` are the patterns of declared keys. `expires` says whether standard features expire.

    A store whose primary may be replaced has no id of a start here: `warm_start` finds out what a failover has lost.
    While sentinels name a former primary, the error is a StoreUnavailableError.
    """
    needed = needed_by(store, declared, expires)
    server = Server.together([_examine(primary, store, needed, declared) for primary in primaries(client)])
    return replace(server, expires=expires, run_id="" if store.fails_over else server.run_id)


def _examine(client: redis.Redis, store: OnlineStore, needed: Calls, declared: Sequence[str]) -> Server:
    info: Any = spared(client.info, {})
    if info.get("role", "master") != "master":
        primary = f"{info.get('master_host')}:{info.get('master_port')}"
        if store.fails_over:
            raise StoreUnavailableError(
                f"Redis at {store.address} names a replica of {primary} as a primary: a failover is under way"
            )
        raise StoreError(f"Redis at {store.address} is a replica of {primary}: point REDIS_URL at the primary")
    version = str(info.get("redis_version", ""))
    if version and tuple(map(int, version.split(".")[:2])) < OLDEST:
        raise StoreError(
            f"Redis at {store.address} is {version}, which lacks commands and rights that are needed: "
            f"use {'.'.join(map(str, OLDEST))} or newer"
        )
    if info.get("cluster_enabled") and not isinstance(store, ClusterStore):
        raise StoreError(f"Redis at {store.address} refuses: {NEEDS_CLUSTER}")
    losses = _require_rights(client, store, needed, declared)
    if store.fails_over and not info.get("master_replid"):
        raise StoreError(
            f"Redis at {store.address} leaves master_replid out of INFO, without which a failover cannot be seen"
        )
    return Server.of(info, (*losses, *unsaid(store, info)))


def unsaid(store: OnlineStore, info: Mapping[str, Any]) -> list[str]:
    """What is lost for each field that INFO leaves out. A store without INFO was warned of already."""
    missing = [field for field in FIELDS if info and field not in info]
    return [f"Redis at {store.address} leaves {field} out of INFO, so {FIELDS[field]}" for field in missing]


def _require_rights(client: redis.Redis, store: OnlineStore, needed: Calls, declared: Sequence[str]) -> list[str]:
    """A text for each loss, with the commands that are done without.

    A StoreError names all needed commands that the store lacks, or all rights that its user lacks.
    """
    connection = client.connection_pool.get_connection()
    try:
        starts = (key.partition("{")[0] for key in declared)
        ours = {**_KEYS, **{f"~{start}*": f"EVALSHA script 1 {start}0" for start in starts}}
        refusals = _refusals(connection, {**SPARED, **needed, **ours})
    finally:
        connection.disconnect()  # then Redis forgets what is queued
        client.connection_pool.release(connection)
    lost = {name: error for name, error in refusals.items() if name in DONE_WITHOUT and name not in needed}
    _require(store, {name: error for name, error in refusals.items() if name not in lost})
    return [_loss(store, loss, lost) for loss in dict.fromkeys(DONE_WITHOUT[command] for command in lost)]


def _refusals(connection: Any, calls: Calls) -> Refusals:
    """Redis checks a command when MULTI queues it. ACL DRYRUN would need a right of its own, and Redis 7."""
    if error := _refusal(connection, "MULTI"):
        return {"MULTI": error}  # the commands that follow would be run
    asked = {"EXEC": _refusal(connection, "EXEC")}
    _refusal(connection, "MULTI")  # EXEC has ended the first, even where it was refused
    asked |= {name: _refusal(connection, call) for name, call in calls.items()}
    return {name: error for name, error in asked.items() if error and _of_a_key(error) == name.startswith("~")}


def _refusal(connection: Any, call: str) -> redis.ResponseError | None:
    """Why this command cannot be queued, None when it can."""
    connection.send_command(*call.split(), check_health=False)
    try:
        connection.read_response()
    except (AskError, ClusterDownError):  # Redis checks rights first: a key of another node lacks none
        return None
    except redis.ResponseError as e:
        return e
    return None


def _of_a_key(error: redis.ResponseError) -> bool:
    return _forbidden(error) and "run the" not in str(error)


def _forbidden(error: redis.ResponseError) -> bool:
    # By its text, which Redis 8 begins with a capital. If EXEC is forbidden, the error has another class.
    return "no permissions" in str(error).lower()


def _require(store: OnlineStore, refusals: Refusals) -> None:
    if missing := [command for command, error in refusals.items() if "unknown" in str(error)]:
        raise StoreError(
            f"Redis at {store.address} has no {', '.join(missing)}, without which features cannot be seeded, and "
            "nothing was written: use a store that has them all"
        )
    if rules := _rules(refusals):
        user = store.target.user
        raise StoreError(
            f"User {user!r} of Redis at {store.address} lacks rights, and nothing was written: "
            f"ACL SETUSER {user} {rules}"
        )
    for error in refusals.values():  # the store takes no write at all: its error says why
        raise error


def _loss(store: OnlineStore, loss: str, refusals: Refusals) -> str:
    of_it = {command: error for command, error in refusals.items() if DONE_WITHOUT[command] == loss}
    names, user = ", ".join(of_it), store.target.user
    if rules := _rules(of_it):
        return f"User {user!r} of Redis at {store.address} may not run {names}, so {loss}: ACL SETUSER {user} {rules}"
    return f"Redis at {store.address} does not run {names}, so {loss}"


def _rules(refusals: Refusals) -> str:
    lacking = [name for name, error in refusals.items() if _forbidden(error)]
    return " ".join(name if name.startswith("~") else f"+{name.replace(' ', '|').lower()}" for name in lacking)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
