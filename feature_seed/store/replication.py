"""Replication offsets: what a failover has kept, and what it may have lost."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from feature_seed.errors import StoreUnavailableError
from feature_seed.store.block import Block
from feature_seed.store.bulk import BulkConnection

# How long a load waits for a failover or the migration of a slot. By default, nodes call a node failed after 15 s.
FAILOVER_SECONDS = 30.0

PAUSE_SECONDS = 0.05


@dataclass(frozen=True)
class ReplicationState:
    """A place in the history of a data set, which primary and replicas share under an id.

    A promoted replica gives its history a new id. Up to `former_offset`, the history is that of the former id.
    """

    id: str  # of the history
    offset: int  # how many bytes of it the server has
    former_id: str  # of the history that it continues
    former_offset: int  # likewise
    primary: bool  # whether the server writes the history
    linked: bool  # whether it follows one that does

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> "ReplicationState":
        """From INFO's section `replication`."""
        return cls(
            id=str(info.get("master_replid", "")),
            offset=int(info.get("master_repl_offset", 0)),
            former_id=str(info.get("master_replid2", "")),
            former_offset=int(info.get("second_repl_offset", -1)),
            primary=info.get("role", "master") == "master",
            linked=info.get("master_link_status") == "up",
        )

    @classmethod
    def asked(cls, ask: Callable[..., Any]) -> "ReplicationState":
        """Asked with a function that sends a command and returns the raw reply."""
        lines = ask("INFO", "replication").decode().splitlines()
        return cls.of(dict(line.split(":", 1) for line in lines if ":" in line))

    def continues(self, history: str) -> bool:
        """Whether the server has all that it had under this id: it is the primary still, or follows its successor."""
        return self.id == history if self.primary else self.linked and self.former_id == history

    def includes(self, history: str, offset: int) -> bool:
        """Whether the server has that much of a history."""
        now, before = (self.id, self.offset), (self.former_id, self.former_offset - 1)
        return any(history == one and offset <= reached for one, reached in (now, before))


class PrimaryConnection(BulkConnection):
    """A bulk connection to a primary that may be replaced during a load. The end of the load finds out whether it was.

    A primary that was replaced may go on for up to ten seconds, and what it takes then is lost. If sentinels have named
    the primary, `successor` gives the state of the primary that they name now.
    """

    def __init__(
        self,
        connection: redis.Connection,
        scripts: Sequence[str] = (),
        wait_replicas: int = 0,
        successor: Callable[[], ReplicationState] | None = None,
    ) -> None:
        super().__init__(connection, scripts, wait_replicas)
        self._successor = successor
        self._replication = ReplicationState.asked(self.ask).id

    def drain(self) -> None:
        super().drain()
        reached = self._confirmed()
        if self._successor and not self._successor().includes(reached.id, reached.offset):
            raise self._replaced()
        self.replication_offsets = {reached.id: reached.offset}

    def _confirmed(self) -> ReplicationState:
        """Where the server is in its replication, once what it acknowledged is certain to be kept.

        A primary that was demoted on purpose follows its successor in one history. A primary that was cut off and
        replaced takes over another history. Its successor may lack something then, which is an error.
        """
        deadline = time.monotonic() + FAILOVER_SECONDS
        while not (position := ReplicationState.asked(self.ask)).continues(self._replication):
            if position.primary or position.linked or time.monotonic() > deadline:
                raise self._replaced()
            time.sleep(PAUSE_SECONDS)
        return position

    def _refuse(self, block: Block, entity: int, reply: str) -> None:
        if "READONLY" in reply:
            raise self._replaced()
        super()._refuse(block, entity, reply)

    def _replaced(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"Redis at {self.node} was replaced during the load by another primary, which may lack what it had "
            "acknowledged: run again"
        )
