"""The plan: what a load would do, known before its first write, and the guard against a gold that has lost much."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import dagster as dg

from feature_seed.contract import Ready, read_ready
from feature_seed.features.entity import ENTITIES
from feature_seed.features.feature import FEATURES
from feature_seed.graph.checks import check_result
from feature_seed.graph.readiness import LOAD, latest_loads, loading
from feature_seed.loading.changes import Changes
from feature_seed.loading.comparison.digests import compare
from feature_seed.loading.layout import Layout
from feature_seed.loading.stream import FeatureStream
from feature_seed.store.online_store import OnlineStore
from feature_seed.store.size import Size
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.profile import micros

# How many keys a card with a place has, and a customer.
_KEYS = {"cards": 5, "customers": 2}


@dataclass(frozen=True)
class Plan:
    """What a load of an entity would do.

    Attributes:
        name: of the entity.
        changes: what differs between gold and store.
        before: what the store said of itself.
        base: how many entities the store was last loaded with; `rows` is from how many rows.
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
        found = self.changes.counts
        rows = found["lost"] + (max(self.rows - found["rows"], 0) if self.gone else 0)
        return max((self.gone + found["shrunk"]) / max(self.base, 1), rows / max(self.rows, 1))

    @property
    def counts(self) -> dict[str, int]:
        found = self.changes.counts
        return {
            "new": found["new"],
            "changed": found["changed"],
            "unchanged": found["known"] - found["changed"],
            "gone": self.gone,
            "with fewer rows than before": found["shrunk"],
            "to send": self.changes.to_send,
        }

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {what}" for what, count in self.counts.items())
        return "; ".join([f"{self.name}: {counts}", *(text for _, text in self.changes.losses)])


def plan_of(stream: FeatureStream, store: OnlineStore) -> Plan | None:
    """The plan of a load; None for a store that nothing was loaded into.

    A step of a run takes over the plan of the step before, unless another run has written to the store in between.
    """
    with store.client() as client:
        before: Ready | None = read_ready(client)
        keys = Size.of(client).keys
    profile, name, known = stream.warehouse.profile(), stream.entity.name, stream.layout.found
    if before is None:
        known[name] = None
        return None
    plan: Plan | None = known.get(name)
    then = plan.before if plan else Ready("empty")
    ours = (before.run_id if plan else "", loading(profile.version, profile.watermark))
    if (
        name in known
        and (not plan or plan.shards == stream.shards)
        and (before.run_id, before.loading) in ((then.run_id, then.loading), ours)
    ):
        return plan
    plan = known[name] = _planned(stream, compare(stream, store), before, keys)
    return plan


def _planned(stream: FeatureStream, changes: Changes, before: Ready, keys: int | None) -> Plan:
    """The plan by what the store was last loaded from, if that is known. Keys that went since are no loss of gold."""
    name, known, lacking = stream.entity.name, changes.counts["known"], 0
    base, rows = known, changes.counts["rows"]
    if before.state == "ready" and len(stream.shards) == stream.layout.shard_count:
        base, rows = max(getattr(before, name), base), max(before.rows, rows)
        expected = sum(getattr(before, one) * count for one, count in _KEYS.items())
        lacking = min(max(expected - keys, 0), changes.counts["new"]) if keys is not None else 0
        if stream.expire:  # keys go by themselves: an expired entity is no loss, and neither are its rows
            base, rows = getattr(before, name), changes.counts["rows"]
            known, lacking = _still_there(stream, changes, before), 0
    return Plan(name, stream.shards, changes, before, base, rows, max(base - known - lacking, 0))


def _still_there(stream: FeatureStream, changes: Changes, before: Ready) -> int:
    """How many entities of the last load gold still has: by its rows up to that watermark, as they expired then.

    If `expire` may have been another then, all of gold's entities count, as after a first load that was broken off.
    """
    if changes.all_changed or before.loading:
        return stream.warehouse.profile().entities(stream.entity.id)
    with stream.warehouse.client() as client, stream.warehouse.errors():
        return stream.entities(client, until=micros(datetime.fromisoformat(before.watermark)))


def loss_result(
    warehouse: Warehouse,
    store: OnlineStore,
    layout: Layout,
    shards: Sequence[str],
    limit: float,
    instance: dg.DagsterInstance,
) -> dg.AssetCheckResult:
    """What loads of these shards would do, and whether gold has lost no more than is allowed.

    `instance` knows what the last loads took.
    """
    streams = [FeatureStream(warehouse, layout, entity, tuple(shards)) for entity in ENTITIES]
    warehouse.profile()  # once, before threads ask for it
    with warehouse.side_by_side() as begin:
        looked = [begin(partial(plan_of, stream, store)) for stream in streams]
        plans = [plan for one in looked if (plan := one())]
    costs = [cost(plan, instance) for plan in plans]
    share = max((plan.loss for plan in plans), default=0.0)
    metadata = {"share": share, **{plan.name: plan.counts for plan in plans}}
    return check_result("loss", share <= limit, "; ".join([lost(plans, limit), *filter(None, costs)]), metadata)


def lost(plans: Sequence[Plan], limit: float) -> str:
    """What gold has lost, and what may go, in words."""
    if not plans:
        return "nothing was loaded into the store so far"
    share = max(plan.loss for plan in plans)
    text = f"gold has lost {share:.2%} of the entities or rows that were last loaded, and {limit:.2%} may go"
    return "; ".join([text, *map(str, plans)])


def cost(plan: Plan, instance: dg.DagsterInstance) -> str:
    """About what a load takes, by the last load of this entity; '' if that sent nothing."""
    feature = next(one.name for one in FEATURES if one.entity.name == plan.name)
    loads = [one.metadata[LOAD] for one in latest_loads(instance, feature, plan.shards).values()]
    last = max(loads, key=lambda one: one.get("sent", 0), default={})
    if not last.get("sent"):
        return ""
    megabytes = (last["bytes"] * plan.changes.to_send / last["sent"] + plan.changes.size) / 1e6
    seconds = plan.changes.to_send / last["entities_per_second"] + plan.changes.seconds
    return f"{plan.name} take about {megabytes:,.1f} MB and {seconds:,.1f} s at the rate of the last load"
