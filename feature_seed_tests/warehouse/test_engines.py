"""The oldest version of ClickHouse and an LTS release: the whole job is right on their engines, from their wheels."""

from pathlib import Path

import pytest

from feature_seed.warehouse.access import OLDEST
from feature_seed_tests.engines import FINE, WHEELS, outcomes, table

HOME = Path(__file__).parents[2] / ".engines"


@pytest.mark.slow
@pytest.mark.parametrize("version", ["24.8", "25.8"])
def test_the_whole_job_on_another_version(version: str) -> None:
    """Shallow and deep gold of every accepted column type, with each analyzer: every key is right."""
    found = outcomes(version, HOME)
    assert {way: outcome for way, outcome in found.items() if outcome not in FINE} == {}


def test_the_oldest_version_is_tried() -> None:
    """The version below which servers are refused is one whose engine is tried."""
    assert ".".join(map(str, OLDEST)) == min(WHEELS)


def test_the_table_of_outcomes() -> None:
    """A row for each version, a column for each way."""
    found = {"24.8": {"shallow": "right", "deep": "right"}, "25.8": {"shallow": "right", "deep": "ValueError: x"}}
    assert table(found).splitlines() == [
        "| ClickHouse | shallow | deep |",
        "| --- | --- | --- |",
        "| 24.8 | right | right |",
        "| 25.8 | right | ValueError: x |",
    ]
