"""What tests of the sensors share: a deployment, and what happens to its gold and in the midst of its runs."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from feature_seed.graph.io_manager import RedisIOManager
from feature_seed.loading.stream import FeatureStream
from feature_seed.store.online_store import OnlineStore
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.gold import transaction
from feature_seed_tests.support.sensing import Deployment, Meanwhile


@pytest.fixture
def deployment(tmp_path: Path, make_parquet: MakeWarehouse, store: OnlineStore) -> Iterator[Deployment]:
    with dg.DagsterInstance.ephemeral(str(tmp_path), settings={"telemetry": {"enabled": False}}) as instance:
        yield Deployment(instance, make_parquet([transaction(1)]), store)


@pytest.fixture
def rebuild(make_parquet: MakeWarehouse, tmp_path: Path) -> Callable[[], None]:
    """Writes gold anew, a row more every time; as if a minute after the last time."""
    rows = [transaction(1)]

    def build() -> None:
        rows.append(transaction(len(rows), seconds=len(rows)))
        make_parquet(rows)
        os.utime(tmp_path / "gold.parquet", (0, 60 * len(rows)))

    return build


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Has something happen once, in the midst of the next run: when its first feature is loaded."""

    def once(happen: Callable[[], None]) -> None:
        load = RedisIOManager.handle_output
        left = [happen]

        def load_and_happen(manager: RedisIOManager, context: dg.OutputContext, stream: FeatureStream) -> None:
            load(manager, context, stream)
            while left:
                left.pop()()

        monkeypatch.setattr(RedisIOManager, "handle_output", load_and_happen)

    return once
