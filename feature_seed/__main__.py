"""`python -m feature_seed`: what an operator asks a store, without Dagster's pages."""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from json import dumps
from typing import Any

import click

from feature_seed.contract import (
    CARD_HISTORY,
    CARD_LAST_TS,
    CARD_LOCATION,
    CARD_SEQ,
    CUSTOMER_STATS,
    Card,
    Welford,
    read_card,
    read_customer,
    read_ready,
)
from feature_seed.environment import flag, require_store
from feature_seed.errors import ConfigurationError, FeatureSeedError, StoreError
from feature_seed.graph import alert, kept, status
from feature_seed.store.cluster import store_from_environment
from feature_seed.store.local import LocalRedis
from feature_seed.store.online_store import OnlineStore

_POLL_SECONDS = 1.0


@click.group(help="Look at a store that feature_seed has seeded. The store is that of REDIS_URL, or the local Redis.")
@click.version_option(version("feature_seed"), prog_name="feature_seed")
def cli() -> None: ...


@cli.command("status")
@click.option("--json", "form", flag_value="json", help="Print one JSON object.")
@click.option("--prometheus", "form", flag_value="prometheus", help="Print gauges for Prometheus' textfile collector.")
def status_command(form: str | None) -> int:
    """Print the state of the store. The exit code is 0 if it is ready.

    \b
    Example:
      python -m feature_seed status
      python -m feature_seed status --prometheus > /var/lib/node_exporter/feature_seed.prom
    """
    found = status.status_of(_store(), tags=flag("FEATURE_SEED_KEY_TAGS"))
    if form == "json":
        click.echo(dumps(asdict(found), indent=2))
    else:
        lines = status.as_prometheus(found) if form else status.as_text(found)
        click.echo("\n".join(lines))
    return 0 if found.is_ready else 1


@cli.command()
def check() -> int:
    """Compare the store with what the last run left in it, and with gold. Nothing is written.

    The exit code is 0 if the store is still what the run left. A sample of FEATURE_SEED_SAMPLE entities is compared.

    \b
    Example:
      python -m feature_seed check
    """
    store = _store()
    from feature_seed.definitions import start  # needs the variables of gold too

    warehouse, layout = start.warehouse().process_config_and_initialize(), start.layout()
    for line in kept.require_unchanged(warehouse, store, layout, start.limits().sample_size):
        click.echo(line)
    return 0


@cli.command()
@click.option("--timeout", type=float, default=600, metavar="SECONDS", show_default=True, help="Give up after this.")
def wait(timeout: float) -> int:
    """Wait until the store is ready for a scorer. Print a line for each change meanwhile.

    The exit code is 0 once the store is ready, and 1 if it is not in time.

    \b
    Example:
      python -m feature_seed wait --timeout 600 && start-the-scorer
    """
    store = _store()
    deadline = time.monotonic() + timeout
    said = ""
    while True:
        is_ready, state = _state(store)
        if state != said:
            click.echo(f"{time.strftime('%H:%M:%S')} {state}", err=not is_ready)
            said = state
        if is_ready:
            return 0
        if time.monotonic() + _POLL_SECONDS > deadline:
            click.echo(f"{store.address} is not ready after {timeout:g} s: {state}", err=True)
            return 1
        time.sleep(_POLL_SECONDS)


def _state(store: OnlineStore) -> tuple[bool, str]:
    """Whether the store is ready, and its state in words."""
    try:
        with store.client() as redis:
            ready = read_ready(redis)
    except StoreError as e:
        return False, str(e)
    if ready is None:
        return False, "nothing has been seeded"
    if ready.state == "ready":
        return True, status.in_words(ready)
    return False, f"its state is {ready.state!r}"


@cli.command()
@click.argument("kind", type=click.Choice(["card", "customer"]))
@click.argument("id_", metavar="ID")
def show(kind: str, id_: str) -> int:
    """Print the keys of a card or a customer, as a scorer reads them.

    \b
    Example:
      python -m feature_seed show card card-4307
      python -m feature_seed show customer cust-0021
    """
    store, tags = _store(), flag("FEATURE_SEED_KEY_TAGS")
    read = {"card": read_card, "customer": read_customer}[kind]
    with store.client() as redis:
        state = read(redis, id_, tags=tags)
    if state is None:
        click.echo(f"{kind} {id_!r} is not in the store at {store.address}: has it been seeded?", err=True)
        return 1
    click.echo(_pretty(_keys(state, id_, tags=tags)))
    return 0


def _keys(state: Card | Welford, id_: str, *, tags: bool) -> dict[str, Any]:
    """The values by the contract's names."""
    if isinstance(state, Welford):
        return {CUSTOMER_STATS.of(id_, tags=tags): {"count": state.count, "mean": state.mean, "M2": state.m2}}
    place = dict(zip(CARD_LOCATION.fields, state.location, strict=True)) if state.location else None
    values = {
        CARD_HISTORY: [asdict(one) for one in state.history],
        CARD_LOCATION: place,
        CARD_LAST_TS: state.last_ts,
        CARD_SEQ: state.seq,
    }
    return {key.of(id_, tags=tags): value for key, value in values.items() if value is not None}


def _pretty(keys: dict[str, Any]) -> str:
    """JSON with a line per key, and one per transaction."""
    lines = [f"  {dumps(name, ensure_ascii=False)}: {_rows(value)}" for name, value in keys.items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def _rows(value: Any) -> str:
    if isinstance(value, list) and value:
        return "[\n    " + ",\n    ".join(dumps(one, ensure_ascii=False) for one in value) + "\n  ]"
    return dumps(value, ensure_ascii=False)


@cli.command()
def empty() -> int:
    """Stop the local Redis and delete what it held. A store that REDIS_URL names is never emptied.

    \b
    Example:
      python -m feature_seed empty
    """
    require_store()
    store = _configured()
    if store.url is not None:
        click.echo("REDIS_URL names a store of yours: empty it yourself", err=True)
        return 1
    LocalRedis(store.home).remove()
    return 0


@cli.command("alert-test")
def alert_test() -> int:
    """Send an alert to FEATURE_SEED_ALERT_WEBHOOK that says that nothing failed.

    \b
    Example:
      FEATURE_SEED_ALERT_WEBHOOK=https://hooks.internal/… python -m feature_seed alert-test
    """
    alert.send_test()
    click.echo("FEATURE_SEED_ALERT_WEBHOOK has taken an alert: look whether it has come to where people look")
    return 0


def _store() -> OnlineStore:
    """The store to look at. A local Redis is not started for that: it would be empty.

    Raises:
        ConfigurationError: no store is named, and no local one runs.
    """
    require_store()
    store = _configured()
    if store.url is None and not LocalRedis(store.home).running():
        raise ConfigurationError(
            f"REDIS_URL is not set, and no local Redis runs in FEATURE_SEED_HOME {store.home!r}: set REDIS_URL and "
            "REDIS_PASSWORD to look at a store of yours, or run seed_all, which starts a local one"
        )
    return store


def _configured() -> OnlineStore:
    return store_from_environment().process_config_and_initialize()


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of a command; what goes wrong is a sentence, not a stack trace."""
    try:
        return cli.main(arguments, prog_name="python -m feature_seed", standalone_mode=False) or 0
    except click.ClickException as e:
        e.show()
        return e.exit_code
    except click.exceptions.Abort:
        return 130
    except FeatureSeedError as e:
        click.echo(e, err=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
