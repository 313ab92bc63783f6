"""A snapshot's files: which there are, what is in each, and the SELECT over all of them.

Every file is read by its own types, as if it were the only one. Then its values are brought to one type for gold.
ClickHouse by itself reads all files by the types of one: 3.5 becomes 3 if that file has whole numbers.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clickhouse_connect.driver.binding import finalize_query, quote_identifier
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error

from feature_seed.errors import GoldError
from feature_seed.sql import sql
from feature_seed.warehouse.gold import GOLD_COLUMNS, Columns, fits, remedy, unreadable, unwrapped, wrong_columns
from feature_seed.warehouse.mapping import GoldMapping
from feature_seed.warehouse.place import Place

_PARQUET = re.compile(r"\.(parquet|parq|pq)$")

# Tables whose directory also has files of rows that were deleted or rewritten since.
_TABLES = {
    r"(^|/)_delta_log/": "Delta Lake",
    r"(^|/)\.hoodie/": "Hudi",
    r"(^|/)metadata/[^/]*\.metadata\.json$": "Iceberg",
}


@dataclass(frozen=True)
class File:
    """A file as it is listed. After a write it counts as another one. Only an object in S3 has an ETag."""

    path: str
    size: int
    written: str
    etag: str


@dataclass(frozen=True)
class Contents:
    """What is in a file: its columns with their types, and what the whole file is compressed with."""

    columns: Mapping[str, str]
    compression: str


@dataclass
class Snapshot:
    """The files at a place. What was seen in a file is remembered while the file stays as it is."""

    place: Place
    _compressions: dict[File, str] = field(default_factory=dict)
    _contents: dict[File, Contents] = field(default_factory=dict)

    def files(self, client: Client) -> dict[File, Contents]:
        """Every file of the snapshot, and what is in it. A GoldError says which one cannot be read."""
        found = self.listed(client)
        for file in found.keys() - self._contents.keys():
            self._contents[file] = self._read(client, file, found[file])
        return {file: self._contents[file] for file in found}

    def listed(self, client: Client) -> dict[File, str]:
        """Every file of the snapshot, and what the whole file is compressed with.

        It is a GoldError if there is no file, or if the files are those of a table.
        """
        files = self._all(client)
        for file in set(files) - self._compressions.keys():
            self._compressions[file] = "none" if _PARQUET.search(file.path) else self._told_by_head(client, file)
        if found := {file: compression for file in files if (compression := self._compressions[file])}:
            return found
        hidden = "" if self.place.root is None else ", besides those that are hidden by . or _ before a name"
        raise GoldError(f"No Parquet file matches FEATURE_SEED_GOLD_PARQUET {self.place.named!r}{hidden}")

    def _all(self, client: Client) -> list[File]:
        of_s3 = self.place.function == "s3"
        rows = self._query(client, "files_listed", {"pattern": self.place.pattern}, etag="_etag" if of_s3 else "''")
        files = [File(*row) for row in rows]
        if self.place.directory:
            # S3 lists by the beginning of keys: `gold` finds `gold_old/…` as well.
            whole = str(self.place.root).endswith("/")
            files = [file for file in files if whole or self.place.below(file.path)[:1] in ("", "/")]
            self._require_no_table(files)
        shown = [file for file in files if not _hidden(self.place.below(file.path))]
        # Without links to another file, such as `latest` beside the directories of single days.
        return shown if of_s3 else list({os.path.realpath(file.path): file for file in reversed(shown)}.values())[::-1]

    def _query(self, client: Client, name: str, parameters: dict[str, Any], **parts: str) -> list[Any]:
        text = sql(f"warehouse/{name}").format(function=self.place.function, **parts)
        return list(client.query(text, parameters, query_formats={"FixedString": "bytes"}).result_rows)

    def _require_no_table(self, files: Sequence[File]) -> None:
        for pattern, kind in _TABLES.items():
            if any(re.search(pattern, self.place.below(file.path)) for file in files):
                raise GoldError(
                    f"FEATURE_SEED_GOLD_PARQUET {self.place.named!r} is a table of {kind}, among whose files are some "
                    "that it has deleted: export what is in the table to a directory of its own"
                )

    def _told_by_head(self, client: Client, file: File) -> str:
        """The compression, by the first bytes: `x.parquet.gz` may be compressed inside of Parquet, or around it.

        '' for a file of another kind in the directory.
        """
        heads = self._query(client, "file_head", {"path": self.place.argument(file.path)})
        if heads and heads[0][0] == b"PAR1":
            return "none"
        return "" if self.place.directory and ".parq" not in file.path.rpartition("/")[2] else "auto"

    def _read(self, client: Client, file: File, compression: str) -> Contents:
        """Columns as ClickHouse infers them, except a time of day: ClickHouse takes that for a time in 1970."""
        read = {"path": self.place.argument(file.path), "compression": compression}
        try:
            found = {name: type_ for name, type_, *_ in self._query(client, "file_columns", read)}
            times = [name for (name,) in self._query(client, "file_times", read)]
        except Error as e:
            if e.name != "CANNOT_EXTRACT_TABLE_STRUCTURE":
                raise
            raise GoldError(
                f"FEATURE_SEED_GOLD_PARQUET {self.place.named!r} cannot be read: a file is damaged, or is no Parquet "
                f"file: {file.path}. {e}"
            ) from e
        return Contents({**found, **dict.fromkeys(found.keys() & times, "Time")}, compression)

    def select(self, files: Mapping[File, Contents], columns: Columns) -> str:
        """All rows of these files, of these columns."""
        groups: dict[tuple[Any, ...], list[File]] = {}
        for file, inside in files.items():
            types = tuple(unwrapped(inside.columns[name]) for name in columns)
            groups.setdefault((types, inside.compression), []).append(file)
        differ = [set(types) for types in zip(*(types for types, _ in groups), strict=True)]
        selected = ", ".join(
            f"{column.common.format(quote_identifier(name))} AS {quote_identifier(name)}"
            if column and len(types) > 1 and all(map(column.accepts, types))
            else quote_identifier(name)
            for (name, column), types in zip(columns.items(), differ, strict=True)
        )
        return "\nUNION ALL\n".join(
            self._group(selected, {file: files[file] for file in group}, columns) for group in groups.values()
        )

    def _group(self, selected: str, files: Mapping[File, Contents], columns: Columns) -> str:
        """All rows of files that have the same types, apart from NULL."""
        compression = next(iter(files.values())).compression
        paths = [file.path for file in files]
        types = {name: [one.columns[name] for one in files.values()] for name in columns}
        structure = ", ".join(
            f"{quote_identifier(name)} {next((one for one in some if 'Nullable(' in one), some[0])}"
            for name, some in types.items()
        )
        text = sql("warehouse/files" if len(paths) > 1 else "warehouse/file")
        pattern = self.place.pattern if len(paths) > 1 else self.place.argument(paths[0])
        return finalize_query(
            text.format(columns=selected.replace("%", "%%"), function=self.place.function),
            {"pattern": pattern, "structure": structure, "compression": compression, "paths": paths},
        )


def _hidden(below: str) -> bool:
    """Spark and Hive hide such files and directories. A partition's directory may begin with _, as `_day=1` does."""
    return any(part[:1] == "." or (part[:1] == "_" and "=" not in part) for part in below.split("/"))


def columns_read(files: Mapping[File, Contents], mapping: GoldMapping) -> Columns:
    """The columns of the files that are read; None for a column of an expression, which may have any type."""
    if not (mapping.columns or mapping.where or mapping.others):
        return GOLD_COLUMNS
    found = dict.fromkeys(name for inside in files.values() for name in inside.columns)
    return {name: GOLD_COLUMNS.get(mapping.plain(name)) for name in mapping.names(found) or found}


def require_columns(files: Mapping[File, Contents], columns: Columns, table: str) -> None:
    """Raise a GoldError that names each file's missing and mistyped columns, and what other files have there."""
    found = {file.path: inside.columns for file, inside in files.items()}
    # The types of mapped columns are known once all files are one view.
    required = {name: column if column is GOLD_COLUMNS.get(name) else None for name, column in columns.items()}
    if wrong := wrong_columns(required, found):
        first = next(there for there in found.values() if not all(fits(*one, there) for one in required.items()))
        lines = f". {remedy(first, {})}" if columns.keys() >= GOLD_COLUMNS.keys() else ""
        raise GoldError(f"{unreadable(table, wrong, first)}{lines}")
