"""The settings of a user's profile that a load cannot live with, and what it does about each.

A profile may cut answers short, change what a query means, or limit what it may take. Where the user may change such a
setting, every query does so; where not, the load is refused before anything is read, and the setting is named.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

# What our queries need of the settings that change their meaning or the shape of their answers.
MEANING = {
    "additional_result_filter": "",
    "additional_table_filters": "{}",
    "aggregate_functions_null_for_empty": "0",
    "apply_deleted_mask": "1",
    "date_time_overflow_behavior": "ignore",
    "distributed_group_by_no_merge": "0",
    "empty_result_for_aggregation_by_empty_set": "0",
    "enable_global_with_statement": "1",
    "extremes": "0",
    "force_data_skipping_indices": "",
    "force_index_by_date": "0",
    "force_optimize_projection": "0",
    "force_optimize_projection_name": "",
    "force_optimize_skip_unused_shards": "0",
    "force_primary_key": "0",
    "implicit_transaction": "0",
    "limit": "0",
    "offset": "0",
    "output_format_native_encode_types_in_binary_format": "0",
    "prefer_column_name_to_alias": "0",
    "single_join_prefer_left_table": "1",
    "skip_unavailable_shards": "0",
    "use_query_cache": "0",
}

# Limits, 0 for none: what happens at one is up to the other setting, and only `throw` is safe.
LIMITS = {
    "max_bytes_in_distinct": "distinct_overflow_mode",
    "max_bytes_in_join": "join_overflow_mode",
    "max_bytes_in_set": "set_overflow_mode",
    "max_bytes_to_read": "read_overflow_mode",
    "max_bytes_to_read_leaf": "read_overflow_mode_leaf",
    "max_bytes_to_sort": "sort_overflow_mode",
    "max_bytes_to_transfer": "transfer_overflow_mode",
    "max_estimated_execution_time": "timeout_overflow_mode",
    "max_execution_time": "timeout_overflow_mode",
    "max_execution_time_leaf": "timeout_overflow_mode_leaf",
    "max_result_bytes": "result_overflow_mode",
    "max_result_rows": "result_overflow_mode",
    "max_rows_in_distinct": "distinct_overflow_mode",
    "max_rows_in_join": "join_overflow_mode",
    "max_rows_in_set": "set_overflow_mode",
    "max_rows_to_group_by": "group_by_overflow_mode",
    "max_rows_to_read": "read_overflow_mode",
    "max_rows_to_read_leaf": "read_overflow_mode_leaf",
    "max_rows_to_sort": "sort_overflow_mode",
    "max_rows_to_transfer": "transfer_overflow_mode",
    "min_execution_speed": "",
    "min_execution_speed_bytes": "",
}

# What a profile can have without any table showing it: sent with every query.
UNSEEN = ("limit", "offset")

# How much memory a query may take. It is kept to, by more passes over gold.
MEMORY = ("max_memory_usage", "max_memory_usage_for_user")

# What a query takes for itself, on two cores 60 MB, whatever it collects.
LEAST_MEMORY = 200_000_000

NAMES = sorted({*MEANING, *LIMITS, *filter(None, LIMITS.values()), *MEMORY})

# More than gold of so many rows ever needs, of what limits with a mode `throw` count.
_NEEDED_PER_ROW = {"rows": 4.0, "bytes": 4096.0, "time": 1 / 20_000}
_NEEDED_SECONDS = 60


@dataclass(frozen=True)
class Setting:
    """A setting as the user has it; `fixed` when the user may not change it."""

    value: str
    fixed: bool


@dataclass(frozen=True)
class Restrictions:
    """What a profile asks for.

    Attributes:
        changed: settings that every query is sent with.
        kept: limits that cannot be lifted; a query fails at them, and is not cut short.
        refused: settings that no load can live with.
        memory: bytes that a query may take; None for any number.
    """

    changed: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, float] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    memory: int | None = None

    def too_small(self, rows: int) -> dict[str, str]:
        """The limits that gold of so many rows may reach."""
        return {name: f"{value:g}" for name, value in self.kept.items() if value < _most(name, rows)}


def needed(name: str) -> str:
    """The value of a setting that a load can live with, as SQL."""
    value = str(LEAST_MEMORY) if name in MEMORY else MEANING.get(name, "0")
    return value if value.isdigit() else f"'{value}'"


def _most(name: str, rows: int) -> float:
    kind = next(kind for kind in _NEEDED_PER_ROW if kind in name)
    return _NEEDED_PER_ROW[kind] * rows + (_NEEDED_SECONDS if kind == "time" else 0)


def restrictions(found: Mapping[str, Setting]) -> Restrictions:
    """What the settings that were found of NAMES mean for a load."""
    wanted = {name: value for name, value in MEANING.items() if name in found and found[name].value != value}
    limits = {name: float(found[name].value) for name in LIMITS if name in found and float(found[name].value) > 0}
    fixed = {name for name in (*wanted, *limits) if found[name].fixed}
    silent = {name for name in fixed & limits.keys() if not _fails(LIMITS[name], found)}
    memory = {name: int(found[name].value) for name in MEMORY if name in found and int(found[name].value) > 0}
    narrow = {name for name, value in memory.items() if value < LEAST_MEMORY}
    return Restrictions(
        changed={name: MEANING.get(name, "0") for name in (*UNSEEN, *wanted, *limits) if not found[name].fixed},
        kept={name: limits[name] for name in sorted(fixed & limits.keys() - silent)},
        refused={name: found[name].value for name in sorted(fixed - limits.keys() | silent | narrow)},
        memory=min(memory.values(), default=None),
    )


def _fails(mode: str, found: Mapping[str, Setting]) -> bool:
    """Whether a query fails at a limit of this mode: otherwise it ends, as if there were no more rows or time."""
    return mode in found and found[mode].value == "throw"
