"""A real Redis Cluster for the tests of the store."""

from collections.abc import Iterator

import pytest

from feature_seed_tests.conftest import PASSWORD
from feature_seed_tests.support.redis_cluster import Cluster, redis_cluster


@pytest.fixture(scope="session")
def started_cluster() -> Iterator[Cluster]:
    with redis_cluster(PASSWORD) as cluster:
        yield cluster


@pytest.fixture
def cluster(started_cluster: Cluster) -> Iterator[Cluster]:
    """A cluster without a key. After the test, every node has its first role and slots again."""
    yield started_cluster
    started_cluster.restore()
