"""The pictures of the report. Needs matplotlib, and NumPy which comes with it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from math import cos, radians
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator

from feature_seed.loading.comparison.scan import Found, Row
from feature_seed.loading.layout import Layout
from feature_seed.warehouse.profile import Profile

# Two pictures fit side by side into Dagster's dialog, which takes 80 % of a window of 1,280 pixels.
_INCHES, _DPI = (4.7, 3.1), 100

_INK, _GREY, _BLUE, _PALE, _RED = "#1f2937", "#6b7280", "#1d4e79", "#9dbad2", "#b3413b"
_SHADES = LinearSegmentedColormap.from_list("blues", ["#dfe9f1", _PALE, _BLUE, "#0b2440"])

_HOUR, _DAY = 3_600, 86_400
_AGES = {60: "1 min", 600: "10 min", _HOUR: "1 h", 6 * _HOUR: "6 h", _DAY: "1 d", 7 * _DAY: "7 d"}
_AGES |= {30 * _DAY: "30 d", 365 * _DAY: "1 y", 3_650 * _DAY: "10 y"}

_NOWHERE = (np.nan, np.nan)

Column = np.ndarray[Any, np.dtype[np.float64]]


def pictures(found: Mapping[str, Found], profile: Profile, layout: Layout) -> Iterator[tuple[str, bytes]]:
    """The title and the PNG of every picture, of some 25 KB, of a sample of gold."""
    cards, customers = found["cards"], found["customers"]
    length, age, longitude, latitude = of_cards(cards.rows, profile, layout)
    placed = np.isfinite(longitude)
    average, deviation = of_customers(customers.rows)
    varied = (average > 0) & (deviation > 0)  # others have no place on logarithmic axes
    some = f", a sample of one in {profile.cards / max(len(length), 1):,.0f}" if len(length) < profile.cards else ""
    inner = f"{some}, the outermost 1 % either way left out"
    yield _drawn(lambda axes: _histories(axes, length, layout.history_length), f"{len(length):,} cards{some}")
    yield _drawn(lambda axes: _ages(axes, np.maximum(age, min(_AGES))), f"{len(age):,} cards{some}")
    yield _drawn(lambda axes: _places(axes, longitude[placed], latitude[placed]), f"{placed.sum():,} cards{inner}")
    yield _drawn(lambda axes: _amounts(axes, average[varied], deviation[varied]), f"{varied.sum():,} customers{inner}")


def of_cards(rows: Sequence[Row], profile: Profile, layout: Layout) -> Sequence[Column]:
    """For every card the length of its history, the seconds from its last transaction to the newest in gold, and its
    last longitude and latitude in degrees, nan if unknown."""
    values = [
        (
            min(row["transactions"], layout.history_length),
            (profile.until - row["newest"]) / 1e6,
            *next((reversed(place) for place in row["place"]), _NOWHERE),
        )
        for row in rows
    ]
    return np.array(values, np.float64).reshape(-1, 4).T  # type: ignore[return-value]


def of_customers(rows: Sequence[Row]) -> Sequence[Column]:
    """For every customer the mean of its amounts and their deviation."""
    values = [(np.mean(row["amounts"]), np.std(row["amounts"])) for row in rows]
    return np.array(values, np.float64).reshape(-1, 2).T  # type: ignore[return-value]


def _drawn(draw: Callable[[Axes], str], note: str) -> tuple[str, bytes]:
    """A figure that `draw` fills. `draw` returns its title. Without pyplot, a figure belongs to whoever made it."""
    figure = Figure(_INCHES, _DPI, layout=ConstrainedLayoutEngine(rect=(0, 0, 1, 0.86)))
    axes = figure.subplots()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_GREY)
    axes.tick_params(which="both", color=_GREY, labelcolor=_INK, labelsize=8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(size=8, color=_INK)
    title = "There is nothing to show" if note.startswith("0 ") else draw(axes)
    figure.text(0.015, 0.97, title, va="top", size=9.5, weight="bold", color=_INK)
    figure.text(0.015, 0.895, note, va="top", size=8, color=_GREY)
    png = BytesIO()
    figure.savefig(png, format="png")
    return title, png.getvalue()


def _histories(axes: Axes, lengths: Column, most: int) -> str:
    values, counts = np.unique(lengths, return_counts=True)
    axes.bar(values, counts, color=[_BLUE if value == most else _PALE for value in values])
    axes.set(xlim=(0.4, most + 0.6), xlabel="transactions in a card's history")
    axes.locator_params("x", integer=True, nbins=12)
    _count_upwards(axes)
    return f"{_share(np.mean(lengths == most))} of the cards hold a full history of {most}"


def _ages(axes: Axes, ages: Column) -> str:
    median, least, greatest = np.median(ages), ages.min(), ages.max()
    ends = max(one for one in _AGES if one <= least), min((one for one in _AGES if one > greatest), default=greatest)
    axes.set_xscale("log")
    axes.hist(ages, list(np.geomspace(*ends, 40)), color=_PALE, edgecolor="w", lw=0.5)
    axes.axvline(float(median), color=_RED, lw=1)
    axes.set_xticks(list(_AGES), list(_AGES.values()))
    axes.minorticks_off()
    axes.set(xlim=ends, xlabel="from a card's last transaction to the newest in gold")
    _count_upwards(axes)
    return f"Half of the cards were used in gold's last {_duration(float(median))}"


def _places(axes: Axes, longitudes: Column, latitudes: Column) -> str:
    cells = np.sort(_density(axes, longitudes, latitudes, "cards"))[::-1].cumsum()
    axes.set_aspect(1 / max(cos(radians(np.median(latitudes))), 0.1), adjustable="datalim")  # as maps have it
    axes.set(xlabel="longitude, degrees", ylabel="latitude, degrees")
    half = np.searchsorted(cells, cells[-1] / 2) + 1
    return f"Half of the cards were last seen on {_share(half / len(cells))} of the map"


def _amounts(axes: Axes, averages: Column, deviations: Column) -> str:
    """With a line at the median ratio of the two."""
    _density(axes, averages, deviations, "customers", "log")
    ratio = np.median(deviations / averages)
    ends = np.array(axes.get_xlim())
    axes.plot(ends, ends * ratio, color=_RED, lw=1, scalex=False, scaley=False)
    for axis in (axes.xaxis, axes.yaxis):
        _round_numbers(axis)
    axes.set(xlabel="mean of a customer's amounts", ylabel="their standard deviation")
    return f"Amounts typically deviate by {100 * ratio:.0f} % of a customer's mean"


def _density(axes: Axes, xs: Column, ys: Column, things: str, scale: Any = "linear") -> Column:
    """Draw a grid of cells, darker where there are more points, and return the number in each cell.

    The grid spans 99 % of each axis, so that a few far points do not squeeze all others into a corner.
    """
    inside = np.full(len(xs), True)
    for values in (xs, ys):
        low, high = np.quantile(values, (0.005, 0.995), method="nearest")
        inside &= (low <= values) & (values <= high)
    xs, ys = xs[inside], ys[inside]
    cells = axes.hexbin(xs, ys, gridsize=(40, 16), bins="log", xscale=scale, yscale=scale, cmap=_SHADES, lw=0.2)
    bar = axes.figure.colorbar(cells, ax=axes, format="{x:,.0f}", pad=0.02)
    bar.set_label(f"{things} in a cell", size=8, color=_INK)
    bar.ax.tick_params(labelsize=8, labelcolor=_INK, color=_GREY)
    _round_numbers(bar.ax.yaxis)
    bar.outline.set_visible(False)  # type: ignore[operator]
    return np.ma.filled(np.ma.asarray(cells.get_array()), 0)


def _round_numbers(axis: Axis) -> None:
    """Ticks of a logarithmic axis: few enough to read, also if the axis spans less than a decade."""
    low, high = axis.get_view_interval()
    decades = LogLocator(subs=(1, 2, 5)) if high < 1000 * low else LogLocator(numticks=6)
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]) if high < 10 * low else decades)
    axis.set_major_formatter("{x:,.10g}")
    axis.axes.minorticks_off()


def _count_upwards(axes: Axes) -> None:
    axes.set_ylabel("cards")
    axes.locator_params("y", integer=True, nbins=6)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="y", color="#e5e7eb", lw=0.7)
    axes.set_axisbelow(True)


def _share(share: float) -> str:
    near = {0: "none", 1: "all"} if share in (0, 1) else {0: "under 1 %", 1: "over 99 %"}
    return near[round(share)] if share < 0.01 or share > 0.99 else f"{100 * share:.0f} %"


def _duration(seconds: float) -> str:
    size, unit = next(((s, u) for s, u in ((_DAY, "days"), (_HOUR, "hours")) if seconds >= 2 * s), (60, "minutes"))
    value = seconds / size
    return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
