"""`python -m feature_seed`: look at what was seeded, wait until the store is ready, or empty the local store."""

import argparse
import sys
import time
from dataclasses import asdict
from json import dumps
from typing import Any

from feature_seed.contract import read_card, read_customer, read_ready
from feature_seed.environment import flag, require_store
from feature_seed.errors import FeatureSeedError, StoreError
from feature_seed.store.cluster import store_from_environment
from feature_seed.store.local import LocalRedis
from feature_seed.store.online_store import OnlineStore

_POLL_SECONDS = 1.0

_PURPOSE = "Look at what was seeded, wait until the store is ready, or empty the local store."

_PURPOSE = "Look at what was seeded, wait until the store is ready, or empty the local store."


def show(kind: str, entity_id: str) -> int:
    """Print an entity's state as the scorer reads it. Return 1 if the store does not know the entity."""
    read = {"card": read_card, "customer": read_customer}[kind]
    store = _store()
    with store.client() as redis:
        state = read(redis, entity_id, tags=flag("FEATURE_SEED_KEY_TAGS"))
    if state is None:
        print(f"{kind} {entity_id!r} is not in the store at {store.address}: has it been seeded?", file=sys.stderr)
        return 1
    print(_pretty(asdict(state)))
    return 0


def _pretty(fields: dict[str, Any]) -> str:
    """JSON with a line per field, and one per transaction."""
    lines = [f"  {dumps(name)}: {_rows(value)}" for name, value in fields.items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def _rows(value: Any) -> str:
    if isinstance(value, tuple) and value and isinstance(value[0], dict):
        return "[\n    " + ",\n    ".join(dumps(one, ensure_ascii=False) for one in value) + "\n  ]"
    return dumps(value, ensure_ascii=False)


def wait(timeout: float) -> int:
    """Return 0 once the store is ready, 1 if it is not within `timeout` seconds. Waits for a store that is starting."""
    store = _store()
    deadline = time.monotonic() + timeout
    while reason := _not_ready(store):
        if time.monotonic() + _POLL_SECONDS > deadline:
            print(f"{store.address} is not ready after {timeout:g} s: {reason}", file=sys.stderr)
            return 1
        time.sleep(_POLL_SECONDS)
    return 0


def _not_ready(store: OnlineStore) -> str:
    """Why the store is not ready, or an empty text if it is."""
    try:
        with store.client() as redis:
            ready = read_ready(redis)
    except StoreError as e:
        return str(e)
    if ready is None:
        return "nothing has been seeded"
    return "" if ready.state == "ready" else f"its state is {ready.state!r}"


def empty() -> int:
    """Stop the local Redis and delete what it held. A store that REDIS_URL names is never emptied."""
    store = _store()
    if store.url is not None:
        print("REDIS_URL names a store of yours: empty it yourself", file=sys.stderr)
        return 1
    LocalRedis(store.home).remove()
    return 0


def _store() -> OnlineStore:
    require_store()
    return store_from_environment().process_config_and_initialize()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m feature_seed", description=_PURPOSE)
    commands = parser.add_subparsers(dest="command", required=True)
    show_parser = commands.add_parser("show", help="print the state of a card or a customer, as a scorer reads it")
    show_parser.add_argument("kind", choices=["card", "customer"])
    show_parser.add_argument("id")
    wait_parser = commands.add_parser("wait", help="wait until the store is ready for a scorer")
    wait_parser.add_argument(
        "--timeout", type=float, default=600, metavar="SECONDS", help="give up after this time (600)"
    )
    commands.add_parser("empty", help="stop the local Redis and delete what it held")
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    try:
        if arguments.command == "show":
            return show(arguments.kind, arguments.id)
        return wait(arguments.timeout) if arguments.command == "wait" else empty()
    except FeatureSeedError as e:
        print(e, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
