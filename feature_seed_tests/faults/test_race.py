"""Loads against scorers that do not wait for them, in short; `python -m feature_seed_tests.faults` is the whole."""

from dataclasses import replace
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from feature_seed_tests.faults.race import Race
from feature_seed_tests.faults.scorer import Style


@pytest.mark.parametrize(
    "race",
    [
        Race("in short", 1_000, 2, style=Style(pause=0.005)),
        pytest.param(
            Race("newest first, with all checks", 1_000, 1, checked=True, style=Style(newest_first=True, pause=0.01)),
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda race: race.tried,
)
def test_no_event_is_lost_and_none_counted_twice(chdb: Client, tmp_path: Path, race: Race) -> None:
    """Before: two scorers on an empty store. Gold is loaded meanwhile, once after it took in the events so far. After:
    every card and customer is as gold and all events make it, and no reader saw anything else.
    """
    outcome = race.run(chdb, tmp_path)
    assert race.flawless and not outcome.failed, outcome
    assert outcome.events >= race.events and outcome.times >= race.loads


@pytest.mark.slow
def test_the_race_notices_a_loss(chdb: Client, tmp_path: Path) -> None:
    """The same with `overwrite`, which takes back what came after gold: else the test above proves nothing."""
    race = Race("overwrite", 500, 1, rebuild_every=0, on_conflict="overwrite", style=Style(pause=0.01))
    outcome = race.run(chdb, tmp_path)
    assert outcome.lost > 0
    assert replace(outcome, flawless=True).failed
