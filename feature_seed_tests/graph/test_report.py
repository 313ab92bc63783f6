"""The warm-start report: its numbers against plain Python, its pictures, and its text without matplotlib."""

import math
import re
import sys
from base64 import b64decode
from collections import Counter
from collections.abc import Mapping
from io import BytesIO

import pytest
import redis
from matplotlib.image import imread

from feature_seed.graph.readiness import ShardLoad
from feature_seed.graph.report.pictures import of_cards, of_customers, pictures
from feature_seed.graph.report.report import figures
from feature_seed.loading.comparison.scan import Found, Scan
from feature_seed.loading.layout import Layout, shard_names
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.expected import Expected
from feature_seed_tests.support.gold import Row, transaction
from feature_seed_tests.support.run import metadata, seed

NOTE = "Pictures need matplotlib: `pip install 'feature_seed[report]'`"


@pytest.fixture(autouse=True)
def without_pictures() -> None:
    """Not here."""


def everything(warehouse: Warehouse) -> Mapping[str, Found]:
    """A sample of all entities."""
    layout = Layout()
    with warehouse.client() as gold:
        scan = Scan(warehouse, gold, layout, shard_names(layout.shard_count), [warehouse.profile().until])
        (found,) = scan.scans("a run", None, {})
    return found


def drawn(warehouse: Warehouse, layout: Layout) -> list[tuple[str, bytes]]:
    return list(pictures(everything(warehouse), warehouse.profile(), layout))


def test_what_pictures_show(sample: Warehouse, sample_expected: Expected) -> None:
    """Before: the sample. The columns are, of each entity, what plain Python makes of gold."""
    cards, customers = sample_expected.cards.values(), sample_expected.customers.values()
    newest, found = max(card.last_ts for card in cards), everything(sample)
    length, age, longitude, latitude = of_cards(found["cards"].rows, sample.profile(), Layout(history_length=8))
    assert Counter(length.tolist()) == Counter(min(card.seq, 8) for card in cards)
    assert sorted(age) == pytest.approx(sorted(newest - card.last_ts for card in cards), abs=0.002)
    points = sorted(zip(longitude[longitude == longitude], latitude[latitude == latitude], strict=True))
    assert points == sorted((card.location[1], card.location[0]) for card in cards if card.location)
    means, deviations = of_customers(found["customers"].rows)
    assert sorted(means) == pytest.approx(sorted(one.mean for one in customers))
    assert sorted(deviations) == pytest.approx(sorted(math.sqrt(one.variance) for one in customers))


def test_rejected_rows_are_in_no_picture(make_warehouse: MakeWarehouse) -> None:
    """Only valid rows count, and cards without coordinates have no place; whichever way ClickHouse is reached."""
    rows = [
        transaction(1, "a"),
        transaction(2, "a", seconds=60),
        transaction(3, "b", location_lat=None),
        transaction(4, "b", amount=None, seconds=90),
        transaction(5, "c", customer_id=None),
    ]
    warehouse = make_warehouse(rows)
    found = everything(warehouse)
    length, _, longitude, latitude = of_cards(found["cards"].rows, warehouse.profile(), Layout())
    assert sorted(length) == [1, 2]
    assert [(x, y) for x, y in zip(longitude, latitude, strict=True) if x == x] == [(-2.25, 1.5)]
    assert of_customers(found["customers"].rows)[1].tolist() == [0, 0]


