"""Loads against scorers that do not wait for them, in short; `python -m feature_seed_tests.faults` is the whole."""

from dataclasses import replace
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from feature_seed_tests.faults.race import Race
from feature_seed_tests.faults.scorer import Style


@pytest.mark.parametrize("newest_first", [False, True], ids=["oldest_first", "newest_first"])
def test_no_event_is_lost_and_none_counted_twice(chdb: Client, tmp_path: Path, newest_first: bool) -> None:
    """Before: two scorers on an empty store. Gold is loaded three times, once after it took in the events so far, with
    all checks. After: every card and customer is as gold and all events make it, and no reader saw anything else.
    """
    race = Race("in short", 10_000, 3, style=Style(newest_first=newest_first))
    outcome = race.run(chdb, tmp_path)
    assert not outcome.failed, outcome
    assert outcome.events >= 10_000 and outcome.times >= 3


def test_the_race_notices_a_loss(chdb: Client, tmp_path: Path) -> None:
    """The same with `overwrite`, which takes back what came after gold: else the test above proves nothing."""
    outcome = Race("in short", 4_000, 2, rebuild_every=0, seeded_before=True, on_conflict="overwrite").run(
        chdb, tmp_path
    )
    assert outcome.lost > 0
    assert replace(outcome, flawless=True).failed
