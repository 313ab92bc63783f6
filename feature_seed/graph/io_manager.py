"""The IO manager: the one place that writes to Redis. One run writes at a time, and its metadata says what it did."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import dagster as dg
import redis
from pydantic import Field, PrivateAttr

from feature_seed.contract import READY, Ready, read_ready
from feature_seed.errors import GoldError, StoreError, StoreUnavailableError
from feature_seed.features.entity import CARDS, ENTITIES
from feature_seed.features.feature import FEATURES
from feature_seed.features.outcome import Outcome
from feature_seed.graph.checks import ADVICE
from feature_seed.graph.dagster_private import (
    add_shard_metadata,
    previous_attempts,
    run_of,
    selected_assets,
    steps_have_processes,
)
from feature_seed.graph.plan import Plan, lost, plan_of
from feature_seed.graph.progress import progress
from feature_seed.graph.readiness import LOAD, Mark, mark_loading
from feature_seed.graph.retries import retried
from feature_seed.loading.changes import Changes
from feature_seed.loading.departed import Departed
from feature_seed.loading.memory import estimate_memory
from feature_seed.loading.order import require_order
from feature_seed.loading.preflight import Server, examine
from feature_seed.loading.stream import FeatureStream
from feature_seed.loading.throttle import Throttle
from feature_seed.store.bulk import Loading
from feature_seed.store.lock import Owner, StoreLock
from feature_seed.store.online_store import OnlineStore
from feature_seed.store.size import Size
from feature_seed.warehouse.profile import Profile

# How much is read ahead. With ClickHouse embedded, 32 MB gain nothing: the next pass is begun meanwhile. From a server
# they gain a twentieth, and this process then has 205 MB, not 195.
_BYTES_AHEAD = 16_000_000

MemoryCheck = Literal["refuse", "warn"]

_ALLOW = "or set FEATURE_SEED_MEMORY_CHECK=warn to seed it all the same"


# The metadata of each shard of a load.
Record = Mapping[str, Mapping[str, Any]]


class RedisIOManager(dg.ConfigurableIOManager):
    """Writes a FeatureStream to the online store. It is done when Redis has acknowledged every command.

    It writes a Ready into the store, and with `prune` removes what has Departed. One object lives as long as the run,
    or as a step if the executor gives every step a process of its own. `max_rate` (entities per second)
    and `max_latency_ms` spare those who read. `declared_keys` are the patterns of declared features' keys.

    See feature_seed/loading/README.md.
    """

    store: dg.ResourceDependency[OnlineStore]
    memory_check: MemoryCheck = "refuse"
    max_rate: float | None = None
    max_latency_ms: float | None = None
    prune: bool = False
    declared_keys: list[str] = Field(default_factory=list)

    _lock: StoreLock | None = PrivateAttr(default=None)
    _server: Server | None = PrivateAttr(default=None)
    _load: tuple[FeatureStream, Counter[int], Loading, Mapping[str, Any]] | None = PrivateAttr(default=None)
    _written: bool = PrivateAttr(default=False)

    def handle_output(self, context: dg.OutputContext, obj: FeatureStream | Ready | Sequence[Departed]) -> None:
        with retried(previous_attempts(context)):
            if isinstance(obj, Ready):
                with self._writing(context) as (client, _):
                    client.hset(READY.pattern, mapping=obj.encode())
            elif isinstance(obj, FeatureStream):
                for shard, metadata in self._seeded(context, obj).items():
                    add_shard_metadata(context, shard, metadata)
            else:
                if self.prune and any(one.expected for one in obj):
                    self._remove(context, obj)
                for one in obj:
                    context.log.info(str(one))
                    context.add_output_metadata({f"{one.entity.name}_{k}": v for k, v in one.metadata.items()})

    def _remove(self, context: dg.OutputContext, departed: Sequence[Departed]) -> None:
        """Remove them, unless gold lacks too many, or another run has written since they were found."""
        for one in departed:
            if one.share > one.max_loss:
                share = f"{one.share:.2%} of the {one.entity.name} would be removed, and {one.max_loss:.2%} may be"
                raise GoldError(f"{share}. {one}. If gold is right, run once with FEATURE_SEED_MAX_LOSS=1")
        with self._writing(context) as (client, lock):
            if read_ready(client) != departed[0].before:
                raise StoreError(f"Another run has written to Redis at {self.store.address} meanwhile: run again")
            for one in departed:
                self._write(context, one, lock, Throttle(self.max_rate, self.max_latency_ms))
            context.add_output_metadata({"store_keys": Size.of(client).keys})

    def _seeded(self, context: dg.OutputContext, stream: FeatureStream) -> Record:
        """The metadata of a load. The features of an entity come one after the other, with one stream for all."""
        if not self._load or self._load[0] is not stream:
            self._load = stream, *self._seed(context, stream)
        _, entities, redis, load = self._load
        counted_at = stream.counted_at(context.asset_key.to_user_string())
        return {shard: {**_shard(shard, entities, counted_at, redis), **load} for shard in stream.shards}

    def _seed(
        self, context: dg.OutputContext, stream: FeatureStream
    ) -> tuple[Counter[int], Loading, Mapping[str, Any]]:
        """Load a stream. Returns how many entities gold has, by shard or by feature and shard, and the metadata."""
        profile = stream.warehouse.profile()  # a gold table that cannot be seeded is found before Redis is touched
        stream.rehearse()
        with self._writing(context, stream) as (client, lock):
            if stream.entity is CARDS and stream.layout.on_conflict == "keep_newer":
                require_order(client, self.store.address, stream.layout, read_ready(client))
            stream, plan = self._planned(stream)
            mark = mark_loading(client, profile.version, profile.watermark)
            _warn_of_going_back(context, mark, profile)
            started = time.perf_counter()
            throttle = Throttle(self.max_rate, self.max_latency_ms)
            redis = self._write(context, replace(stream, before=mark.before), lock, throttle)
            seconds = time.perf_counter() - started
        outcome = sum(redis.outcomes.values(), Outcome())
        entities = plan.changes.entities if plan else redis.shards
        sent = f"{redis.entities:,} of " if redis.entities < entities.total() else ""
        done = f"{sent}{entities.total():,} entities in {seconds:.1f} s, {outcome}{throttle.summary}"
        context.log.info(f"{stream.entity.name}: {done}")
        load = {
            "gold_version": profile.version,
            "watermark": dg.MetadataValue.timestamp(profile.watermark),
            "store_id": mark.store_id,
            "server": self._server.run_id if self._server else "",
            **({"replication": dict(redis.replication_offsets)} if redis.replication_offsets else {}),
            LOAD: {
                **_figures(redis, seconds, plan),
                **throttle.metadata,
                "shards": len(stream.shards),
                "gold_rows": profile.rows,
                "rejected_rows": profile.rejected,
                "unread_rows": profile.unread,
            },
        }
        return entities, redis, load

    def _planned(self, stream: FeatureStream) -> tuple[FeatureStream, Plan | None]:
        """The stream of what has to be sent, and the plan of the load, if anything depends on one.

        Declared features have no digest: all of them are sent.

        Raises:
            GoldError: gold has lost more than is allowed. A run with the check of that name is blocked before.
        """
        everything = stream.layout.full or stream.layout.on_conflict == "overwrite"
        unplanned = stream.entity not in ENTITIES or (everything and stream.max_loss >= 1)
        plan = None if unplanned else plan_of(stream, self.store)
        stream.layout.found.pop(stream.entity.name, None)  # the load changes what was found
        if plan and plan.loss > stream.max_loss:
            raise GoldError(f"{lost([plan], stream.max_loss)}. {ADVICE['loss']}")
        return (stream if everything or not plan else replace(stream, changes=plan.changes)), plan

    def _write(self, context: dg.OutputContext, stream: FeatureStream, lock: StoreLock, throttle: Throttle) -> Loading:
        with (
            progress(context, stream.entity.name, context.asset_key, stream.expected) as done,
            self.store.bulk(stream.scripts, lock.owner.connection) as redis,
            stream.prefetched(_BYTES_AHEAD, redis.keep_alive) as blocks,
            throttle.applied(blocks, self.store, context.log) as throttled,
        ):
            for block in throttled:
                lock.require_held()
                redis.write(block)
                done(redis.entities)
            redis.drain()
        return redis

    @contextmanager
    def _writing(
        self, context: dg.OutputContext, stream: FeatureStream | None = None
    ) -> Iterator[tuple[redis.Redis, StoreLock]]:
        """A store that is fit for what comes, while this run alone writes to it."""
        with self.store.client() as client:
            self._examine(context, client, stream)
            owner = Owner.of(run_of(context), processes=steps_have_processes(context))
            lock = self._lock = self._lock or StoreLock(self.store, owner)
            try:
                if lock.acquire(context.log) and self._written:
                    raise StoreError(f"Another run may have written to Redis at {self.store.address}: run again")
                yield client, lock
                lock.confirm()
            except (redis.ConnectionError, redis.TimeoutError, StoreUnavailableError):
                lock.stop_renewing()  # the next attempt takes it anew: its lease may have ended by then
                raise
        self._written = True

    def _examine(self, context: dg.OutputContext, client: redis.Redis, stream: FeatureStream | None) -> None:
        server = examine(client, self.store, self.declared_keys, bool(stream and stream.layout.expire))
        before = self._server
        if before and self._written and before.run_id != server.run_id:
            raise StoreError(
                f"Redis at {self.store.address} was restarted since this run began to write, and may have lost what "
                "it had acknowledged: run again"
            )
        if not before:
            for loss in server.losses:
                context.log.warning(loss)
        if stream and not before and server.limit:
            self._check_memory(context, server, client, stream)
        self._server = server

    def _check_memory(
        self, context: dg.OutputContext, server: Server, client: redis.Redis, stream: FeatureStream
    ) -> None:
        """Once per run, for all of its entities."""
        assets = selected_assets(context)
        selected = {one.entity.name for one in FEATURES if dg.AssetKey(one.name) in assets}
        features = [one for one in FEATURES if one.entity.name in selected]
        shortage = server.shortage(estimate_memory(client, stream, features))
        if shortage and self.memory_check == "refuse":
            raise StoreError(f"{shortage}, {_ALLOW}. Nothing was written")
        if shortage:
            context.log.warning(shortage)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        if self._lock:
            self._lock.release()

    def load_input(self, context: dg.InputContext) -> None:
        raise NotImplementedError("Features are read from Redis through feature_seed.contract, not loaded as an input")


def _warn_of_going_back(context: dg.OutputContext, mark: Mark, profile: Profile) -> None:
    if mark.before and mark.goes_back:
        context.log.warning(
            f"The watermark goes back from {mark.before.watermark} to {profile.watermark.isoformat()}: the store "
            "forgets what gold had in between. Start the stream again at the watermark that feature_seed:ready has now"
        )


def _figures(redis: Loading, seconds: float, plan: Plan | None) -> dict[str, Any]:
    """The figures of the load as a whole: its shards came at the same time."""
    compared = plan.changes if plan else Changes()
    return {
        "entities": compared.entities.total() if plan else redis.entities,
        "sent": redis.entities,
        "commands": redis.commands,
        "bytes": redis.bytes,
        "compared_bytes": compared.size,
        "seconds": round(seconds, 3),
        "compared_seconds": round(compared.seconds, 3),
        "entities_per_second": round(redis.entities / seconds, 1),
    }


def _shard(shard: str, counts: Counter[int], counted_at: int, redis: Loading) -> dict[str, Any]:
    entities = counts[counted_at + int(shard, 16)]
    outcome = redis.outcomes.get(int(shard, 16), Outcome())
    return {
        "dagster/row_count": entities,
        "entities_by_shard": {shard: entities},
        "entities_written": entities - outcome.live,
        "kept_newer": outcome.live,
        "events_forgotten": outcome.forgotten,
        "unrecorded": outcome.decided,
        "unrecorded_examples": outcome.examples,
        "taken_over": outcome.taken_over,
    }