def test_pictures(sample: Warehouse, sample_expected: Expected) -> None:
    """Four PNGs whose titles say what is to be seen."""
    images = drawn(sample, Layout())
    titles = [title for title, _ in images]
    full = sum(card.seq >= 10 for card in sample_expected.cards.values()) / len(sample_expected.cards)
    assert titles[0] == f"{100 * full:.0f} % of the cards hold a full history of 10"
    assert [" ".join(title.split()[:3]) for title in titles[1:]] == ["Half of the"] * 2 + ["Amounts typically deviate"]
    for _, png in images:
        pixels = imread(BytesIO(png))
        assert pixels.shape == (310, 470, 4)
        assert pixels.std() > 0.05
    # The medians that titles name, read from bins, are those of the entities.
    newest = max(card.last_ts for card in sample_expected.cards.values())
    ages = sorted((newest - card.last_ts) / 86_400 for card in sample_expected.cards.values())
    ratios = sorted(math.sqrt(one.variance) / one.mean for one in sample_expected.customers.values())
    assert _number(titles[1]) == pytest.approx(ages[len(ages) // 2], rel=0.05)
    assert _number(titles[3]) == pytest.approx(100 * ratios[len(ratios) // 2], rel=0.05)


def _number(title: str) -> float:
    return float(re.findall(r"[\d.]+", title)[-1])


@pytest.mark.parametrize(
    "rows",
    [
        [transaction(1)],
        [transaction(i, f"c{i}", location_lat=None, location_long=None) for i in range(30)],
        [transaction(i, f"c{i % 9}", amount=-1.0 - i) for i in range(30)],
        [transaction(i, f"c{i % 9}", seconds=10**7 * i, amount=10.0 ** (i % 7), location_lat=i) for i in range(90)],
    ],
    ids=["a single transaction", "nowhere", "refunds", "years and millions"],
)
def test_gold_that_makes_poor_pictures(make_parquet: MakeWarehouse, rows: list[Row]) -> None:
    """Nothing to show, a single bin, and many decades are drawn all the same."""
    assert len(drawn(make_parquet(rows), Layout(history_length=1000))) == 4


def test_report_of_a_run(sample: Warehouse, store: OnlineStore, online: redis.Redis) -> None:
    """Before: an empty store. After a run: its numbers in tables, the memory that the keys take, and the pictures."""
    result = seed(sample, store, verify=True)
    shown = metadata(result, "warm_start")
    loads = [metadata(result, one) for one in ("card_history", "customer_stats")]
    figures = {one.data["figure"]: one.data["now"] for one in shown["report"].records}
    assert figures["entities"] == "7,500"
    assert figures["gold rows"] == "200,000"
    assert figures["MB sent"] == f"{sum(load['bytes'] for load in loads) / 1e6:,.1f}"
    assert figures["seconds"] == f"{sum(load['seconds'] for load in loads):,.1f}"
    assert {one.data["change"] for one in shown["report"].records} == {""}, "no run was before"
    written = {
        "card_history": ("card:*:history", "card:*:seq", "card:*:seed"),
        "card_location": ("card:*:loc", "card:*:last_ts"),
        "customer_stats": ("cust:*:stats", "cust:*:seed"),
    }
    every = 0
    for one in shown["features"].records:
        keys = [key for pattern in written[one.data["feature"]] for key in online.scan_iter(pattern, count=10_000)]
        with online.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.memory_usage(key)
            memory = sum(pipeline.execute())
        entities = 2500 if one.data["feature"] == "customer_stats" else 5000
        assert one.data["entities"] == f"{entities:,}"
        assert float(one.data["bytes"].replace(",", "")) == pytest.approx(memory / entities, rel=0.1)
        every += memory
    assert shown["features_memory_bytes"] == pytest.approx(every, rel=0.1)
    assert figures["MB of features"] == f"{shown['features_memory_bytes'] / 1e6:,.1f}"
    assert len(shown["pictures"]) < 300_000
    images = re.findall(r"!\[(.*)\]\(data:image/png;base64,([^)]+)\)", shown["pictures"])
    titles = [re.sub(r"\\(.)", r"\1", title) for title, _ in images]
    for title, says in zip(titles, ["full history", "gold's last", "of the map", "customer's mean"], strict=True):
        assert says in title
    assert all(b64decode(png, validate=True).startswith(b"\x89PNG") for _, png in images)


def test_shards_loaded_by_different_runs() -> None:
    """A load of several shards counts once, every shard's entities do, and the rate is of all loads."""
    rows = {"gold_rows": 9, "rejected_rows": 7, "unread_rows": 0}
    first = {"commands": 4, "bytes": 100, "seconds": 1.5, "entities": 30, **rows}
    second = {"commands": 2, "bytes": 50, "seconds": 0.5, "entities": 30, **rows}
    counts = {"events_forgotten": 0, "unrecorded": 0, "taken_over": 0}
    seeded = {
        "00": ShardLoad("a", 10, {"kept_newer": 2, **counts, "load": first}),
        "01": ShardLoad("a", 20, {"kept_newer": 0, **counts, "load": first}),
        "02": ShardLoad("b", 30, {"kept_newer": 1, **counts, "load": second}),
    }
    found = figures({"card_history": seeded, "customer_stats": {}})
    assert (found["entities"], found["kept_newer"], found["bytes"], found["seconds"]) == (60, 3, 150, 2.0)
    assert (found["entities_per_second"], found["rejected_rows"]) == (30.0, 7)


def test_report_without_matplotlib(
    make_parquet: MakeWarehouse, store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables stay, with a line on how to get pictures."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    shown = metadata(seed(make_parquet([transaction(1)]), store, verify=True), "warm_start")
    features = [one.data["feature"] for one in shown["features"].records]
    assert features == ["card_history", "card_location", "customer_stats"]
    assert shown["pictures"] == NOTE
