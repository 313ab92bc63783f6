"""Snapshots in S3: read with the key of the environment, from a server that checks it."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import redis
from clickhouse_connect.driver.client import Client

from feature_seed.errors import GoldError, WarehouseUnavailableError
from feature_seed.graph.sensors import gold_watcher
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.place import place_of
from feature_seed_tests.support.gold import transaction, write_parquet
from feature_seed_tests.support.outcome import holds, refused
from feature_seed_tests.support.redis_server import free_port
from feature_seed_tests.support.s3_server import S3Server, s3_server

BUCKET = "gold.of-tests"

ROWS = [transaction(i, f"c{i % 5}", seconds=i) for i in range(30)]


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server(BUCKET) as server:
        yield server


@pytest.fixture
def s3(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, with its key in the environment."""
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    return server


def at(s3: S3Server, key: str) -> Warehouse:
    return Warehouse(gold_parquet=f"s3://{BUCKET}/{key}", s3_endpoint=s3.endpoint)


def parquet(chdb: Client, tmp_path: Path, first: int, last: int, **types: str) -> bytes:
    return write_parquet(chdb, tmp_path / "draft.parquet", ROWS[first:last], **types).read_bytes()


def test_a_directory_through_the_whole_job(
    chdb: Client, tmp_path: Path, s3: S3Server, online: redis.Redis, store: OnlineStore
) -> None:
    """Objects below a prefix, of several types, with keys that URLs need escapes for; no marks and no neighbours."""
    s3.put("daily/gold.parquet/part-0.snappy.parquet", parquet(chdb, tmp_path, 0, 10, amount="Decimal(9, 2)"))
    s3.put("daily/gold.parquet/dt=1 é%20+#/it's&.parquet", parquet(chdb, tmp_path, 10, 20))
    s3.put("daily/gold.parquet/dt=2/000000_0", parquet(chdb, tmp_path, 20, 30))
    for beside in ("_SUCCESS", "_temporary/0/part-0.parquet", ".part-0.parquet.crc", "notes.txt"):
        s3.put(f"daily/gold.parquet/{beside}", b"no Parquet")
    s3.put("daily/gold.parquet_old/part-0.parquet", parquet(chdb, tmp_path, 0, 30))
    holds(at(s3, "daily/gold.parquet"), store, online, ROWS)


def test_what_an_address_means(chdb: Client, tmp_path: Path, s3: S3Server) -> None:
    """An object, a prefix with or without a slash, or a glob."""
    s3.put("meant/a.parquet", parquet(chdb, tmp_path, 0, 2))
    s3.put("meant/b/c.parquet.gz", parquet(chdb, tmp_path, 2, 7))
    for key, rows in {
        "meant/a.parquet": 2,
        "meant": 7,
        "meant/": 7,
        "meant/*": 2,
        "meant/*/?.parquet.gz": 5,
        "meant/{a,b/c}.parquet*": 7,
        "**.parquet.gz": 5,
    }.items():
        assert at(s3, key).profile().rows == rows, key
    with pytest.raises(GoldError, match="No Parquet file matches"):
        at(s3, "mean").profile()


def test_a_type_that_is_none_of_gold_s(
    chdb: Client, tmp_path: Path, s3: S3Server, online: redis.Redis, store: OnlineStore
) -> None:
    """An object is named as a file is, and nothing is written. One without content is damaged."""
    s3.put("mixed/a.parquet", parquet(chdb, tmp_path, 0, 2))
    text = write_parquet(chdb, tmp_path / "text.parquet", [transaction(3, amount="$1.00")], amount="String")
    s3.put("mixed/b.parquet", text.read_bytes())
    says = refused(at(s3, "mixed"), store, online)
    assert f"amount is String in {BUCKET}/mixed/b.parquet and not Float, Decimal or integer" in says
    s3.put("empty/a.parquet", b"")
    with pytest.raises(GoldError, match=r"(?s)cannot be read: a file is damaged.*empty/a\.parquet"):
        at(s3, "empty").profile()


def test_the_watcher_sees_every_change(chdb: Client, tmp_path: Path, s3: S3Server) -> None:
    """Another object, and another content of the same size: each is another version, reported at the second look."""
    s3.put("watched/a.parquet", parquet(chdb, tmp_path, 0, 5))
    versions, cursor = set(), None
    with dg.DagsterInstance.ephemeral() as instance:

        def reported() -> bool:
            nonlocal cursor
            resources = {"warehouse": at(s3, "watched")}
            context = dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources)
            result = gold_watcher(context)
            assert isinstance(result, dg.SensorResult)
            cursor = result.cursor
            return bool(result.asset_events)

        longer = parquet(chdb, tmp_path, 5, 9)
        same_size = longer.replace(b"food", b"fuel")
        for body in (b"", longer, same_size):
            if body:
                s3.put("watched/b.parquet", body)
            assert [reported(), reported(), reported()] == [False, True, False]
            versions.add(cursor)
    assert len(same_size) == len(longer) and same_size != longer
    assert len(versions) == 3


@pytest.mark.parametrize("wrong", ["secret", "bucket"])
def test_what_s3_refuses(s3: S3Server, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    """The variables to check are named, and the secret is not."""
    if wrong == "secret":
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{s3.secret}-wrong")
    bucket = "another-bucket" if wrong == "bucket" else BUCKET
    with pytest.raises(GoldError) as raised:
        Warehouse(gold_parquet=f"s3://{bucket}/gold", s3_endpoint=s3.endpoint).profile()
    assert f"'s3://{bucket}/gold' cannot be read: check the bucket, AWS_ENDPOINT_URL" in str(raised.value)
    assert "AWS_SECRET_ACCESS_KEY" in str(raised.value)
    assert s3.secret not in f"{raised.value} {raised.value.__cause__!r}"


def test_no_server(s3: S3Server) -> None:
    """What may pass by itself is tried again."""
    nowhere = Warehouse(gold_parquet=f"s3://{BUCKET}/gold", s3_endpoint=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(WarehouseUnavailableError, match="check the bucket, AWS_ENDPOINT_URL and AWS_REGION"):
        nowhere.profile()


@pytest.mark.parametrize(
    ("bucket", "endpoint", "region", "url"),
    [
        ("gold", None, None, "https://gold.s3.amazonaws.com/k.parquet"),
        ("gold", None, "eu-west-1", "https://gold.s3.eu-west-1.amazonaws.com/k.parquet"),
        ("gold", None, "cn-north-1", "https://gold.s3.cn-north-1.amazonaws.com.cn/k.parquet"),
        ("my.gold", None, "eu-west-1", "https://s3.eu-west-1.amazonaws.com/my.gold/k.parquet"),
        ("gold", "https://minio.internal:9000/", "eu-west-1", "https://minio.internal:9000/gold/k.parquet"),
    ],
)
def test_addresses(bucket: str, endpoint: str | None, region: str | None, url: str) -> None:
    """Of AWS the bucket is a host, but for one whose name no certificate of AWS covers; of others it is a path."""
    assert place_of(f"s3://{bucket}/*.parquet", endpoint, region).argument(f"{bucket}/k.parquet") == url
