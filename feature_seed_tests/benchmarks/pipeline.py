"""The straightforward seeder with pipelines: the same commands from the same rows, 1,000 in a pipeline."""

from itertools import islice
from pathlib import Path

from clickhouse_connect.driver.client import Client
from redis import Redis

from feature_seed_tests.benchmarks.straightforward import commands

COMMANDS = 1_000


def seed(client: Client, gold: Path, redis: Redis) -> None:
    """Seed everything in the snapshot."""
    waiting = commands(client, gold)
    with redis.pipeline(transaction=False) as pipeline:
        while batch := list(islice(waiting, COMMANDS)):
            for command in batch:
                pipeline.execute_command(*command)
            pipeline.execute()
