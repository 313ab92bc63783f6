"""The wheel: what an installation without the checkout can do."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_an_installed_wheel_seeds_the_sample_and_prints_a_card(tmp_path: Path) -> None:
    """Before: an empty environment, and no checkout in reach. The job needs the SQL and Lua that the wheel brings."""

    def run(*command: str | Path) -> str:
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("feature_seed-*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "environment")
    programs = tmp_path / "environment" / "bin"
    run(programs / "pip", "install", "-q", f"{wheel}[local]")
    run(programs / "dagster", "job", "execute", "-m", "feature_seed", "-j", "seed_all")
    try:
        assert ':seq": 4' in run(programs / "python", "-m", "feature_seed", "show", "card", "card-4307")
    finally:
        run(programs / "python", "-m", "feature_seed", "empty")
