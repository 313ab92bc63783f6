"""`feast materialize` into the same Redis, from features that were aggregated before its clock starts.

FEATURE_SEED_TEST_FEAST names the folder of an environment that has feast:

    $ python -m venv feast && feast/bin/pip install 'feast[redis]'
    $ FEATURE_SEED_TEST_FEAST=feast python -m feature_seed_tests.benchmarks.seed --cards 100000 --transactions 1000000

Feast keeps a layout of its own, one hash per card and one per customer, and guards none against a live scorer. It is
given its fastest settings (repository/feature_store.yaml); as it comes, it took 13.8 s and 1.9 GB in place of 12.0 s
and 1.3 GB for 99,996 cards and 50,000 customers (feast 0.67, 3 s of it its start). Its memory grows with their number.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clickhouse_connect.driver.client import Client

from feature_seed.contract import Card, Transaction
from feature_seed.store.local import LocalRedis
from feature_seed_tests.benchmarks.memory import peak_bytes

VARIABLE = "FEATURE_SEED_TEST_FEAST"

_REPOSITORY = Path(__file__).with_name("repository")

_PERIOD = "1970-01-01T00:00:00", "2200-01-01T00:00:00"

_CARD_FEATURES = ("history", "lat", "lon", "last_ts", "seq")


def feast_command() -> Path | None:
    """The command of the environment that is named; None when there is no name.

    Raises:
        SystemExit: the environment has no feast.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    command = Path(named).resolve() / "bin" / "feast"
    if not command.exists():
        raise SystemExit(f"{VARIABLE} names {named}, where there is no bin/feast: it takes feast[redis]")
    return command


@dataclass(frozen=True)
class Repository:
    """What feast is told: definitions, its configuration, and the aggregated features as Parquet files."""

    command: Path
    home: Path

    @classmethod
    def of(cls, command: Path, client: Client, gold: Path, home: Path) -> "Repository":
        shutil.copytree(_REPOSITORY, home / "feast")
        for entity in ("card", "customer"):
            statement = (_REPOSITORY / f"{entity}.sql").read_text()
            client.command(statement, {"gold": str(gold), "features": str(home / "feast" / f"{entity}.parquet")})
        return cls(command, home)

    def apply(self) -> None:
        """Register the definitions, as is done once for all loads."""
        self._run("apply")

    def materialize(self) -> int:
        """Load everything into the server under `home`: peak bytes of memory."""
        return self._run("materialize", *_PERIOD)

    def materialize_newer(self) -> None:
        """Load what is newer than the period that was materialized last."""
        self._run("materialize-incremental", _PERIOD[1])

    def read(self, cards: Sequence[str]) -> dict[str, Card | None]:
        """Some cards as feast finds them in the store."""
        entities = [f"--entities=card_id={card}" for card in cards]
        features = [f"--features=card:{feature}" for feature in _CARD_FEATURES]
        self._run("get-online-features", *entities, *features)
        columns = json.loads(self._output.read_text())
        rows = zip(*(columns[feature] for feature in _CARD_FEATURES), strict=True)
        return {card: _card(*row) for card, row in zip(columns["card_id"], rows, strict=True)}

    @property
    def _output(self) -> Path:
        return self.home / "feast.out"

    def _run(self, *arguments: str) -> int:
        """Peak bytes of a command of feast.

        Raises:
            SystemExit: it failed.
        """
        errors = self.home / "feast.err"
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment["REDIS_SOCKET"] = str(LocalRedis(self.home).socket)
        with self._output.open("w") as output, errors.open("w") as log:
            process = subprocess.Popen(
                [self.command, *arguments],
                cwd=self.home / "feast",
                env=environment,
                stdout=output,
                stderr=log,
                start_new_session=True,
            )
            try:
                peak = peak_bytes(process)
            finally:
                process.kill()
        if process.returncode:
            raise SystemExit(f"{self._output.read_text()}{errors.read_text()}\nfeast {arguments[0]} failed")
        return peak


def _card(history: str | None, lat: float | None, lon: float | None, last_ts: float, seq: int) -> Card | None:
    if history is None:
        return None
    location = None if lat is None or lon is None else (lat, lon)
    return Card(tuple(Transaction(**fields) for fields in json.loads(history)), location, last_ts, seq)
