"""What a ClickHouse server is, and what it lets its user do. Both are looked at before anything is read or written.

A profile may cut answers short, change what a query means, or limit what a query may take. If the user may change such
a setting, every query changes it. If not, the load is refused and the setting is named.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from feature_seed.errors import WarehouseError
from feature_seed.sql import sql
from feature_seed.warehouse.source import GoldSource

# The oldest version that is tested, with its old analyzer and with the new one: an LTS release.
OLDEST = (24, 8)

# Settings that make a load faster, or smaller here. Above 10,000 entities ClickHouse groups in 256 buckets, and each
# bucket comes out as a block: with 1 M cards in two passes, 2,000 cards and 4 MB. A small max_block_size instead takes
# a core away from the query. A pass takes rows from all over gold, so PREWHERE skips nothing: without it a snapshot
# takes 7 % less time, a table 1 %. Slashes that JSON escapes would have to be put back: 0.3 CPU-seconds for 10 M
# elements.
FASTER = {
    "group_by_two_level_threshold": "10000",
    "optimize_move_to_prewhere": "0",
    "output_format_json_escape_forward_slashes": "0",
}

# The values that our queries need of settings that change their meaning or the shape of their answers.
_OFF = (
    "aggregate_functions_null_for_empty distributed_group_by_no_merge empty_result_for_aggregation_by_empty_set "
    "extremes force_index_by_date force_optimize_projection force_optimize_skip_unused_shards force_primary_key "
    "implicit_transaction limit offset output_format_native_encode_types_in_binary_format prefer_column_name_to_alias "
    "skip_unavailable_shards use_query_cache"
)
MEANING = {
    **dict.fromkeys(_OFF.split(), "0"),
    "additional_result_filter": "",
    "additional_table_filters": "{}",
    "apply_deleted_mask": "1",
    "date_time_overflow_behavior": "ignore",
    "enable_global_with_statement": "1",
    "force_data_skipping_indices": "",
    "force_optimize_projection_name": "",
    "single_join_prefer_left_table": "1",
}

# Settings that a profile can have although no table shows them. Every query is sent with them.
UNSEEN = ("limit", "offset")

# Limits by what they count, with the most that a row of gold needs; 0 is no limit. At a limit a query fails if the
# overflow modes are `throw`. Otherwise the query ends as if there were no more rows or time.
_LIMITS = {
    ("rows", 4.0): "in_distinct in_join in_set to_group_by to_read to_read_leaf to_sort to_transfer",
    ("bytes", 4096.0): "in_distinct in_join in_set to_read to_read_leaf to_sort to_transfer",
}
LIMITS = {
    **{f"max_{kind}_{what}": most for (kind, most), names in _LIMITS.items() for what in names.split()},
    "max_result_rows": 4.0,
    "max_result_bytes": 4096.0,
    **dict.fromkeys(("max_execution_time", "max_execution_time_leaf", "max_estimated_execution_time"), 1 / 20_000),
    # Nobody can know which speed a query keeps.
    **dict.fromkeys(("min_execution_speed", "min_execution_speed_bytes"), float("inf")),
}
_LEAST_SECONDS = 60

# How much memory a query may take. A load keeps to it by more passes over gold.
MEMORY = ("max_memory_usage", "max_memory_usage_for_user")

# A query takes some memory whatever it collects: 60 MB on two cores.
LEAST_MEMORY = 200_000_000

NAMES = (*MEANING, *LIMITS, *MEMORY)


@dataclass(frozen=True)
class Setting:
    """A setting as the user has it; `fixed` when the user may not change it."""

    value: str
    fixed: bool


@dataclass(frozen=True)
class Restrictions:
    changed: Mapping[str, str]  # settings that every query is sent with
    kept: Mapping[str, float]  # limits that cannot be lifted: a query fails at them, and is not cut short
    refused: Mapping[str, str]  # settings that no load can live with
    memory: int | None  # bytes that a query may take; None for any number

    def too_small(self, rows: int) -> dict[str, str]:
        """The limits that gold of so many rows may reach."""
        most = {name: LIMITS[name] * rows + (_LEAST_SECONDS if "time" in name else 0) for name in self.kept}
        return {name: f"{value:g}" for name, value in self.kept.items() if value < most[name]}


def restrictions(found: Mapping[str, Setting]) -> Restrictions:
    """What the settings found mean for a load. They are those of NAMES, and the overflow modes."""
    wanted = {name for name, value in MEANING.items() if name in found and found[name].value != value}
    limits = {name: value for name in LIMITS if name in found and (value := float(found[name].value)) > 0}
    memory = {name: value for name in MEMORY if name in found and (value := int(found[name].value)) > 0}
    fixed = {name for name in (*wanted, *limits) if found[name].fixed}
    cut = any("_overflow_mode" in name and setting.value != "throw" for name, setting in found.items())
    kept = {name for name in fixed & limits.keys() if not cut and LIMITS[name] < float("inf")}
    narrow = {name for name, value in memory.items() if value < LEAST_MEMORY}
    return Restrictions(
        changed={name: MEANING.get(name, "0") for name in (*UNSEEN, *wanted, *limits) if not found[name].fixed},
        kept={name: limits[name] for name in sorted(kept)},
        refused={name: found[name].value for name in sorted(fixed - kept | narrow)},
        memory=min(memory.values(), default=None),
    )


@dataclass(frozen=True)
class Access:
    restrictions: Restrictions  # of the user's profile
    faster: dict[str, str]  # which of FASTER may be set
    parts: bool  # whether gold's parts can be seen
    final: Setting  # the setting by that name
    warnings: list[str]  # what a load does without, and what would change that


# Of embedded ClickHouse, and of a server that was not looked at yet.
FREE = Access(Restrictions({}, {}, {}, None), FASTER, parts=False, final=Setting("0", fixed=False), warnings=[])


def examine(client: Client, source: GoldSource) -> Access:
    """Look at version, settings and rights, and lift what can be.

    A WarehouseError says that the server is too old, or which setting no load can live with.
    """
    require_version(client.server_version or "", source)
    found = _settings(client, source)
    asked = restrictions(found)
    if asked.refused:
        raise refusal(source, asked.refused)
    client.command(sql("warehouse/whole"))
    faster = {name: value for name, value in FASTER.items() if name in found and not found[name].fixed}
    # A constraint on values shows only when a value is sent.
    if _refused(client, "SELECT 1", {**asked.changed, **faster}, "READONLY", "SETTING_CONSTRAINT_VIOLATION"):
        faster = {}
        client.command("SELECT 1", settings={**asked.changed})  # its error names the setting
    lift(client, asked)
    user, parts = source.login, not _refused(client, "SELECT count() FROM system.parts WHERE 0", {}, "ACCESS_DENIED")
    hidden = _row_filter(client, source)
    warnings = {
        f"User {user!r} may not read system.parts, so all of gold is read whenever it is looked at for changes, and a "
        f"run fails if gold grows meanwhile: GRANT SELECT ON system.parts TO {user}": not parts,
        f"A row policy hides rows of gold from user {user!r}, and from the store: it sees those with {hidden}": hidden,
        f"User {user!r} may change no settings (readonly = 1), so a load holds larger blocks in memory: "
        f"ALTER USER {user} SETTINGS readonly = 2": not faster,
    }
    return Access(asked, faster, parts, found["final"], [text for text, holds in warnings.items() if holds])


def lift(client: Client, asked: Restrictions) -> None:
    """Send every query of this client with the settings that it needs."""
    for name, value in asked.changed.items():
        client.set_client_setting(name, value)


def require_version(version: str, source: GoldSource) -> None:
    """Refuse a server that is older than the oldest tested one, since SQL differs between versions."""
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if found < OLDEST:
        raise WarehouseError(
            f"ClickHouse at {source.address} is {version}, and {'.'.join(map(str, OLDEST))} is the oldest that can be "
            "seeded from: upgrade it, or export gold to Parquet and name that in FEATURE_SEED_GOLD_PARQUET"
        )


def refusal(source: GoldSource, settings: Mapping[str, str]) -> WarehouseError:
    """The error that names settings of the user's profile."""
    has = ", ".join(f"{name} = {value}" for name, value in settings.items())
    needed = {name: str(LEAST_MEMORY) if name in MEMORY else MEANING.get(name, "0") for name in settings}
    needs = ", ".join(f"{name} = {value if value.isdigit() else repr(value)}" for name, value in needed.items())
    return WarehouseError(
        f"The profile of user {source.login!r} of ClickHouse at {source.address} has {has}, which may cut gold short "
        "or change it, and the user may not change that. Nothing was written. "
        f"ALTER USER {source.login} SETTINGS {needs}"
    )


