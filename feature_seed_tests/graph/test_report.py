"""The warm-start report: its numbers against plain Python, its pictures, and its text without matplotlib."""

import math
import re
import sys
from base64 import b64decode
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import redis
from clickhouse_connect.driver.client import Client
from matplotlib.image import imread

from feature_seed.graph.readiness import ShardLoad
from feature_seed.graph.report import pictures as drawing
from feature_seed.graph.report.pictures import PICTURES, pictures
from feature_seed.graph.report.report import Load
from feature_seed.loading.stream import Layout
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.sample import sample_gold
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.expected import Expected, expect
from feature_seed_tests.support.gold import Row, read_parquet, transaction
from feature_seed_tests.support.run import metadata, seed

NOTE = "Pictures need matplotlib: `pip install 'feature_seed[report]'`"


@pytest.fixture(autouse=True)
def without_pictures() -> None:
    """Not here."""


@pytest.fixture(scope="module")
def sample(chdb: Client, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return Warehouse(gold_parquet=str(sample_gold(chdb, tmp_path_factory.mktemp("sample"))))


@pytest.fixture(scope="module")
def expected(chdb: Client, sample: Warehouse) -> Expected:
    return expect(read_parquet(chdb, Path(str(sample.gold_parquet))))


def bins(name: str, warehouse: Warehouse, **layout: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The bins of a picture, and the parameters that they were counted with."""
    picture = next(one for one in PICTURES if one.name == name)
    parameters = picture.parameters(warehouse, Layout(**layout))
    with warehouse.client() as client:
        return [dict(one) for one in picture.bins(client, parameters)], parameters


@pytest.mark.parametrize("history_length", [1, 10, 50])
def test_histories(sample: Warehouse, expected: Expected, history_length: int) -> None:
    counted, _ = bins("histories", sample, history_length=history_length)
    lengths = Counter(min(card.seq, history_length) for card in expected.cards.values())
    assert {one["length"]: one["entities"] for one in counted} == lengths


def test_ages(sample: Warehouse, expected: Expected) -> None:
    newest = max(card.last_ts for card in expected.cards.values())
    ages = [max(newest - card.last_ts, 60) for card in expected.cards.values()]
    counted, _ = bins("ages", sample)
    assert {one["bin"]: one["entities"] for one in counted} == Counter(int(16 * math.log10(age)) for age in ages)


def test_places(sample: Warehouse, expected: Expected) -> None:
    points = [(card.location[1], card.location[0]) for card in expected.cards.values() if card.location]
    counted, parameters = bins("places", sample)
    cells, bounds = grid(points, parameters)
    assert {(one["column"], one["row"]): one["entities"] for one in counted} == cells
    assert {tuple(one[side] for side in ("west", "east", "south", "north")) for one in counted} == {bounds}


def test_amounts(sample: Warehouse, expected: Expected) -> None:
    """The same bounds; logarithms may differ in the last digit, which moves a customer into the next cell."""
    customers = [one for one in expected.customers.values() if one.mean > 0 and one.m2 > 0]
    counted, parameters = bins("amounts", sample)
    cells, bounds = grid([(math.log10(one.mean), math.log10(math.sqrt(one.variance))) for one in customers], parameters)
    found = Counter({(one["column"], one["row"]): one["entities"] for one in counted})
    assert (found - cells).total() <= 2
    assert (cells - found).total() <= 2
    assert [counted[0][side] for side in ("west", "east", "south", "north")] == pytest.approx(bounds, rel=1e-12)


def grid(
    points: Sequence[tuple[float, float]], parameters: dict[str, Any]
) -> tuple[Counter[tuple[int, int]], tuple[float, float, float, float]]:
    """Points by column and row, and the bounds of 99 % of them either way."""
    (west, east), (south, north) = (middle([point[axis] for point in points]) for axis in (0, 1))
    columns, rows = parameters["columns"], parameters["rows"]
    cells = Counter(
        (
            min(int((x - west) / (east - west) * columns), columns - 1),
            min(int((y - south) / (north - south) * rows), rows - 1),
        )
        for x, y in points
        if west <= x <= east and south <= y <= north
    )
    return cells, (west, east, south, north)


def middle(values: Sequence[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return ordered[int(0.005 * len(ordered))], ordered[int(0.995 * len(ordered))]


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
    assert [(one["length"], one["entities"]) for one in bins("histories", warehouse)[0]] == [(1, 1), (2, 1)]
    assert [one["entities"] for one in bins("ages", warehouse)[0]] == [2]
    assert [(one["west"], one["south"], one["entities"]) for one in bins("places", warehouse)[0]] == [(-2.25, 1.5, 1)]
    assert bins("amounts", warehouse)[0] == []


def test_large_gold_is_sampled(sample: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of the cards, and the picture says so."""
    monkeypatch.setattr(drawing, "_SAMPLE_ROWS", 40_000)
    monkeypatch.setattr(drawing, "_SAMPLE_CARDS", 100)
    counted, parameters = bins("histories", sample)
    assert parameters["shard_count"] == 5
    assert 800 < sum(one["entities"] for one in counted) < 1200
    assert "a sample of one in 5" in drawing._note(PICTURES[0], counted, parameters["shard_count"])


def test_pictures(sample: Warehouse, expected: Expected) -> None:
    """Four PNGs whose titles say what is to be seen."""
    drawn = list(pictures(sample, Layout()))
    titles = [title for title, _ in drawn]
    full = sum(card.seq >= 10 for card in expected.cards.values()) / len(expected.cards)
    assert titles[0] == f"{100 * full:.0f} % of the cards hold a full history of 10"
    assert [" ".join(title.split()[:3]) for title in titles[1:]] == ["Half of the"] * 2 + ["Amounts typically deviate"]
    for _, png in drawn:
        pixels = imread(BytesIO(png))
        assert pixels.shape == (330, 520, 4)
        assert pixels.std() > 0.05
    # The medians that titles name, read from bins, are those of the entities.
    newest = max(card.last_ts for card in expected.cards.values())
    ages = sorted((newest - card.last_ts) / 86_400 for card in expected.cards.values())
    ratios = sorted(math.sqrt(one.variance) / one.mean for one in expected.customers.values())
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
    assert len(list(pictures(make_parquet(rows), Layout(history_length=1000)))) == 4


def test_report_of_a_run(sample: Warehouse, store: OnlineStore, online: redis.Redis) -> None:
    """Before: an empty store. After a run: its numbers in a table, the memory that the keys take, and the pictures."""
    result = seed(sample, store, verify=True)
    markdown = metadata(result, "warm_start")["report"]
    assert len(markdown) < 300_000
    rows = cells(markdown)
    assert [row[0] for row in rows] == [r"card\_history", r"card\_location", r"customer\_stats"]
    assert [row[1:7] for row in rows] == [["5,000", *"00000"]] * 2 + [["2,500", *"00000"]]
    for row in rows:
        loaded = metadata(result, row[0].replace("\\", ""))
        assert row[7:9] == [f"{loaded['bytes'] / 1e6:,.1f}", f"{loaded['seconds']:,.1f}"]
    for row, kinds in zip(rows, (("history", "seq", "seed"), ("loc", "last_ts")), strict=False):
        every = [online.memory_usage(key) or 0 for kind in kinds for key in online.scan_iter(f"card:*:{kind}")]
        assert _amount(row[10]) == pytest.approx(sum(every) / 5000, rel=0.1)
    images = re.findall(r"!\[(.*)\]\(data:image/png;base64,([^)]+)\)", markdown)
    assert [re.sub(r"\\(.)", r"\1", title) for title, _ in images] == [title for title, _ in pictures(sample, Layout())]
    assert all(b64decode(png, validate=True).startswith(b"\x89PNG") for _, png in images)


def cells(markdown: str) -> list[list[str]]:
    """The table's rows below its header."""
    lines = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    return lines[2:]


def _amount(cell: str) -> float:
    return float(cell.replace(",", ""))


def test_shards_loaded_by_different_runs() -> None:
    """A run that loaded several shards counts once, every shard's entities do, and the rate is of all runs."""
    events = {"events_forgotten": 5, "unrecorded": 1, "unrecorded_examples": ["card:a:history"], "taken_over": 4}
    first = {"kept_newer": 2, "rejected_rows": 7, "bytes": 100, "seconds": 1.5, **events}
    second = {"kept_newer": 1, "rejected_rows": 7, "bytes": 50, "seconds": 0.5, **events}
    seeded = {"00": ShardLoad("a", 10, first), "01": ShardLoad("a", 20, first), "02": ShardLoad("b", 30, second)}
    examples = ["card:a:history"] * 2
    assert Load.of("card_history", seeded, 12.5) == Load("card_history", 60, 3, 10, 2, examples, 8, 7, 150, 2.0, 12.5)


def test_report_without_matplotlib(
    make_parquet: MakeWarehouse, store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables stay, with a line on how to get pictures; a table's name adds no cell, image or tag."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    name = "gold | _of_ ![x](y) <b> # $1"
    markdown = metadata(seed(make_parquet([transaction(1)], gold_table=name), store, verify=True), "warm_start")[
        "report"
    ]
    first, *_ = markdown.splitlines()
    assert first.endswith(r"0 of them rejected\. The watermark is 2026\-01\-01 00:00:00 UTC\.".replace("\\", ""))
    assert name in re.sub(r"\\(.)", r"\1", first)
    assert not re.search(r"(?<!\\)[|_!\[\]<>#$]", first)
    assert [row[0] for row in cells(markdown)] == [r"card\_history", r"card\_location", r"customer\_stats"]
    assert markdown.endswith(f"\n\n{NOTE}")


def test_pictures_name_their_sql() -> None:
    """Every SQL file of the report is a picture's, the grid's or that of the entities looked at."""
    files = {path.stem for path in (Path(drawing.__file__).parent).glob("*.sql")}
    assert files == {picture.name for picture in PICTURES} | {"density", "entities"}
