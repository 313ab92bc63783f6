"""Before the first write: which commands the store has, and its user may run. None of them is run here."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import redis
from redis.exceptions import AskError, ClusterDownError

from feature_seed.contract import KEYS
from feature_seed.errors import StoreError
from feature_seed.store.commands import DONE_WITHOUT, NO_SCRIPT, Commands
from feature_seed.store.lock import KEY as LOCK
from feature_seed.store.online_store import OnlineStore

# A key of every kind, by the pattern of its kind.
_KEYS = {f"{key.split(':')[0]}:*": key for key in (LOCK, *(key.of("") for key in KEYS))}


def require_rights(
    client: redis.Redis, store: OnlineStore, needed: Commands, declared: Sequence[str] = ()
) -> list[str]:
    """What is done without, and what is lost by that, in a text for each loss. `declared` are patterns of more keys.

    Raises:
        StoreError: the store lacks a command that is needed, or its user a right; with all of them.
    """
    connection = client.connection_pool.get_connection()
    try:
        refusals, keys = _of_transactions(connection), []
        if "MULTI" not in refusals:  # otherwise what follows would be run
            spared = {command: one.arguments for command, one in DONE_WITHOUT.items()}
            refusals |= _refusals(connection, {**spared, **needed})
            ours = {**_KEYS, **{f"{start}*": start for start in (key.partition("{")[0] for key in declared)}}
            keys = [rule for pattern, key in ours.items() if (rule := _lacking_key(connection, pattern, key))]
    finally:
        connection.disconnect()  # and with it Redis forgets what is queued
        client.connection_pool.release(connection)
    lost = {command: error for command, error in refusals.items() if command in DONE_WITHOUT and command not in needed}
    _require(store, {command: error for command, error in refusals.items() if command not in lost}, keys)
    return _losses(store, lost)


def _of_transactions(connection: Any) -> dict[str, redis.ResponseError]:
    """Why those cannot be run that cannot be queued. A transaction is begun, if that can be done."""
    if error := _refusal(connection, "MULTI"):
        return {"MULTI": error}
    error = _refusal(connection, "EXEC")
    _refusal(connection, "MULTI")  # EXEC has ended the first, even where it was refused
    return {"EXEC": error} if error else {}


def _refusals(connection: Any, commands: Commands) -> dict[str, redis.ResponseError]:
    """Redis looks at a command when MULTI queues it. ACL DRYRUN would need a right of its own, and Redis 7."""
    asked = {command: _refusal(connection, *command.split(), *arguments) for command, arguments in commands.items()}
    return {command: error for command, error in asked.items() if error and not _of_a_key(error)}


def _refusal(connection: Any, *command: str) -> redis.ResponseError | None:
    """Why this command cannot be queued, None when it can."""
    connection.send_command(*command, check_health=False)
    try:
        connection.read_response()
    except (AskError, ClusterDownError):  # rights come first: another node's key is no lack of one
        return None
    except redis.ResponseError as e:
        return e
    return None


def _of_a_key(error: redis.ResponseError) -> bool:
    return _forbidden(error) and "run the" not in str(error)


def _lacking_key(connection: Any, pattern: str, key: str) -> str:
    error = _refusal(connection, "EVALSHA", NO_SCRIPT, "1", key)
    return f"~{pattern}" if error and _of_a_key(error) else ""


def _forbidden(error: redis.ResponseError) -> bool:
    # By its text, which Redis 8 begins with a capital: where EXEC is forbidden, the error is of another class.
    return "no permissions" in str(error).lower()


def _require(store: OnlineStore, refusals: Mapping[str, redis.ResponseError], keys: list[str]) -> None:
    user = store.target.user
    if missing := [command for command, error in refusals.items() if "unknown" in str(error)]:
        raise StoreError(
            f"Redis at {store.address} has no {', '.join(missing)}, without which features cannot be seeded, and "
            "nothing was written: use a store that has them all"
        )
    if lacking := [*(_rule(command) for command, error in refusals.items() if _forbidden(error)), *keys]:
        raise StoreError(
            f"User {user!r} of Redis at {store.address} lacks rights, and nothing was written: "
            f"ACL SETUSER {user} {' '.join(lacking)}"
        )
    for error in refusals.values():  # the store takes no write at all, and says why
        raise error


def _losses(store: OnlineStore, refusals: Mapping[str, redis.ResponseError]) -> list[str]:
    by_loss: dict[str, list[str]] = defaultdict(list)
    for command in refusals:
        by_loss[DONE_WITHOUT[command].lost].append(command)
    return [_loss(store, commands, lost, refusals) for lost, commands in by_loss.items()]


def _loss(store: OnlineStore, commands: list[str], lost: str, refusals: Mapping[str, redis.ResponseError]) -> str:
    names, user = ", ".join(commands), store.target.user
    if rules := [_rule(command) for command in commands if _forbidden(refusals[command])]:
        grant = f"ACL SETUSER {user} {' '.join(rules)}"
        return f"User {user!r} of Redis at {store.address} may not run {names}, so {lost}: {grant}"
    return f"Redis at {store.address} does not run {names}, so {lost}"


def _rule(command: str) -> str:
    return f"+{command.replace(' ', '|').lower()}"
