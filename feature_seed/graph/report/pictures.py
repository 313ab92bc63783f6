"""The pictures of the report: the warehouse counts in bins, and matplotlib draws."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from itertools import accumulate
from math import cos, nan, radians, sqrt
from typing import TYPE_CHECKING, Any

from clickhouse_connect.driver.client import Client

from feature_seed.features.entity import CARDS, CUSTOMERS, Entity
from feature_seed.loading.stream import Layout
from feature_seed.sql import over, sql
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.gold import RELATIONS
from feature_seed.warehouse.mapping import GoldMapping

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import Locator

Bins = Sequence[Mapping[str, Any]]
Parameters = Mapping[str, Any]

# Pictures are of a part of the entities, of about this many rows and no fewer cards: of 10 M rows in Parquet all four
# then take 6 CPU-seconds, most of them to find the part.
_SAMPLE_ROWS, _SAMPLE_CARDS = 1_000_000, 5_000

# Two pictures fit side by side into the dialog that Dagster shows them in, 80 % of a window of 1,280 pixels.
_INCHES, _DPI = (4.7, 3.1), 100

_INK, _GREY, _BLUE, _PALE, _RED = "#1f2937", "#6b7280", "#1d4e79", "#9dbad2", "#b3413b"

_AGE_BIN = 10 ** (1 / 16)  # from one edge to the next, as in ages.sql

_HOUR, _DAY = 3_600, 86_400
_AGES = {
    60: "1 min",
    600: "10 min",
    _HOUR: "1 h",
    6 * _HOUR: "6 h",
    _DAY: "1 d",
    7 * _DAY: "7 d",
    30 * _DAY: "30 d",
    365 * _DAY: "1 y",
    3_650 * _DAY: "10 y",
}


# Whether there can be any: matplotlib comes with the `report` extra.
def available() -> bool:
    return find_spec("matplotlib") is not None


def pictures(warehouse: Warehouse, layout: Layout) -> Iterator[tuple[str, bytes]]:
    """The title and the PNG of every picture, of some 25 KB.

    Raises:
        WarehouseError: gold can no longer be read.
    """
    with warehouse.client() as client, warehouse.errors():
        for picture in PICTURES:
            parameters = picture.parameters(warehouse, layout)
            yield _drawn(picture, picture.bins(client, parameters, warehouse.mapping), parameters)


@dataclass(frozen=True)
class Picture:
    """A picture of entities: the SQL that counts them in bins, and what draws these.

    Attributes:
        name: of its SQL in this folder.
        entity: whose relation the SQL reads.
        things: what is counted, in words.
        draw: draws the bins and returns the title, which says what is to be seen.
        grid: of SQL that gives points, how many of them fall into a cell on average. 0 is of SQL that counts by itself.
    """

    name: str
    entity: Entity
    things: str
    draw: "Callable[[Axes, Bins, Parameters], str]"
    grid: float = 0

    def bins(self, client: Client, parameters: Parameters, mapping: GoldMapping) -> Bins:
        """Some thousands at most, counted by the warehouse."""
        relations = {**RELATIONS, **self.entity.relations(deep=True)}  # for few cards have many rows
        select = sql(f"graph/report/{self.name}")
        query = (
            over({**relations, "points": select}, sql("graph/report/density")) if self.grid else over(relations, select)
        )
        return list(client.query(mapping.over(query), parameters=dict(parameters)).named_results())

    def parameters(self, warehouse: Warehouse, layout: Layout) -> dict[str, Any]:
        """Of the SQL. `shard_count` parts are made, one is drawn."""
        gold = warehouse.profile()
        parts = max(min(gold.rows // _SAMPLE_ROWS, gold.cards // _SAMPLE_CARDS), 1)
        columns = min(max(round(sqrt(gold.cards / parts / (self.grid or 1) * 8 / 5)), 16), 80)
        return {
            **warehouse.table,
            "entity": self.entity.id,
            "shards": [0],
            "shard_count": parts,
            "key_tags": layout.key_tags,
            "history_length": layout.history_length,
            "newest_first": layout.newest_first,
            "watermark": gold.watermark.timestamp(),
            **gold.readable,
            "columns": columns,
            "rows": columns * 5 // 8,
        }


def _drawn(picture: Picture, bins: Bins, parameters: Parameters) -> tuple[str, bytes]:
    """Without pyplot a figure belongs to whoever made it, in any thread."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(_INCHES, _DPI, layout=ConstrainedLayoutEngine(rect=(0, 0, 1, 0.86)))
    axes = figure.subplots()
    _style(axes)
    title = picture.draw(axes, bins, parameters) if bins else _nothing(axes, picture)
    title = title[0].upper() + title[1:]
    figure.text(0.015, 0.97, title, va="top", size=9.5, weight="bold", color=_INK)
    figure.text(0.015, 0.895, _note(picture, bins, parameters["shard_count"]), va="top", size=8, color=_GREY)
    png = BytesIO()
    figure.savefig(png, format="png")
    return title, png.getvalue()


