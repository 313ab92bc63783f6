"""What the guards of a load have replied: how many entities have live events, and about which entities they decided."""

from dataclasses import astuple, dataclass, field

from feature_seed.errors import printable

_EXAMPLES = 10


@dataclass
class Outcome:
    """The replies of `features/events/load.lua` for the entities of a load, added up.

    Attributes:
        live: entities with live events after the watermark.
        decided: entities with events that no scorer recorded, so that they were told by the list or by counts.
        taken_over: entities that something else had filled: they had no seed.
        forgotten: recorded events that gold has passed.
        examples: keys of entities that were decided about.
    """

    live: int = 0
    decided: int = 0
    taken_over: int = 0
    forgotten: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, reply: int, keys: bytes) -> None:
        """Count the reply for one entity. A reply of 0, for an entity that is as gold has it, counts nothing."""
        self.live += reply & 1
        self.taken_over += reply >> 2 & 1
        self.forgotten += reply >> 3
        if reply & 2:
            self.decided += 1
            if len(self.examples) < _EXAMPLES:
                self.examples.append(printable(keys.partition(b", ")[0]))

    def __add__(self, other: "Outcome") -> "Outcome":
        *counts, examples = (one + another for one, another in zip(astuple(self), astuple(other), strict=True))
        return Outcome(*counts, examples=examples[:_EXAMPLES])

    def __str__(self) -> str:
        parts = {
            "with live events": self.live,
            "with events that nobody recorded": self.decided,
            "taken over": self.taken_over,
            "recorded events forgotten": self.forgotten,
        }
        return ", ".join(f"{count:,} {what}" for what, count in parts.items() if count or what == "with live events")
