"""The plan: what a load would do, known before its first write, and the guard against a gold that has lost much."""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from feature_seed.contract import Ready, read_ready
from feature_seed.features.feature import FEATURES
from feature_seed.graph.checks import check_result
from feature_seed.graph.readiness import LOAD, latest_loads, loading
from feature_seed.loading.changes import Changes
from feature_seed.loading.comparison.digests import compare
from feature_seed.loading.stream import FeatureStream
from feature_seed.store.online_store import OnlineStore
from feature_seed.store.size import Size

# A card has so many keys at least, and a customer.
_KEYS = {"cards": 4, "customers": 2}


@dataclass(frozen=True)
class Plan:
    """What a load of an entity would do.

    Attributes:
        name: of the entity.
        changes: what differs between gold and store.
        before: what the store said of itself.
        base: how many entities the store was last loaded with, and `rows` from how many rows.
        gone: how many of them gold has no more.
    """

    name: str
    shards: Sequence[str]
    changes: Changes
    before: Ready
    base: int
    rows: int
    gone: int

    @property
    def loss(self) -> float:
        """The share of the entities that are gone or have fewer rows than before, or of the rows if that is more."""
        rows = self.changes.lost + (max(self.rows - self.changes.rows, 0) if self.gone else 0)
        return max((self.gone + self.changes.shrunk) / max(self.base, 1), rows / max(self.rows, 1))

    @property
    def counts(self) -> dict[str, int]:
        found, different = self.changes, self.changes.different.total()
        return {
            "new": found.new,
            "changed": different - found.new,
            "unchanged": found.entities.total() - different,
            "gone": self.gone,
            "with fewer rows than before": found.shrunk,
            "to send": found.to_send,
        }

    def __str__(self) -> str:
        losses = "".join(f"; {loss}" for loss in self.changes.losses)
        return f"{self.name}: {', '.join(f'{count:,} {what}' for what, count in self.counts.items())}{losses}"


def plan_of(stream: FeatureStream, store: OnlineStore) -> Plan | None:
    """The plan of a load, None for a store that nothing was loaded into.

    What one step of a run has found, the next takes over, unless another run has written to the store in between.
    """
    with store.client() as client:
        before: Ready | None = read_ready(client)
        keys = Size.of(client).keys
    if before is None:
        return None
    profile, known = stream.warehouse.profile(), stream.layout.found
    plan: Plan | None = known.get(stream.entity.name)
    ours = (before.run_id, loading(profile.version, profile.watermark))
    if (
        plan
        and plan.shards == stream.shards
        and (before.run_id, before.loading) in ((plan.before.run_id, plan.before.loading), ours)
    ):
        return plan
    plan = known[stream.entity.name] = _planned(stream, compare(stream, store), before, keys)
    return plan


def _planned(stream: FeatureStream, changes: Changes, before: Ready, keys: int | None) -> Plan:
    """By what the store was last loaded from, if that is known of these shards. What the store has lost, gold has not."""
    name, base, rows, lacking = stream.entity.name, changes.known, changes.rows, 0
    if before.state == "ready" and len(stream.shards) == stream.layout.shard_count:
        base, rows = max(getattr(before, name), base), max(before.rows, rows)
        expected = sum(getattr(before, one) * count for one, count in _KEYS.items())
        lacking = max(expected - keys, 0) if keys is not None else 0
    return Plan(name, stream.shards, changes, before, base, rows, max(base - changes.known - lacking, 0))


def loss_result(plans: Sequence[Plan], limit: float, instance: dg.DagsterInstance) -> dg.AssetCheckResult:
    """Whether gold has lost no more than is allowed since the store was last loaded, and what a load would do."""
    share = max((plan.loss for plan in plans), default=0.0)
    metadata = {plan.name: {**plan.counts, **cost(plan, instance)} for plan in plans}
    return check_result("loss", share <= limit, lost(plans, limit), {"share": share, **metadata})


def lost(plans: Sequence[Plan], limit: float) -> str:
    """The same in words."""
    if not plans:
        return "nothing was loaded into the store so far"
    share = max(plan.loss for plan in plans)
    text = (
        f"gold has lost {share:.2%} of the entities or rows that the store was last loaded from, and {limit:.2%} may go"
    )
    return "; ".join([text, *map(str, plans)])


def cost(plan: Plan, instance: dg.DagsterInstance) -> dict[str, float]:
    """About how many bytes and seconds a load takes, by the last one of this entity that sent any; {} if unknown."""
    (feature, *_) = (one for one in FEATURES if one.entity.name == plan.name)
    loads = latest_loads(instance, feature.name, plan.shards)
    figures = [one.metadata[LOAD] for one in loads.values() if one.metadata[LOAD].get("sent")]
    if not figures:
        return {}
    last = max(figures, key=lambda one: one["sent"])
    each = plan.changes.to_send / last["sent"]
    return {
        "bytes": round(last["bytes"] * each) + plan.changes.bytes,
        "seconds": round(plan.changes.to_send / last["entities_per_second"] + plan.changes.seconds, 1),
    }
