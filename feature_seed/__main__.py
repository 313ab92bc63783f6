"""`python -m feature_seed`: look at what was seeded, and empty the local store."""

import argparse
import sys
from dataclasses import asdict
from json import dumps

from feature_seed.contract import read_card, read_customer
from feature_seed.errors import FeatureSeedError
from feature_seed.local_redis import LocalRedis
from feature_seed.online_store import OnlineStore


def show(kind: str, entity_id: str) -> int:
    """Print an entity's state as the scorer reads it; 1 when the store does not know it."""
    from feature_seed.definitions import layout, store

    read = {"card": read_card, "customer": read_customer}[kind]
    with store.process_config_and_initialize().client() as redis:
        state = read(redis, entity_id, tags=layout.key_tags)
    if state is None:
        print(f"{kind} {entity_id!r} is not in the store at {_address(store)}: has it been seeded?", file=sys.stderr)
        return 1
    print(dumps(asdict(state), indent=2, ensure_ascii=False))
    return 0


def empty() -> int:
    """Stop the local Redis and forget what it held; a store that REDIS_URL names is never emptied."""
    from feature_seed.definitions import store

    if store.url is not None:
        print("REDIS_URL names a store of yours: empty it yourself", file=sys.stderr)
        return 1
    LocalRedis(store.home).remove()
    return 0


def _address(store: OnlineStore) -> str:
    return store.process_config_and_initialize().address


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m feature_seed", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    show_parser = commands.add_parser("show", help="print the seeded state of a card or a customer")
    show_parser.add_argument("kind", choices=["card", "customer"])
    show_parser.add_argument("id")
    commands.add_parser("empty", help="stop the local Redis and forget what it held")
    arguments = parser.parse_args()
    try:
        return show(arguments.kind, arguments.id) if arguments.command == "show" else empty()
    except FeatureSeedError as e:
        print(e, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
