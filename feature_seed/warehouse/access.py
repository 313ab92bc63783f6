"""What a ClickHouse server is, and what it lets its user do: looked at before anything is read or written."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from feature_seed.errors import WarehouseError
from feature_seed.sql import sql
from feature_seed.warehouse.failures import GoldSource
from feature_seed.warehouse.restrictions import NAMES, Restrictions, Setting, needed, restrictions

# The oldest version that is tested: an LTS release. With its old analyzer, or with the new one.
OLDEST = (24, 8)

# Settings that make a load faster, or smaller here. Above 10,000 entities ClickHouse groups in 256 buckets, and each
# comes out as a block: of 1 M cards in two passes, 2,000 cards and 4 MB. A small max_block_size instead takes a core
# away from the query. A pass takes rows from all over gold, so there is nothing to skip by PREWHERE: 7 % of a
# snapshot's time, 1 % of a table's. Slashes that JSON escapes are put back, 0.3 CPU-seconds for 10 M elements.
FASTER = {
    "group_by_two_level_threshold": "10000",
    "optimize_move_to_prewhere": "0",
    "output_format_json_escape_forward_slashes": "0",
}


@dataclass(frozen=True)
class Access:
    """What was found.

    Attributes:
        restrictions: of the user's profile.
        faster: which of FASTER may be set.
        parts: whether gold's parts can be seen.
        row_filter: by which a row policy hides rows from the user; '' without one.
        final: the setting by that name.
    """

    restrictions: Restrictions
    faster: dict[str, str]
    parts: bool
    row_filter: str
    final: Setting

    def warnings(self, source: GoldSource) -> list[str]:
        """What a load does without, and what would change that."""
        warnings = []
        if not self.parts:
            warnings.append(
                f"User {source.user!r} may not read system.parts, so all of gold is read whenever it is looked at for "
                f"changes, and a run fails if gold grows meanwhile: GRANT SELECT ON system.parts TO {source.user}"
            )
        if self.row_filter:
            warnings.append(
                f"A row policy hides rows of gold from user {source.user!r}, and from the store: "
                f"it sees those with {self.row_filter}"
            )
        if not self.faster:
            warnings.append(
                f"User {source.user!r} may change no settings (readonly = 1), so a load holds larger blocks in memory: "
                f"ALTER USER {source.user} SETTINGS readonly = 2"
            )
        return warnings


def examine(client: Client, source: GoldSource, table: Mapping[str, object]) -> Access:
    """Look at version, settings and rights, and lift what can be; `table` is gold's name as the SQL's parameters.

    Raises:
        WarehouseError: the server is too old, or the user's profile has a setting that no load can live with.
    """
    require_version(client.server_version or "", source)
    found = _settings(client, source)
    asked = restrictions({name: found[name] for name in NAMES if name in found})
    if asked.refused:
        raise refusal(source, asked.refused)
    client.command(sql("warehouse/whole"))
    faster = {name: value for name, value in FASTER.items() if name in found and not found[name].fixed}
    if not _accepts(client, {**asked.changed, **faster}):
        faster = {}
        client.command("SELECT 1", settings={**asked.changed})  # what it says names the setting
    lift(client, asked)
    return Access(asked, faster, _can_read_parts(client), _row_filter(client, source, table), found["final"])


def lift(client: Client, asked: Restrictions) -> None:
    """Have every query of this client be sent with the settings that it needs."""
    for name, value in asked.changed.items():
        client.set_client_setting(name, value)


def require_version(version: str, source: GoldSource) -> None:
    """Refuse a server that is older than what is tested, since its SQL is another."""
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if found < OLDEST:
        raise WarehouseError(
            f"ClickHouse at {source.address} is {version}, and {'.'.join(map(str, OLDEST))} is the oldest that can be "
            "seeded from: upgrade it, or export gold to Parquet and name that in FEATURE_SEED_GOLD_PARQUET"
        )


def refusal(source: GoldSource, settings: Mapping[str, str]) -> WarehouseError:
    """The error that names settings of the user's profile."""
    has = ", ".join(f"{name} = {value}" for name, value in settings.items())
    needs = ", ".join(f"{name} = {needed(name)}" for name in settings)
    return WarehouseError(
        f"The profile of user {source.user!r} of ClickHouse at {source.address} has {has}, which may cut gold short or "
        f"change it, and the user may not change that. Nothing was written. ALTER USER {source.user} SETTINGS {needs}"
    )


def _settings(client: Client, source: GoldSource) -> dict[str, Setting]:
    rows = client.query(sql("warehouse/settings"), parameters={"names": [*NAMES, *FASTER, "final"]}).result_rows
    if not rows:
        raise WarehouseError(
            f"ClickHouse at {source.address} gives no row where there is one: look for offset and "
            f"additional_result_filter in the profile of user {source.user!r}"
        )
    return {name: Setting(value, bool(fixed)) for name, value, fixed in zip(*rows[0], strict=True)}


def _accepts(client: Client, settings: dict[str, str]) -> bool:
    """Whether the user may send these: constraints on values show only when one is sent."""
    try:
        client.command("SELECT 1", settings=settings)
    except DatabaseError as e:
        if e.name in ("READONLY", "SETTING_CONSTRAINT_VIOLATION"):
            return False
        raise
    return True


def _row_filter(client: Client, source: GoldSource, table: Mapping[str, object]) -> str:
    try:
        plan = client.query(sql("warehouse/row_filter"), parameters=dict(table)).result_columns
    except DatabaseError as e:
        if e.name in ("ACCESS_DENIED", "UNKNOWN_TABLE", "UNKNOWN_DATABASE", "UNKNOWN_IDENTIFIER"):
            return ""  # whoever reads gold next is told
        raise
    found = re.search(r"filter column: +(.+?)( \(removed\))?$", "\n".join(plan[0] if plan else ()), re.MULTILINE)
    return found[1] if found and "_row_exists" not in found[1] else ""


def _can_read_parts(client: Client) -> bool:
    try:
        client.command("SELECT count() FROM system.parts WHERE 0")
    except DatabaseError as e:
        if e.name == "ACCESS_DENIED":
            return False
        raise
    return True
