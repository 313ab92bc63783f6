"""The stream of declared features. The features of one entity come in one pass over gold."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from clickhouse_connect.driver.client import Client

from feature_seed.errors import WarehouseError
from feature_seed.features.declared.entity import DeclaredEntity
from feature_seed.loading.stream import FeatureStream
from feature_seed.sql import over, sql
from feature_seed.warehouse.failures import with_retries
from feature_seed.warehouse.gold import RELATIONS
from feature_seed.warehouse.profile import Profile


@dataclass(frozen=True)
class DeclaredStream(FeatureStream):
    """The keys of an entity's declared features, each with its command. A key of many members comes several times."""

    entity: DeclaredEntity

    @property
    def expected(self) -> int:
        return self._size["entities"] * len(self.entity.features)

    @property
    def settings(self) -> dict[str, str]:
        """One thread, if settings may be changed: a sum of doubles depends on the order in which threads reach rows.

        One thread reads several million rows a second. Redis takes fewer of the commands that they make.
        """
        return {**super().settings, **({"max_threads": "1"} if super().settings else {})}

    def counted_at(self, feature: str) -> int:
        return self.entity.counted_at(feature)

    def rehearse(self) -> None:
        """The same as for any stream.

        Raises:
            WarehouseError: naming the feature whose expressions ClickHouse does not take.
        """
        try:
            super().rehearse()
        except WarehouseError as e:
            for feature in self.entity.features if len(self.entity.features) > 1 else ():
                replace(self, entity=DeclaredEntity.of(feature)).rehearse()
            raise type(e)(f"Feature {', '.join(one.name for one in self.entity.features)}: {e}") from e

    def _query(self, profile: Profile, chosen: Sequence[int] | None = None) -> str:
        """The query over all transactions: declared features have no digest."""
        return self.warehouse.mapping.over(self.entity.command_query(RELATIONS["gold"], self._aggregates))

    @cached_property
    def _aggregates(self) -> set[str]:
        """What ClickHouse knows as aggregate functions, in lower case."""
        with self.warehouse.client() as client:
            return {name for (name,) in with_retries(lambda: client.query(sql("loading/aggregates")).result_rows)}

    @cached_property
    def _size(self) -> dict[str, int]:
        """About how many entities there are in these shards, and their rows."""
        query = over(self.entity.rows(RELATIONS["gold"]), sql("loading/declared_size"))
        with self.warehouse.client() as client, self.warehouse.errors():
            return with_retries(lambda: self.warehouse.only_row(client, query, self._parameters()))

    def _collected(self, profile: Profile) -> int:
        size = self._size["rows"] * self.entity.collects * self.entity.row_bytes
        entities = self._size["entities"] * self.entity.entity_bytes
        return (size + entities) * self.layout.shard_count // len(self.shards)

    def require_whole(self, client: Client, delivered: int) -> None:
        """The check entity_count finds an answer that ended early: here that would be one more scan of gold."""