def _settings(client: Client, source: GoldSource) -> dict[str, Setting]:
    rows = client.query(sql("warehouse/settings"), {"names": [*NAMES, *FASTER, "final"]}).result_rows
    if not rows:
        raise WarehouseError(
            f"ClickHouse at {source.address} gives no row where there is one: look for offset and "
            f"additional_result_filter in the profile of user {source.login!r}"
        )
    return {name: Setting(value, bool(fixed)) for name, value, fixed in zip(*rows[0], strict=True)}


def _refused(client: Client, query: str, settings: dict[str, str], *errors: str) -> bool:
    """Whether the user may not do this: one of these errors says so."""
    try:
        client.command(query, settings=settings)
    except DatabaseError as e:
        if e.name in errors:
            return True
        raise
    return False


def _row_filter(client: Client, source: GoldSource) -> str:
    """The condition by which a row policy hides rows from the user; '' without one."""
    try:
        plan = client.query(sql("warehouse/row_filter"), source.table).result_columns
    except DatabaseError as e:
        if e.name in ("ACCESS_DENIED", "UNKNOWN_TABLE", "UNKNOWN_DATABASE", "UNKNOWN_IDENTIFIER"):
            return ""  # the next query over gold raises the error
        raise
    found = re.search(r"filter column: +(.+?)( \(removed\))?$", "\n".join(plan[0] if plan else ()), re.MULTILINE)
    return found[1] if found and "_row_exists" not in found[1] else ""
