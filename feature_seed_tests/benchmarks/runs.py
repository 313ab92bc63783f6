"""Runs of the real job beside the other ways: first ones into an empty store, and later ones over what one has left.

The later ones are in `keep_newer`, which sends only what has changed. The other ways send everything again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from clickhouse_connect.driver.client import Client

from feature_seed_tests.benchmarks import job
from feature_seed_tests.benchmarks.stage import Figures

# What sends everything, and looks for nothing.
FULL = {"FEATURE_SEED_FULL": "1", "FEATURE_SEED_MAX_LOSS": "1"}


class Later(NamedTuple):
    """A run over what the one before it left, with another gold: of the cards one in so many has changed since.

    It is compared with the run called `full`, which sends everything; `goal` is of its loads to that one's.
    """

    title: str
    one_in: int | None
    full: str = ""
    goal: float = 0

    @property
    def variables(self) -> Mapping[str, str]:
        return {} if self.full else FULL


LATER = {
    "full": Later("everything once more", None),
    "second": Later("second run, gold unchanged", None, "full", 0.25),
    "few": Later("1 % of the cards changed", 100, "full", 0.3),
    "all full": Later("everything, all changed", 1),
    "all": Later("all cards changed", None, "all full", 1.1),
}

TITLES = {"first": "first run", "array": "first run, arrays", **{name: one.title for name, one in LATER.items()}}

BESIDE = ("floor", "pipeline", "feast")


def write_golds(client: Client, gold: Path, home: Path) -> Mapping[str, Path]:
    """The gold of each later run: the same snapshot with other amounts of the cards that have changed."""
    golds = {name: home / f"{name}.parquet" if one.one_in else gold for name, one in LATER.items()}
    for name, one in LATER.items():
        if one.one_in:
            client.command(
                "INSERT INTO FUNCTION file({changed:String}, 'Parquet') SELECT * REPLACE (if(sipHash64(card_id) % "
                "{one_in:UInt32} = 0, amount + 1, amount) AS amount) FROM file({gold:String}, 'Parquet')",
                {"gold": str(gold), "changed": str(golds[name]), "one_in": one.one_in},
            )
    return golds


def figures(name: str, report: job.Report) -> Figures:
    """Of a run, by its name: seconds of the whole job and of its loads, and MB that these sent to Redis."""
    return {
        name: report["whole"],
        f"{name} loads": job.loading(report),
        f"{name} MB": sum(report["bytes"].values()) / 1e6,
    }


def ratios(measured: Figures) -> Figures:
    """How many times as long as the other ways each run takes, and a later one as the run that sends everything."""
    whole = {
        f"{name} / {way}": measured[name] / measured[beside(name, way)] for name in TITLES for way in ways(measured)
    }
    of_full = {
        f"{name}{figure} / full": measured[f"{name}{figure}"] / measured[f"{one.full}{figure}"]
        for name, one in LATER.items()
        if one.full
        for figure in ("", " loads", " MB")
    }
    return whole | of_full


def ways(measured: Figures) -> list[str]:
    return [way for way in BESIDE if way in measured]


def beside(name: str, way: str) -> str:
    """The figure of another way that a run is compared with: over a store that holds as much, and with its commands."""
    if name in LATER:
        return f"{way} again"
    return "array floor" if (name, way) == ("array", "floor") else way  # the others write objects


def show(measured: Figures) -> None:
    """The runs, with the seconds of the other ways and the ratios to them."""
    others, of_full = ways(measured), ("", " loads", " MB")
    columns = (
        "seconds",
        "loads",
        "MB",
        *others,
        *(f"/ {way}" for way in others),
        "/ full",
        "loads / full",
        "MB / full",
    )
    print(f"\n{'':28}" + "".join(f"{column:>{_width(column)}}" for column in columns))
    for name, title in TITLES.items():
        seconds = [measured[name], measured[f"{name} loads"], measured[f"{name} MB"]]
        seconds += [measured[beside(name, way)] for way in others]
        found = [measured[f"{name} / {way}"] for way in others]
        found += [measured[one] for figure in of_full if (one := f"{name}{figure} / full") in measured]
        cells = [f"{one:.1f}" for one in seconds] + [f"{one:.2f}" for one in found]
        cells += [""] * (len(columns) - len(cells))
        print(f"{title:28}" + "".join(f"{cell:>{_width(column)}}" for cell, column in zip(cells, columns, strict=True)))
    if "feast incremental" in measured:
        print(f"feast materialize-incremental, nothing new since: {measured['feast incremental']:.1f} s")


def _width(column: str) -> int:
    return max(10, len(column) + 2)
