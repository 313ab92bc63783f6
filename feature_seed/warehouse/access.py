"""What a ClickHouse server is, and what it lets its user do: looked at before anything is read or written."""

import re
from dataclasses import dataclass

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from feature_seed.errors import WarehouseError
from feature_seed.sql import sql
from feature_seed.warehouse.failures import GoldSource
from feature_seed.warehouse.restrictions import NAMES, Restrictions, Setting, restrictions

# The oldest version that is tested: an LTS release. With its old analyzer, or with the new one.
OLDEST = (24, 8)

# Settings that make a load faster, or smaller here. Above 10,000 entities ClickHouse groups in 256 buckets, and each
# comes out as a block: of 1 M cards in two passes, 2,000 cards and 4 MB. A small max_block_size instead takes a core
# away from the query. A pass takes rows from all over gold, so there is nothing to skip by PREWHERE: 7 % of a
# snapshot's time, 1 % of a table's.
FASTER = {"group_by_two_level_threshold": "10000", "optimize_move_to_prewhere": "0"}


@dataclass(frozen=True)
class Access:
    """What was found.

    Attributes:
        restrictions: of the user's profile.
        faster: which of FASTER may be set.
        parts: whether gold's parts can be seen.
    """

    restrictions: Restrictions
    faster: dict[str, str]
    parts: bool

    def warnings(self, source: GoldSource) -> list[str]:
        """What a load does without, and what would change that."""
        warnings = []
        if not self.parts:
            warnings.append(
                f"User {source.user!r} may not read system.parts, so all of gold is read whenever it is looked at for "
                f"changes, and a run fails if gold grows meanwhile: GRANT SELECT ON system.parts TO {source.user}"
            )
        if not self.faster:
            warnings.append(
                f"User {source.user!r} may change no settings (readonly = 1), so a load holds larger blocks in memory: "
                f"ALTER USER {source.user} SETTINGS readonly = 2"
            )
        return warnings


def examine(client: Client, source: GoldSource) -> Access:
    """Look at version, settings and rights.

    Raises:
        WarehouseError: the server is too old, or the user's profile has a setting that no load can live with.
    """
    require_version(client.server_version or "", source)
    found = _settings(client, source)
    asked = restrictions({name: found[name] for name in found if name not in FASTER})
    if asked.refused:
        raise refusal(source, list(asked.refused))
    faster = {name: value for name, value in FASTER.items() if name in found and not found[name].fixed}
    if not _accepts(client, {**asked.changed, **faster}):
        faster = {}
        client.command("SELECT 1", settings={**asked.changed})  # what it says names the setting
    return Access(asked, faster, parts=_can_read_parts(client))


def require_version(version: str, source: GoldSource) -> None:
    """Refuse a server that is older than what is tested, since its SQL is another."""
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if found < OLDEST:
        raise WarehouseError(
            f"ClickHouse at {source.address} is {version}, and {'.'.join(map(str, OLDEST))} is the oldest that can be "
            "seeded from: upgrade it, or export gold to Parquet and name that in FEATURE_SEED_GOLD_PARQUET"
        )


def refusal(source: GoldSource, settings: list[str]) -> WarehouseError:
    """The error that names settings of the user's profile."""
    names = ", ".join(f"{setting.partition(' ')[0]} = DEFAULT" for setting in settings)
    return WarehouseError(
        f"The profile of user {source.user!r} of ClickHouse at {source.address} has {', '.join(settings)}, which may "
        f"cut gold short or change it, and does not let it be changed. Nothing was written. "
        f"Give the user a profile of its own, for example ALTER USER {source.user} SETTINGS {names}"
    )


def _settings(client: Client, source: GoldSource) -> dict[str, Setting]:
    rows = client.query(sql("warehouse/settings"), parameters={"names": [*NAMES, *FASTER]}).result_rows
    if not rows:
        raise refusal(source, ["offset or additional_result_filter"])
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


def _can_read_parts(client: Client) -> bool:
    try:
        client.command("SELECT count() FROM system.parts WHERE 0")
    except DatabaseError as e:
        if e.name == "ACCESS_DENIED":
            return False
        raise
    return True
