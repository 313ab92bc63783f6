"""`python -m feature_seed`: what an operator asks a store, without Dagster's pages."""

import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from json import dumps
from typing import Any

import click
from dagster import DagsterRun

from feature_seed import contract
from feature_seed.environment import flag, is_set, require_store
from feature_seed.errors import ConfigurationError, FeatureSeedError, StoreError
from feature_seed.features.entity import CARDS, CUSTOMERS
from feature_seed.graph import failure, status, store_check
from feature_seed.graph.configuration import configured
from feature_seed.graph.plan import loss_result
from feature_seed.graph.readiness import recorded
from feature_seed.loading.layout import shard_names
from feature_seed.store.acl import acl
from feature_seed.store.cluster import store_from_environment
from feature_seed.store.local import LocalRedis
from feature_seed.store.lock import Owner, StoreLock
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
    printed = {"json": status.as_json, "prometheus": status.as_prometheus}.get(form or "", status.as_text)
    click.echo("\n".join(printed(found)))
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
    size = start.limits().sample_size
    for line in store_check.require_unchanged(warehouse, store, layout, size, start.declared):
        click.echo(line)
    return 0


@cli.command()
def plan() -> int:
    """Say what a load would do: what is new, changed, gone or smaller than before. Nothing is written.

    The exit code is 1 if gold has lost more than FEATURE_SEED_MAX_LOSS allows, which blocks a run. Set DAGSTER_HOME to
    see the bytes and the time that a load takes.

    \b
    Example:
      python -m feature_seed plan
    """
    store = _store()
    from feature_seed.definitions import start  # needs the variables of gold too

    warehouse, layout = start.warehouse().process_config_and_initialize(), start.layout()
    shards, limit = shard_names(layout.shard_count), start.limits().max_loss
    with recorded() as instance:
        result = loss_result(warehouse, store, layout, shards, limit, instance)
    click.echo("\n".join(str(result.description).split("; ")))
    return 0 if result.passed else 1


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
        is_ready = False
        try:
            with store.client() as redis:
                ready = contract.read_ready(redis) or contract.Ready("empty")
            is_ready, state = ready.state == "ready", status.in_words(ready)
        except StoreError as e:
            state = str(e)
        if state != said:
            click.echo(f"{time.strftime('%H:%M:%S')} {state}", err=not is_ready)
            said = state
        if is_ready:
            return 0
        if time.monotonic() + _POLL_SECONDS > deadline:
            click.echo(f"{store.address} is not ready after {timeout:g} s: {state}", err=True)
            return 1
        time.sleep(_POLL_SECONDS)


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
    read = {"card": contract.read_card, "customer": contract.read_customer}[kind]
    with store.client() as redis:
        state = read(redis, id_, tags=tags)
    if state is None:
        click.echo(f"{kind} {id_!r} is not in the store at {store.address}: has it been seeded?", err=True)
        return 1
    click.echo(_json(_keys(state, id_, tags=tags)))
    return 0


@cli.command()
@click.argument("kind", type=click.Choice(["card", "customer"]))
@click.argument("id_", metavar="ID")
def forget(kind: str, id_: str) -> int:
    """Delete every key of a card or a customer, whatever they hold. A load of a gold that has it brings it back.

    The keys of declared features go too where they name this id alone. The exit code is 1 if there was no key.

    \b
    Example:
      python -m feature_seed forget card card-4307
    """
    store, tags, column = _store(), flag("FEATURE_SEED_KEY_TAGS"), f"{{{kind}_id}}"
    names = {"card": CARDS, "customer": CUSTOMERS}[kind].names(id_, tags=tags)
    declared = [one.key for one in configured().declared if one.columns == (column[1:-1],)]
    names += [key.replace(column, f"{{{id_}}}" if tags else id_) for key in declared]
    lock = StoreLock(store, Owner("the command forget", shared=False), wait_seconds=0)
    try:
        lock.acquire(logging.getLogger())
        with store.client(lock.owner.connection) as redis:
            gone = redis.delete(*names)
    finally:
        lock.release()
    done = f"{gone} keys of {kind} {id_!r} were deleted" if gone else f"{kind} {id_!r} is not in the store"
    click.echo(f"{done} at {store.address}", err=not gone)
    return 0 if gone else 1


