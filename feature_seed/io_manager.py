"""The IO manager: takes a stream of ready commands, loads it into Redis, and says what was done."""

import time
from dataclasses import replace
from typing import Any

import dagster as dg

from feature_seed.online_store import BulkConnection, OnlineStore
from feature_seed.prefetch import prefetch
from feature_seed.progress import Progress
from feature_seed.readiness import mark_seeding
from feature_seed.stream import FeatureStream

# Half a pass, some 2 MB a block: while Redis takes them, ClickHouse already groups the next pass. 4 blocks cost 12 %
# of the time.
_BLOCKS_AHEAD = 128


class RedisIOManager(dg.ConfigurableIOManager):
    """Writes a FeatureStream to the online store; done means that Redis has acknowledged every command."""

    store: dg.ResourceDependency[OnlineStore]

    def handle_output(self, context: dg.OutputContext, obj: FeatureStream) -> None:
        profile = obj.warehouse.profile()  # a gold table that cannot be seeded is found before Redis is touched
        with self.store.client() as client:
            stream = replace(obj, before=mark_seeding(client))
        started = time.perf_counter()
        redis = self._load(stream, Progress(context, stream.expected))
        seconds = time.perf_counter() - started
        context.log.info(
            f"{obj.feature.name}: {redis.entities:,} entities in {seconds:.1f} s, {redis.kept:,} kept newer"
        )
        context.add_output_metadata(
            {
                **_written(redis, seconds),
                "entities_by_shard": {shard: redis.shards[int(shard, 16)] for shard in sorted(obj.shards)},
                "rejected_rows": profile.rejected,
                "shards": len(obj.shards),
                "gold_version": profile.version,
            }
        )

    def _load(self, stream: FeatureStream, progress: Progress) -> BulkConnection:
        with self.store.bulk(scripts=[stream.feature.guard]) as redis, prefetch(iter(stream), _BLOCKS_AHEAD) as blocks:
            for block in blocks:
                redis.write(block)
                progress.done(redis.entities)
            redis.drain()
        return redis

    def load_input(self, context: dg.InputContext) -> None:
        raise NotImplementedError("Features are read from Redis through feature_seed.contract, not loaded as an input")


def _written(redis: BulkConnection, seconds: float) -> dict[str, Any]:
    return {
        "dagster/row_count": redis.entities,
        "entities_written": redis.entities - redis.kept,
        "kept_newer": redis.kept,
        "commands": redis.commands,
        "bytes": redis.bytes,
        "seconds": round(seconds, 3),
        "entities_per_second": round(redis.entities / seconds, 1),
    }
