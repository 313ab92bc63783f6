"""Progress: while a load goes on, its page and the terminal tell how far it is."""

import re
import sys
from itertools import pairwise
from pathlib import Path

import dagster as dg
import pytest
from dagster._cli import create_dagster_cli

from feature_seed.graph import progress
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.gold import transaction

CARDS, RATE, INTERVAL_SECONDS = 400, 500, 0.15

COMMAND = ("job", "execute", "-m", "feature_seed", "-j", "seed_all")


@pytest.fixture
def instance_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return home


def observations(home: Path) -> dict[str, list[dict[str, float]]]:
    """What the only run has told of each asset and when, in the order of its events."""
    found: dict[str, list[dict[str, float]]] = {}
    with dg.DagsterInstance.from_config(str(home)) as instance:
        (run,) = instance.get_runs()
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_OBSERVATION):
            observed = entry.asset_observation
            assert observed
            told = {name: value.value for name, value in observed.metadata.items()}
            events = found.setdefault(observed.asset_key.to_user_string(), [])
            events.append({**told, "at": entry.timestamp})  # type: ignore[arg-type]
    return found


def test_a_load_tells_how_far_it_is(
    home: Path,
    instance_home: Path,
    make_parquet: MakeWarehouse,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Before: an empty store, and a cap under which cards take 0.8 s, and a single customer none.

    The command is run as it is, told to speak up more often. After: some events of the cards, with growing
    counts and what follows from them; a line in the terminal for each.
    """
    rows = [transaction(i, f"c{i}", seconds=i, customer_id="p1") for i in range(CARDS)]
    monkeypatch.setenv("FEATURE_SEED_GOLD_PARQUET", str(make_parquet(rows).gold_parquet))
    monkeypatch.setenv("FEATURE_SEED_MAX_RATE", str(RATE))
    monkeypatch.setattr(progress, "_INTERVAL_SECONDS", INTERVAL_SECONDS)
    monkeypatch.delitem(sys.modules, "feature_seed.definitions", raising=False)  # made anew, of this environment
    create_dagster_cli()(COMMAND, standalone_mode=False)
    terminal = capfd.readouterr().err
    told = observations(instance_home)
    assert "card_history" in told
    assert "card_location" not in told, "once for the cards, whichever of their features are loaded"
    for events in [told["card_history"]]:
        assert len(events) >= 2
        assert all(later["at"] - earlier["at"] > INTERVAL_SECONDS / 2 for earlier, later in pairwise(events))
        done = [one["entities_done"] for one in events]
        assert all(earlier < later for earlier, later in pairwise(done))
        for one in events:
            assert one["share_done"] == pytest.approx(one["entities_done"] / CARDS, abs=0.001)
            assert 0 < one["entities_per_second"] < RATE * 1.4  # some of the first are on credit
            left = (CARDS - one["entities_done"]) / one["entities_per_second"]
            assert one["seconds_left"] == pytest.approx(left, rel=0.01, abs=0.06)
        lines = re.findall(r"cards: (\d+) entities, \d+%, \d+ per second, \d+ s left", terminal)
        assert [int(line) for line in lines] == done
    ended = re.findall(r"(\w+): \d+ entities in ", terminal)
    assert ended == ["cards", "customers"]
