"""The identity of gold. Two states of gold have different identities. Mostly an identity costs no scan."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from clickhouse_connect.driver.client import Client

from feature_seed.errors import GoldError
from feature_seed.sql import sql
from feature_seed.warehouse.files import File
from feature_seed.warehouse.gold import over_gold
from feature_seed.warehouse.mapping import GoldMapping
from feature_seed.warehouse.source import GoldSource


@dataclass(frozen=True)
class Identity:
    version: str  # another after every change of gold
    # What stays while rows are only added: a snapshot's files, or a table's partitions with their first blocks.
    kept: frozenset[Sequence[Any]]


def identity_of_files(files: Iterable[File], mapping: GoldMapping) -> Identity:
    listed = [astuple(file) for file in files]
    return Identity(_digest(listed, mapping), frozenset(listed))


def table_of(client: Client, gold: GoldSource) -> tuple[str, str, int]:
    """A table's engine, UUID if it has one, and the time of its definition."""
    found = client.query(sql("warehouse/table"), gold.named).result_rows
    if not found:
        raise GoldError(f"There is no gold table {gold.gold_table!r} in database {gold.database!r}")
    return found[0]  # type: ignore[return-value]


def identity_of_table(client: Client, gold: GoldSource, *, parts: bool) -> Identity:
    """A table is known by its parts, if its user may see `parts`. A table without parts, as a view, is read whole."""
    _, uuid, defined = table_of(client, gold)
    blocks = client.query(sql("warehouse/parts"), gold.named).result_rows if parts else []
    if blocks:
        created = uuid or defined
        # In a database without UUIDs, a rebuilt table's block numbers start again: the time of its parts stands in.
        seen = [(partition, first, block, 0 if uuid else written) for partition, first, block, written in blocks]
        return Identity(_digest((created, seen), gold.mapping), frozenset((created, *one[:2]) for one in blocks))
    content = client.query(gold.mapping.over(over_gold("warehouse/version_content")), gold.table).result_rows
    return Identity(_digest((uuid, content), gold.mapping), frozenset(content))


def _digest(identity: object, mapping: GoldMapping) -> str:
    return hashlib.sha256(f"{identity!r}{mapping.identity}".encode()).hexdigest()[:16]
