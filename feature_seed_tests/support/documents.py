"""The documents as tests read them: a table, a line or a block of code in whichever document has it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

README = ROOT / "README.md"

# Folders whose README lists their files.
LISTED = [
    *(ROOT / "feature_seed" / wing for wing in ("features", "warehouse", "store", "loading", "graph")),
    *(ROOT / "feature_seed_tests" / folder for folder in ("benchmarks", "faults")),
]

DOCUMENTS = {
    path: path.read_text()
    for path in [README, *sorted((ROOT / ".github").glob("*.md")), *(folder / "README.md" for folder in LISTED)]
}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def only(pattern: str) -> re.Match[str]:
    """What a pattern finds; `^` and `$` are the ends of a line. Wherever else it stands, it is the same."""
    found = {match[0]: match for text in DOCUMENTS.values() for match in re.finditer(pattern, text, re.MULTILINE)}
    assert len(found) == 1, f"{len(found)} of {pattern} in the documents"
    return next(iter(found.values()))


def code(language: str) -> list[str]:
    """The blocks of code in a language, of all documents."""
    return [block for text in DOCUMENTS.values() for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)]


def prose(text: str) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)


def table(header: str) -> list[list[str]]:
    """The rows below a header, which one document has."""
    (text,) = [text for text in DOCUMENTS.values() if f"{header}\n" in text]
    return rows(text, header)


def rows(text: str, header: str) -> list[list[str]]:
    lines = iter(text.split(f"{header}\n")[1].splitlines()[1:])
    cells = []
    for line in lines:
        if not line.startswith("|"):
            break
        cells.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))])
    return cells


# Every variable that feature_seed reads, as the README has it.
VARIABLES = {variable.strip("`") for variable, *_ in table("| variable | meaning | when unset |")}
