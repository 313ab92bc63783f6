"""How features are laid out in the store, and their shards."""

from typing import Any

import dagster as dg
from pydantic import Field, PrivateAttr

from feature_seed.contract import HISTORY_LENGTH, Element
from feature_seed.features.entity import OnConflict


class Layout(dg.ConfigurableResource):
    """How features are laid out in the store, as a scorer must read them. See feature_seed/features/README.md.

    With `full`, and in `overwrite`, a load sends every entity, whether it has changed or not. `expire` says how many
    seconds after its newest row an entity expires, by the names of entities that do.
    """

    shard_count: int = 16
    history_length: int = HISTORY_LENGTH
    newest_first: bool = False
    element: Element = "object"
    key_tags: bool = False
    on_conflict: OnConflict = "keep_newer"
    full: bool = False
    expire: dict[str, int] = Field(default_factory=dict)

    _found: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def found(self) -> dict[str, Any]:
        """What the steps of a run have found out about entities, so that no step looks again."""
        return self._found


def shard_names(count: int) -> list[str]:
    """The partition keys of `count` shards: two hexadecimal digits (`00`, `01`, … `0f`)."""
    return [f"{shard:02x}" for shard in range(count)]
