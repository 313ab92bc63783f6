"""Before the first write: which commands the store has, and its user may run. None of them is run here."""

from collections.abc import Mapping
from typing import Any

import redis
from redis.exceptions import AskError, ClusterDownError

from feature_seed.contract import KEYS
from feature_seed.errors import StoreError
from feature_seed.store.commands import DONE_WITHOUT, SPARED, Calls
from feature_seed.store.lock import KEY as LOCK
from feature_seed.store.online_store import OnlineStore

# A command with a key of every kind, by the rule that allows the kind.
_KEYS = {f"~{key.split(':')[0]}:*": f"EVALSHA script 1 {key}" for key in (LOCK, *(key.of("") for key in KEYS))}

Refusals = Mapping[str, redis.ResponseError]


def require_rights(client: redis.Redis, store: OnlineStore, needed: Calls) -> list[str]:
    """What is done without, and what is lost by that, in a text for each loss.

    Raises:
        StoreError: the store lacks a command that is needed, or its user a right; with all of them.
    """
    connection = client.connection_pool.get_connection()
    try:
        refusals = _refusals(connection, {**SPARED, **needed, **_KEYS})
    finally:
        connection.disconnect()  # and with it Redis forgets what is queued
        client.connection_pool.release(connection)
    lost = {name: error for name, error in refusals.items() if name in DONE_WITHOUT and name not in needed}
    _require(store, {name: error for name, error in refusals.items() if name not in lost})
    return [_loss(store, loss, lost) for loss in dict.fromkeys(DONE_WITHOUT[command] for command in lost)]


def _refusals(connection: Any, calls: Calls) -> Refusals:
    """Redis looks at a command when MULTI queues it. ACL DRYRUN would need a right of its own, and Redis 7."""
    if error := _refusal(connection, "MULTI"):
        return {"MULTI": error}  # what follows would be run
    asked = {"EXEC": _refusal(connection, "EXEC")}
    _refusal(connection, "MULTI")  # EXEC has ended the first, even where it was refused
    asked |= {name: _refusal(connection, call) for name, call in calls.items()}
    return {name: error for name, error in asked.items() if error and _of_a_key(error) == name.startswith("~")}


def _refusal(connection: Any, call: str) -> redis.ResponseError | None:
    """Why this command cannot be queued, None when it can."""
    connection.send_command(*call.split(), check_health=False)
    try:
        connection.read_response()
    except (AskError, ClusterDownError):  # rights come first: another node's key is no lack of one
        return None
    except redis.ResponseError as e:
        return e
    return None


def _of_a_key(error: redis.ResponseError) -> bool:
    return _forbidden(error) and "run the" not in str(error)


def _forbidden(error: redis.ResponseError) -> bool:
    # By its text, which Redis 8 begins with a capital: where EXEC is forbidden, the error is of another class.
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
    for error in refusals.values():  # the store takes no write at all, and says why
        raise error


def _loss(store: OnlineStore, loss: str, refusals: Refusals) -> str:
    of_it = {command: error for command, error in refusals.items() if DONE_WITHOUT[command] == loss}
    names, user = ", ".join(of_it), store.target.user
    if rules := _rules(of_it):
        return f"User {user!r} of Redis at {store.address} may not run {names}, so {loss}: ACL SETUSER {user} {rules}"
    return f"Redis at {store.address} does not run {names}, so {loss}"


def _rules(refusals: Refusals) -> str:
    """The rules that give the rights."""
    lacking = [name for name, error in refusals.items() if _forbidden(error)]
    return " ".join(name if name.startswith("~") else f"+{name.replace(' ', '|').lower()}" for name in lacking)
