"""The layout of the package: imports between its wings point down only, and files stay short."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "feature_seed"

# The wings that each wing may import, besides itself and the ground.
MAY_IMPORT = {
    "graph": {"loading", "warehouse", "store", "features"},
    "loading": {"warehouse", "store", "features"},
    "warehouse": {"features"},
    "store": {"features"},
    "features": set(),
}

# What stands above the wings and may import all of them.
ABOVE = {"__init__.py", "__main__.py", "definitions.py"}

MOST_LINES = 300


def upward_imports(package: Path) -> list[str]:
    """Every import of a wing that the importing file may not know, with file and line."""
    return [
        f"{file.relative_to(package)}:{line} imports {name}"
        for file in sorted(package.rglob("*.py"))
        if str(file.relative_to(package)) not in ABOVE
        for line, name in _imports(file)
        if not _allowed(file.relative_to(package).parts, name.split("."))
    ]


def _imports(file: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}:{node.lineno}: a relative import"
            yield from ((node.lineno, f"{node.module}.{one.name}") for one in node.names)
        if isinstance(node, ast.Import):
            yield from ((node.lineno, one.name) for one in node.names)


def _allowed(importer: tuple[str, ...], imported: list[str]) -> bool:
    if imported[0] != "feature_seed":
        return True
    if imported[1] in MAY_IMPORT:
        wing = importer[0] if len(importer) > 1 else ""  # a file of the ground knows no wing
        return imported[1] == wing or imported[1] in MAY_IMPORT.get(wing, ())
    return f"{imported[1]}.py" not in ABOVE


def test_imports_point_down() -> None:
    assert upward_imports(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "line", "says"),
    [
        ("features/upward.py", "from feature_seed.store.lock import StoreLock", "feature_seed.store.lock.StoreLock"),
        ("features/cards/upward.py", "from feature_seed.warehouse import gold", "feature_seed.warehouse.gold"),
        ("store/upward.py", "import feature_seed.warehouse.gold", "feature_seed.warehouse.gold"),
        ("warehouse/upward.py", "from feature_seed.store import lock", "feature_seed.store.lock"),
        ("loading/upward.py", "def f():\n    from feature_seed.graph import jobs", "feature_seed.graph.jobs"),
        ("graph/upward.py", "from feature_seed.definitions import defs", "feature_seed.definitions.defs"),
        ("upward.py", "from feature_seed import features", "feature_seed.features"),
    ],
)
def test_an_upward_import_is_found(tmp_path: Path, file: str, line: str, says: str) -> None:
    """Before: a package with one import that points up. Afterwards its file, its line and the import are named."""
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(line)
    assert upward_imports(tmp_path) == [f"{file}:{line.count(chr(10)) + 1} imports {says}"]


def test_a_file_holds_one_thing() -> None:
    code = [file for file in PACKAGE.rglob("*") if file.suffix in (".py", ".sql", ".lua")]
    assert {file.name: lines for file in code if (lines := len(file.read_text().splitlines())) > MOST_LINES} == {}


def test_the_top_is_the_wings_and_the_ground() -> None:
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"} == set(MAY_IMPORT)
    assert len([path for path in PACKAGE.iterdir() if path.is_file()]) <= 8
