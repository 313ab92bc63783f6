"""The code location as Dagster loads it."""

import subprocess
import sys
from pathlib import Path

import pytest
from dagster.components.definitions import LazyDefinitions

import feature_seed
from feature_seed_tests.support.deployment import dagster_dev, query


def test_loads_without_a_warning() -> None:
    """No deprecated, superseded or beta API of ours shows in anyone's terminal."""
    code = "import feature_seed; feature_seed.defs.resolve_all_job_defs()"
    loaded = subprocess.run([sys.executable, "-W", "default", "-c", code], capture_output=True, text=True, check=True)
    ours = [line for line in loaded.stderr.splitlines() if "Warning" in line]
    assert ours == []


def test_the_module_is_found_by_name() -> None:
    """`-m feature_seed` finds one thing to load, which is made when it is."""
    from dagster._core.workspace.autodiscovery import loadable_targets_from_python_module

    targets = loadable_targets_from_python_module("feature_seed", working_directory=None)
    (found,) = [target.target_definition for target in targets]
    assert isinstance(found, LazyDefinitions) and found() is feature_seed.defs


@pytest.mark.slow
@pytest.mark.parametrize("program", ["dagster", "dagster_dg_cli.cli"])
def test_the_code_location_has_one_name(tmp_path: Path, program: str) -> None:
    """In the checkout, by `dagster dev` as by `dg dev`: cursors of sensors and schedules belong to it."""
    locations = (
        "{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename } } } } }"
    )
    with dagster_dev(tmp_path, program=program) as port:
        (entry,) = query(port, locations)["workspaceOrError"]["locationEntries"]
    assert entry == {"name": "feature_seed", "locationOrLoadError": {"__typename": "RepositoryLocation"}}
