"""Progress: while a load goes on, its page and the terminal tell how far it is."""

import re
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._cli import create_dagster_cli

from feature_seed.graph import progress
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.gold import transaction

CARDS, BLOCK = 400, 16

COMMAND = ("job", "execute", "-m", "feature_seed", "-j", "seed_all")


@pytest.fixture
def instance_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return home


def observations(home: Path) -> dict[str, list[dict[str, float]]]:
    """What the only run has told of each asset, in the order of its events."""
    found: dict[str, list[dict[str, float]]] = {}
    with dg.DagsterInstance.from_config(str(home)) as instance:
        (run,) = instance.get_runs()
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_OBSERVATION):
            observed = entry.asset_observation
            assert observed
            told = {name: value.value for name, value in observed.metadata.items()}
            found.setdefault(observed.asset_key.to_user_string(), []).append(told)  # type: ignore[arg-type]
    return found


class Clock:
    """Time by the number of looks at it: each of the blocks that a load writes takes a tenth of a second."""

    now = 0.0

    def monotonic(self) -> float:
        self.now += 0.1
        return self.now


def test_a_load_tells_how_far_it_is(
    home: Path,
    instance_home: Path,
    make_parquet: MakeWarehouse,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Before: an empty store, and a cap under which cards come in 25 blocks, and a single customer in one.

    The command is run as it is, told to speak up at every third block. After: an event of the cards for
    each of these, with the cards of all blocks but the one that is under way, and what follows from them; a line in the
    terminal for each.
    """
    rows = [transaction(i, f"c{i}", seconds=i, customer_id="p1") for i in range(CARDS)]
    monkeypatch.setenv("FEATURE_SEED_GOLD_PARQUET", str(make_parquet(rows).gold_parquet))
    monkeypatch.setenv("FEATURE_SEED_MAX_RATE", "1000000")
    monkeypatch.setattr(progress, "_INTERVAL_SECONDS", 0.25)
    monkeypatch.setattr(progress, "time", Clock())
    monkeypatch.delitem(sys.modules, "feature_seed.definitions", raising=False)  # made anew, of this environment
    create_dagster_cli()(COMMAND, standalone_mode=False)
    terminal = capfd.readouterr().err
    told = observations(instance_home)
    told.pop("customer_stats", None)  # a single customer takes so long on a busy machine
    assert set(told) == {"card_history"}, "once for the cards, whichever of their features are loaded"
    blocks = [3, 6, 9, 12, 15, 18, 21, 24]
    for events in told.values():
        assert [one["entities_done"] for one in events] == [BLOCK * (block - 1) for block in blocks]
        for one, block in zip(events, blocks, strict=True):
            rate = one["entities_done"] / (block / 10)
            assert one["share_done"] == pytest.approx(one["entities_done"] / CARDS, abs=0.001)
            assert one["entities_per_second"] == pytest.approx(rate, abs=0.06)
            assert one["seconds_left"] == pytest.approx((CARDS - one["entities_done"]) / rate, abs=0.06)
    lines = re.findall(r"cards: (\d+) entities, \d+%, \d+ per second, \d+ s left", terminal)
    assert [int(line) for line in lines] == [BLOCK * (block - 1) for block in blocks]
    ended = re.findall(r"(\w+): \d+ entities in ", terminal)
    assert ended == ["cards", "customers"]