def _style(axes: "Axes") -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_GREY)
    axes.tick_params(which="both", color=_GREY, labelcolor=_INK, labelsize=8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(size=8, color=_INK)


def _nothing(axes: "Axes", picture: Picture) -> str:
    axes.set_axis_off()
    return f"there are no {picture.things} to show"


def _note(picture: Picture, bins: Bins, parts: int) -> str:
    sample = f", a sample of one in {parts}" if parts > 1 else ""
    outer = ", the outermost 1 % either way left out" if picture.grid else ""
    return f"{_total(bins):,} {picture.things}{sample}{outer}"


def _histories(axes: "Axes", bins: Bins, parameters: Parameters) -> str:
    length = parameters["history_length"]
    full = sum(one["entities"] for one in bins if one["length"] == length)
    colors = [_BLUE if one["length"] == length else _PALE for one in bins]
    axes.bar([one["length"] for one in bins], [one["entities"] for one in bins], color=colors)
    axes.set_xlim(0.4, length + 0.6)
    axes.locator_params("x", integer=True, nbins=12)
    axes.set_xlabel("transactions in a card's history")
    _count_upwards(axes, "cards")
    return f"{_share(full, _total(bins))} of the cards hold a full history of {length}"


def _ages(axes: "Axes", bins: Bins, parameters: Parameters) -> str:
    edges = [_AGE_BIN ** one["bin"] for one in bins]
    cards = [one["entities"] for one in bins]
    axes.set_xscale("log")
    axes.bar(edges, cards, [edge * (_AGE_BIN - 1) for edge in edges], align="edge", color=_PALE, edgecolor="w", lw=0.5)
    middle, part = _middle(cards)
    median = edges[middle] * _AGE_BIN**part
    axes.axvline(median, color=_RED, lw=1)
    marks = list(_AGES)
    first, last = max(bisect_right(marks, edges[0]) - 1, 0), bisect_left(marks, edges[-1])
    marks = marks[first : max(last, first + 1) + 1]
    axes.set_xticks(marks, [_AGES[mark] for mark in marks])
    axes.minorticks_off()
    axes.set_xlim(marks[0], max(marks[-1], edges[-1] * _AGE_BIN))
    axes.set_xlabel("from a card's last transaction to the newest in gold")
    _count_upwards(axes, "cards")
    return f"half of the cards were used in gold's last {_duration(median)}"


def _places(axes: "Axes", bins: Bins, parameters: Parameters) -> str:
    _density(axes, bins, parameters, "cards")
    middle = (bins[0]["south"] + bins[0]["north"]) / 2
    axes.set_aspect(1 / max(cos(radians(middle)), 0.1), adjustable="datalim")  # as maps have it
    axes.set_xlabel("longitude, degrees")
    axes.set_ylabel("latitude, degrees")
    half, _ = _middle(sorted((one["entities"] for one in bins), reverse=True))
    area = _share(half + 1, parameters["columns"] * parameters["rows"])
    return f"half of the cards were last seen on {area} of the map"


def _amounts(axes: "Axes", bins: Bins, parameters: Parameters) -> str:
    """On logarithmic axes, since the SQL gives powers of ten; with a line at the median ratio of the two."""
    xs, ys = _density(axes, bins, parameters, "customers", lambda power: 10**power)
    ratios = sorted((_centre(ys, one["row"]) / _centre(xs, one["column"]), one["entities"]) for one in bins)
    ratio, _ = ratios[_middle([customers for _, customers in ratios])[0]]
    axes.set(xscale="log", yscale="log", xlim=(xs[0], xs[-1]), ylim=(ys[0], ys[-1]))
    axes.plot([xs[0], xs[-1]], [xs[0] * ratio, xs[-1] * ratio], color=_RED, lw=1)
    for axis, edges in ((axes.xaxis, xs), (axes.yaxis, ys)):
        axis.set_major_locator(_round_numbers(edges[0], edges[-1]))
        axis.set_major_formatter("{x:,.10g}")
    axes.minorticks_off()
    axes.set_xlabel("mean of a customer's amounts")
    axes.set_ylabel("their standard deviation")
    return f"amounts typically deviate by {100 * ratio:.0f} % of a customer's mean"


def _centre(edges: Sequence[float], cell: int) -> float:
    return sqrt(edges[cell] * edges[cell + 1])


def _density(
    axes: "Axes", bins: Bins, parameters: Parameters, things: str, scale: Callable[[float], float] = float
) -> tuple[list[float], list[float]]:
    """Draw a grid, darker where more is, and return the edges of its columns and rows."""
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    columns, rows, bounds = parameters["columns"], parameters["rows"], bins[0]
    grid = [[nan] * columns for _ in range(rows)]
    for one in bins:
        grid[one["row"]][one["column"]] = one["entities"]
    xs = [scale(bounds["west"] + (bounds["east"] - bounds["west"]) * i / columns) for i in range(columns + 1)]
    ys = [scale(bounds["south"] + (bounds["north"] - bounds["south"]) * i / rows) for i in range(rows + 1)]
    fewest, most = min(one["entities"] for one in bins), max(one["entities"] for one in bins)
    shades = LinearSegmentedColormap.from_list("blues", ["#dfe9f1", _PALE, _BLUE, "#0b2440"])
    mesh = axes.pcolormesh(xs, ys, grid, cmap=shades, norm=LogNorm(fewest, max(most, fewest + 1)))
    ticks = _round_numbers(fewest, most, whole=True)
    bar = axes.figure.colorbar(mesh, ax=axes, ticks=ticks, format="{x:,.0f}", pad=0.02)
    bar.set_label(f"{things} in a cell", size=8, color=_INK)
    bar.ax.tick_params(labelsize=8, labelcolor=_INK, color=_GREY)
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)  # type: ignore[operator]
    return xs, ys


