"""Nights of an ETL beside a stream, in short; `python -m feature_seed_tests.faults nights` is the whole."""

from dataclasses import replace
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from feature_seed_tests.faults import nights
from feature_seed_tests.faults.nights import Nights

SHORT = Nights("in short", 4, 20, 30, 150, plain=2, converted=2, outages=frozenset({1}), emptied=2)


@pytest.fixture(autouse=True)
def unlucky(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that may become of an event does so in a few days."""
    for name in ("LATE", "TWICE", "DECLINED", "MISSED", "CORRECTED", "DELETED"):
        monkeypatch.setattr(nights, name, 0.1)


@pytest.mark.parametrize("newest_first", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_load_is_exact(chdb: Client, tmp_path: Path, newest_first: bool) -> None:
    """Doubles, late, declined, missed, corrected and deleted events, a night without a load, a store that was emptied,
    a scorer that begins to record: after each load the entities of recording scorers are gold and the events after it.
    """
    *plain, recorded = replace(SHORT, newest_first=newest_first).run(chdb, tmp_path)
    assert (recorded.lost, recorded.counted_twice, recorded.different) == (0, 0, 0), recorded
    assert recorded.times == 3 and recorded.events > 600
    assert [one.flawless for one in plain] == [False, False]


@pytest.mark.slow
def test_the_simulator_notices_an_event_that_counts_twice(
    chdb: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with a scorer that says that it records, and does not: else the test above proves nothing."""
    apply_event = nights.apply_event
    monkeypatch.setattr(nights, "apply_event", lambda *event, **options: apply_event(*event, record=False, **options))
    *_, recorded = replace(SHORT, nights=1, emptied=None, outages=frozenset()).run(chdb, tmp_path)
    assert recorded.lost or recorded.counted_twice or recorded.different
