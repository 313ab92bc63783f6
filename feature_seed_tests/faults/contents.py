"""What a store holds at one moment, and what it may hold while gold is loaded into it."""

from collections.abc import Set
from dataclasses import dataclass, field, replace
from typing import Any

import redis

from feature_seed.contract import Key, Ready
from feature_seed.features.feature import FEATURES
from feature_seed.store.lock import KEY as LOCK
from feature_seed_tests.support.store import features, said

# What Redis says of how long a key lives.
FREE, FOR_EVER = -2, -1


@dataclass(frozen=True)
class Contents:
    """A store at one moment.

    Attributes:
        entities: every key of every entity with its type and bytes.
        ready: what the store says of itself, except the load under way.
        lock_ms: for how long its lock is still held, or FOR_EVER, or FREE.
    """

    entities: dict[bytes, object] = field(default_factory=dict)
    ready: Ready | None = None
    lock_ms: int = FREE

    @classmethod
    def of(cls, client: redis.Redis) -> "Contents":
        lock_ms: Any = client.pttl(LOCK)
        return cls(features(client), said(client), lock_ms)


@dataclass(frozen=True)
class Change:
    """A load: the store before it, and after an undisturbed load."""

    before: Contents
    after: Contents

    def lies(self, found: Contents, reported: Set[str]) -> int:
        """Whether the ready key, or Dagster's record of loaded features, says what is not true."""
        missing = [name for name in reported if not self._has(found, name)]
        return len(missing) + (not self._true(found))

    def _true(self, found: Contents) -> bool:
        if found.ready == self.before.ready:
            return True
        if found.ready == Ready("seeding"):
            return self.before.ready is None
        return found.ready is not None and self.done(found)

    def done(self, found: Contents) -> bool:
        """Whether the store holds the new gold, and says so."""
        return found.entities == self.after.entities and _claim(found.ready) == _claim(self.after.ready)

    def _has(self, found: Contents, feature: str) -> bool:
        """Whether a feature is in the store as the new gold has it."""
        keys = next(one.keys for one in FEATURES if one.name == feature)
        return all(
            found.entities.get(name) == value
            for name, value in self.after.entities.items()
            if any(_is(key, name) for key in keys)
        )

    def half_written(self, found: Contents) -> int:
        """Keys that are neither as before the load nor as after it."""
        names = {*self.before.entities, *self.after.entities, *found.entities}
        return sum(found.entities.get(name) not in self._versions(name) for name in names)

    def _versions(self, name: bytes) -> tuple[object, object]:
        return self.before.entities.get(name), self.after.entities.get(name)

    def lost(self, found: Contents) -> int:
        """Keys that are missing, or that should not be there."""
        return len(found.entities.keys() ^ self.after.entities.keys())

    def different(self, found: Contents) -> int:
        """Keys with other bytes, the ready key among them."""
        both = found.entities.keys() & self.after.entities.keys()
        wrong = sum(found.entities[name] != self.after.entities[name] for name in both)
        return wrong + (_claim(found.ready) != _claim(self.after.ready))


def _is(key: Key, name: bytes) -> bool:
    before, _, after = key.template.encode().partition(b"{}")
    return name.startswith(before) and name.endswith(after)


def _claim(ready: Ready | None) -> Ready | None:
    """What the ready key says, except the run that says it."""
    return ready and replace(ready, finished_at="", run_id="")