def _keys(state: contract.Card | contract.Welford, id_: str, *, tags: bool) -> dict[str, Any]:
    """The values by the contract's names."""
    if isinstance(state, contract.Welford):
        return {contract.CUSTOMER_STATS.of(id_, tags=tags): {"count": state.count, "mean": state.mean, "M2": state.m2}}
    lat_lon = state.location and dict(zip(contract.CARD_LOCATION.fields, state.location, strict=True))
    values = {
        contract.CARD_HISTORY: [asdict(one) for one in state.history],
        contract.CARD_LOCATION: lat_lon,
        contract.CARD_LAST_TS: state.last_ts,
        contract.CARD_SEQ: state.seq,
    }
    return {key.of(id_, tags=tags): value for key, value in values.items() if value is not None}


def _json(keys: dict[str, Any]) -> str:
    """A line per key, and one per transaction."""
    text = partial(dumps, ensure_ascii=False)
    lists = {name: ",\n    ".join(map(text, value)) for name, value in keys.items() if isinstance(value, list)}
    texts = {name: f"[\n    {lists[name]}\n  ]" if lists.get(name) else text(value) for name, value in keys.items()}
    return "{\n" + ",\n".join(f"  {text(name)}: {value}" for name, value in texts.items()) + "\n}"


@cli.command("acl")
def acl_command() -> int:
    """Print the ACL lines of the seeder and of a scorer: the rights that they use, by the variables that are set.

    \b
    Example:
      FEATURE_SEED_CONFIG=seed.yaml python -m feature_seed acl
    """
    from feature_seed.graph.component import WarmStart

    start = WarmStart(**dict(configured()))
    click.echo("\n".join(acl(_configured(), start.declared, bool(start.layout().expire))))
    return 0


@cli.command()
def empty() -> int:
    """Stop the local Redis and delete what it held. A store that REDIS_URL names is never emptied.

    \b
    Example:
      python -m feature_seed empty
    """
    store = _configured()
    if store.url is not None:
        raise ConfigurationError("REDIS_URL names a store of yours: empty it yourself")
    LocalRedis(store.home).remove()
    return 0


@cli.command("alert-test")
def alert_test() -> int:
    """Send an alert to FEATURE_SEED_ALERT_WEBHOOK that says that nothing failed.

    \b
    Example:
      FEATURE_SEED_ALERT_WEBHOOK=https://hooks.internal/… python -m feature_seed alert-test
    """
    if not is_set(failure.WEBHOOK):
        raise ConfigurationError(f"{failure.WEBHOOK} is not set: name the URL that is to get alerts")
    error = "nothing failed. Whoever reads this gets the alerts of feature_seed"
    alert = failure.alert_of(DagsterRun("seed_all", "alert-test"), error)
    failure.send({**alert, "url": os.environ.get("FEATURE_SEED_DAGSTER_URL") or None}, "A test of the alert")
    click.echo("FEATURE_SEED_ALERT_WEBHOOK has taken an alert: look whether it has come to where people look")
    return 0


def _store() -> OnlineStore:
    """The store to look at. A local Redis is not started for that: it would be empty.

    Raises:
        ConfigurationError: no store is named, and no local one runs.
    """
    store = _configured()
    if store.url is None and not LocalRedis(store.home).running():
        raise ConfigurationError(
            f"REDIS_URL is not set, and no local Redis runs in FEATURE_SEED_HOME {store.home!r}: set REDIS_URL and "
            "REDIS_PASSWORD to look at a store of yours, or run seed_all, which starts a local one"
        )
    return store


def _configured() -> OnlineStore:
    require_store()
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
