"""The Welford state against NIST's reference data, through the real SQL and through live updates."""

import math
from datetime import datetime, timezone

import pytest
import redis

from feature_seed.contract import Welford, read_customer
from feature_seed.store.online_store import OnlineStore
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.expected import welford
from feature_seed_tests.support.gold import Row
from feature_seed_tests.support.nist import REFERENCES
from feature_seed_tests.support.run import fill


def digits(value: float, truth: float) -> float:
    """How many leading digits agree (log relative error)."""
    return 16.0 if value == truth else -math.log10(abs(value - truth) / abs(truth))


def test_the_references_are_what_nist_published() -> None:
    """A typing error in the data would make the tests below meaningless: exact arithmetic over the values agrees."""
    assert len(REFERENCES) == 9
    for name, reference in REFERENCES.items():
        exact = welford(list(reference.values))
        assert digits(exact.mean, reference.mean) > 14.5, name
        assert exact.m2 == reference.m2, name


def test_seeded_stats_have_nists_digits(make_warehouse: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """A customer per data set: mean to 14 digits, M2 to 11 digits of the exact value, which plain varPop loses."""
    at = datetime(2026, 1, 1, tzinfo=timezone.utc)
    rows = [
        Row(f"{name}{i}", "card", name, None, value, at, None, None)
        for name, reference in REFERENCES.items()
        for i, value in enumerate(reference.values)
    ]
    fill(make_warehouse(rows), store)
    for name, reference in REFERENCES.items():
        state = read_customer(online, name)
        assert state and state.count == len(reference.values), name
        assert digits(state.mean, reference.mean) >= 14, (name, state.mean)
        assert digits(state.m2, reference.m2) >= 11, (name, state.m2)


@pytest.mark.parametrize("name", ["Lew", "Lottery", "Mavro", "Michelso", "NumAcc1", "NumAcc2", "PiDigits"])
def test_live_updates_have_nists_digits(name: str) -> None:
    """The contract's update, from nothing: what a scorer adds up over months stays usable."""
    reference = REFERENCES[name]
    state = Welford()
    for value in reference.values:
        state = state.update(value)
    assert state.count == len(reference.values)
    assert digits(state.mean, reference.mean) >= 13
    assert digits(state.m2, reference.m2) >= 8
