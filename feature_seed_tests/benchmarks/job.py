"""The seeding process that is timed: `dagster job execute`, as anyone runs it, followed by a report of what it used.

`python -m feature_seed_tests.benchmarks.job REPORT JOB TAGS` is that process, and `run` starts it.
"""

import json
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypedDict

from feature_seed.features.feature import FEATURES
from feature_seed.store.local import LocalRedis
from feature_seed_tests.support.documents import VARIABLES

COMMAND = ["dagster", "job", "execute", "-m", "feature_seed"]


class Report(TypedDict):
    """What the process used, and the `seconds` and `bytes` of each entity's load, from the materialisations.

    `whole` are the seconds from its start to its end. `compared` are those in which a load looked for changes. `ended`
    is when each load was done, in Unix seconds. `steps` are the seconds of each step of the run, in its order.
    """

    whole: float
    cpu_seconds: float
    peak_bytes: int
    seconds: dict[str, float]
    compared: dict[str, float]
    bytes: dict[str, int]
    ended: dict[str, float]
    steps: dict[str, float]


def loading(report: Report) -> float:
    """Seconds of the loads. Embedded ClickHouse looks for changes of all entities at the same time."""
    return sum(report["seconds"].values()) + max(report["compared"].values())


def run(
    gold: Path | None, home: Path, on_conflict: str, tags: Mapping[str, str] | None = None, /, **variables: str
) -> Report:
    """Seed the server under `home` from a snapshot, or from what `variables` name, in a process of its own.

    Seeds every shard, or those that `tags` name.
    """
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | {
        "FEATURE_SEED_GOLD_PARQUET": str(gold or ""),
        "FEATURE_SEED_ON_CONFLICT": on_conflict,
        "FEATURE_SEED_HOME": str(home),
        "REDIS_URL": f"unix://{LocalRedis(home).socket}",
        "DAGSTER_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        **variables,
    }
    with TemporaryDirectory(dir=home) as own:
        report, log = Path(own) / "report.json", Path(own) / "log"
        arguments = ["seed_shard" if tags else "seed_all", json.dumps({**(tags or {}), "report": str(report)})]
        started = time.perf_counter()
        with log.open("w") as output:
            command = [sys.executable, "-m", __name__, str(report), *arguments]
            job = subprocess.run(command, env=environment, stdout=output, stderr=output)
        whole = time.perf_counter() - started
        if job.returncode:
            raise SystemExit(f"{log.read_text()}\n{' '.join([*COMMAND, '-j', *arguments])} failed")
        return Report(whole=whole, **json.loads(report.read_text()))


def main(report: Path, job: str, tags: str) -> None:
    sys.argv = [*COMMAND, "-j", job, "--tags", tags]
    try:
        runpy.run_module("dagster", run_name="__main__", alter_sys=True)
    except SystemExit as e:
        if e.code:
            raise
    used: dict[str, Any] = {"cpu_seconds": time.process_time(), "peak_bytes": _peak_bytes()}
    run_id = _run_id(report)
    # Reversed, so that of an entity the first one says when it ended.
    loads = {one.entity.name: _load(one.name, run_id) for one in reversed(FEATURES)}
    for i, figure in enumerate(("seconds", "compared", "bytes", "ended")):
        used[figure] = {name: load[i] for name, load in loads.items()}
    report.write_text(json.dumps({**used, "steps": _steps(run_id)}))


def _peak_bytes() -> int:
    """VmHWM: ru_maxrss begins with the size of the process that forked."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def _run_id(report: Path) -> str:
    """Of this process's run: another may be under way."""
    from dagster import DagsterInstance, RunsFilter

    (record,) = DagsterInstance.get().get_run_records(RunsFilter(tags={"report": str(report)}))
    return record.dagster_run.run_id


def _steps(run_id: str) -> dict[str, float]:
    from dagster import DagsterInstance

    steps = DagsterInstance.get().get_run_step_stats(run_id)
    times = sorted((one.start_time or 0, one.end_time or 0, one.step_key) for one in steps)
    return {step: ended - started for started, ended, step in times}


def _load(asset: str, run_id: str) -> tuple[float, float, int, float]:
    """What a run's load says of itself, and when it ended: with its first partition's event, others are slow."""
    from dagster import AssetKey, DagsterInstance

    from feature_seed.graph.readiness import LOAD

    records = DagsterInstance.get().fetch_materializations(AssetKey(asset), limit=256).records
    of_run = [record for record in records if record.run_id == run_id]
    assert of_run[0].asset_materialization
    load: Any = of_run[0].asset_materialization.metadata[LOAD].value
    size = load["bytes"] + load["compared_bytes"]
    return load["seconds"], load["compared_seconds"], size, min(record.timestamp for record in of_run)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