def _round_numbers(low: float, high: float, *, whole: bool = False) -> "Locator":
    """Ticks of a logarithmic axis: few enough to read, also where it spans less than a decade."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    if high < 10 * low:
        return MaxNLocator(5, steps=[1, 2, 5, 10], integer=whole)
    return LogLocator(subs=(1, 2, 5)) if high < 1000 * low else LogLocator(numticks=6)


def _count_upwards(axes: "Axes", things: str) -> None:
    axes.set_ylabel(things)
    axes.locator_params("y", integer=True, nbins=6)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="y", color="#e5e7eb", lw=0.7)
    axes.set_axisbelow(True)


def _middle(counts: Sequence[int]) -> tuple[int, float]:
    """The bin in which half of all is reached, and after which part of it."""
    sums = list(accumulate(counts))
    middle = bisect_left(sums, sums[-1] / 2)
    return middle, 1 - (sums[middle] - sums[-1] / 2) / counts[middle]


def _total(bins: Bins) -> int:
    return sum(one["entities"] for one in bins)


def _share(part: int, whole: int) -> str:
    if part in (0, whole):
        return "all" if part else "none"
    percent = 100 * part / whole
    return "under 1 %" if percent < 1 else "over 99 %" if percent > 99 else f"{percent:.0f} %"


def _duration(seconds: float) -> str:
    size, unit = next(((s, u) for s, u in ((_DAY, "days"), (_HOUR, "hours")) if seconds >= 2 * s), (60, "minutes"))
    value = seconds / size
    return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"


PICTURES = (
    Picture("histories", CARDS, "cards", _histories),
    Picture("ages", CARDS, "cards", _ages),
    Picture("places", CARDS, "cards", _places, grid=3),  # cards are many in few places
    Picture("amounts", CUSTOMERS, "customers", _amounts, grid=10),
)
