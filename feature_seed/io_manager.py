"""The IO manager: takes a stream of ready commands, loads it into Redis, and says what was done."""

import time

import dagster as dg

from feature_seed.online_store import BulkConnection, OnlineStore
from feature_seed.prefetch import prefetch
from feature_seed.stream import FeatureStream

# Blocks read ahead of the store, some 7 MB each.
_BLOCKS_AHEAD = 4


class RedisIOManager(dg.ConfigurableIOManager):
    """Writes a FeatureStream to the online store; done means that Redis has acknowledged every command."""

    store: dg.ResourceDependency[OnlineStore]

    def handle_output(self, context: dg.OutputContext, obj: FeatureStream) -> None:
        profile = obj.warehouse.profile()  # a gold table that cannot be seeded is found before Redis is touched
        started = time.perf_counter()
        with self.store.bulk(scripts=[obj.feature.guard]) as redis, prefetch(iter(obj), _BLOCKS_AHEAD) as blocks:
            for block in blocks:
                redis.write(block)
            redis.drain()
        seconds = time.perf_counter() - started
        context.log.info(
            f"{obj.feature.name}: {redis.entities:,} entities in {seconds:.1f} s, {redis.kept:,} kept newer"
        )
        context.add_output_metadata(
            {
                **_written(redis, seconds),
                "rejected_rows": profile.rejected,
                "shards": len(obj.shards),
                "gold_version": profile.version,
            }
        )

    def load_input(self, context: dg.InputContext) -> None:
        raise NotImplementedError("Features are read from Redis through feature_seed.contract, not loaded as an input")


def _written(redis: BulkConnection, seconds: float) -> dict[str, dg.MetadataValue]:
    return {
        "entities_written": dg.IntMetadataValue(redis.entities - redis.kept),
        "kept_newer": dg.IntMetadataValue(redis.kept),
        "commands": dg.IntMetadataValue(redis.commands),
        "bytes": dg.IntMetadataValue(redis.bytes),
        "seconds": dg.FloatMetadataValue(round(seconds, 3)),
        "entities_per_second": dg.FloatMetadataValue(round(redis.entities / seconds, 1)),
    }
