"""The seeding process that is timed: `dagster job execute`, as anyone runs it, followed by a report of what it used.

`python -m feature_seed_tests.benchmarks.job REPORT` is that process, and `run` starts it.
"""

import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TypedDict

from feature_seed.features.feature import FEATURES
from feature_seed.store.local import LocalRedis
from feature_seed_tests.support.documents import VARIABLES

COMMAND = ["dagster", "job", "execute", "-m", "feature_seed", "-j", "seed_all"]


class Report(TypedDict):
    """What the process used, and the `seconds` and `bytes` of each entity's load, from the materialisations.

    `ended` is when each load was done, in Unix seconds. `steps` are the seconds of each step of the run, in its order.
    """

    cpu_seconds: float
    peak_bytes: int
    seconds: dict[str, float]
    bytes: dict[str, int]
    ended: dict[str, float]
    steps: dict[str, float]


def run(gold: Path | None, home: Path, on_conflict: str, **variables: str) -> Report:
    """Seed the server under `home` in a process of its own, from a snapshot or from what `variables` name."""
    report, log = home / "report.json", home / "job.log"
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | {
        "FEATURE_SEED_GOLD_PARQUET": str(gold or ""),
        "FEATURE_SEED_ON_CONFLICT": on_conflict,
        "FEATURE_SEED_HOME": str(home),
        "REDIS_URL": f"unix://{LocalRedis(home).socket}",
        "DAGSTER_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        **variables,
    }
    with log.open("w") as output:
        command = [sys.executable, "-m", __name__, str(report)]
        job = subprocess.run(command, env=environment, stdout=output, stderr=output)
    if job.returncode:
        raise SystemExit(f"{log.read_text()}\n{' '.join(COMMAND)} failed")
    return json.loads(report.read_text())


def main(report: Path) -> None:
    sys.argv = COMMAND
    try:
        runpy.run_module("dagster", run_name="__main__", alter_sys=True)
    except SystemExit as e:
        if e.code:
            raise
    used = Report(
        cpu_seconds=time.process_time(), peak_bytes=_peak_bytes(), seconds={}, bytes={}, ended={}, steps=_steps()
    )
    for feature in reversed(FEATURES):  # so that the first feature of an entity says when its load ended
        name = feature.entity.name
        used["seconds"][name], used["bytes"][name], used["ended"][name] = _load(feature.name)
    report.write_text(json.dumps(used))


def _peak_bytes() -> int:
    """VmHWM: ru_maxrss begins with the size of the process that forked."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def _steps() -> dict[str, float]:
    from dagster import DagsterInstance

    instance = DagsterInstance.get()
    (record,) = instance.get_run_records(limit=1)
    steps = instance.get_run_step_stats(record.dagster_run.run_id)
    times = sorted((one.start_time or 0, one.end_time or 0, one.step_key) for one in steps)
    return {step: ended - started for started, ended, step in times}


def _load(asset: str) -> tuple[float, int, float]:
    """Seconds and bytes of the latest load, and its end: the event of its first partition, since others are slow."""
    from dagster import AssetKey, DagsterInstance

    from feature_seed.graph.readiness import LOAD

    records = DagsterInstance.get().fetch_materializations(AssetKey(asset), limit=256).records
    of_run = [record for record in records if record.run_id == records[0].run_id]
    assert of_run[0].asset_materialization
    load: Any = of_run[0].asset_materialization.metadata[LOAD].value
    seconds, size = load["seconds"] + load["compared_seconds"], load["bytes"] + load["compared_bytes"]
    return seconds, size, min(record.timestamp for record in of_run)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
