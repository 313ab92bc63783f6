"""The configuration: what the environment cannot say. It is a file, or the attributes of the component WarmStart."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from feature_seed.contract import KEYS
from feature_seed.errors import ConfigurationError
from feature_seed.features.declared.declared import Declared, Duration
from feature_seed.features.declared.entity import names_in
from feature_seed.features.declared.entry import Condition, Entry, Expression, Order, Place, invalid
from feature_seed.features.feature import FEATURES
from feature_seed.sql import words
from feature_seed.warehouse.gold import GOLD_COLUMNS
from feature_seed.warehouse.mapping import NULLABLE, GoldMapping

# Names of assets and of the steps that load them.
_TAKEN = {"gold_transactions", "warm_start", "departed", "cards", "customers", *(one.name for one in FEATURES)}


def _column(name: str) -> str:
    if name not in GOLD_COLUMNS:
        raise ValueError(f"{name} is none of the contract's columns: choose from {', '.join(GOLD_COLUMNS)}")
    return name


def _feature(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise ValueError(f"{name} is no name of a feature: give letters, digits and _")
    if name in _TAKEN:
        raise ValueError(f"{name} is the name of another asset: give the feature one of its own")
    return name


class Variable(Entry):
    """A secret: the variable of the environment that holds it."""

    env: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="env: CARD_SALT")


class Column(Entry):
    """What a column of the contract is made of. An id may be hashed: SHA-256 of salt and id, in hexadecimal digits."""

    of: Expression = Field(description="of: cc_num")
    hash: Literal["sha256"] | None = Field(default=None, description="hash: sha256")
    salt: Variable | None = Field(default=None, description="salt: {env: CARD_SALT}")

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, content: Any) -> Any:
        if content is None:  # YAML's own NULL
            return {"of": "NULL"}
        return {"of": content} if isinstance(content, str) else content

    @model_validator(mode="after")
    def _has_a_salt(self) -> "Column":
        if bool(self.hash) != bool(self.salt):
            raise ValueError("hash and salt need each other: write {of: cc_num, hash: sha256, salt: {env: CARD_SALT}}")
        return self


class Gold(Entry):
    """Gold: its table, the rows that count, and the contract's columns as expressions over the table's own."""

    table: str | None = Field(default=None, min_length=1, description="table: fact_transactions")
    where: Condition = Field(default="", description="where: status = 'settled'")
    columns: dict[Annotated[str, AfterValidator(_column)], Column] = Field(
        default_factory=dict,
        description="columns: {card_id: cc_num, customer_id: {of: cc_num, hash: sha256, salt: {env: CARD_SALT}}}",
    )


class Lasting(Entry):
    """A standard feature. All keys of a card or customer expire `expire` after its newest row."""

    expire: Duration | None = Field(default=None, description="expire: 30d")


class History(Lasting):
    """The histories of cards. `order` is the order in which the scorer keeps them."""

    order: Order | None = Field(default=None, description="order: newest_first, or order: oldest_first")


class Standard(Entry):
    """The standard features. All of them are seeded, whether they are named or not."""

    card_history: History = Field(default_factory=History, description="card_history: {order: newest_first}")
    card_location: Lasting = Field(default_factory=Lasting, description="card_location: {expire: 30d}")
    customer_stats: Lasting = Field(default_factory=Lasting, description="customer_stats: {expire: 30d}")


class Configuration(Entry):
    """The whole configuration. What is left out is as the environment says, or as it stands in gold."""

    gold: Gold = Field(default_factory=Gold, description="gold: {table: fact_transactions, columns: {card_id: cc_num}}")
    standard: Standard = Field(default_factory=Standard, description="standard: {card_history: {order: newest_first}}")
    features: dict[Annotated[str, AfterValidator(_feature)], Declared] = Field(
        default_factory=dict,
        description="features: {card_amount_1h: {key: 'velocity:{card_id}:1h', string: sum(amount), window: 1h}}",
    )

    @model_validator(mode="before")
    @classmethod
    def _is_there(cls, content: Any) -> Any:
        return {} if content is None else content

    @model_validator(mode="after")
    def _fits_together(self) -> "Configuration":
        if mistakes := dict(self._mistakes()):
            raise invalid(mistakes)
        return self

    def _mistakes(self) -> Iterator[tuple[Place, str]]:
        here, there = self.standard.card_history.expire, self.standard.card_location.expire
        if here and there and here != there:
            text = "the keys of a card expire together: write expire once, as in card_history: {expire: 30d}"
            yield ("standard", "card_location", "expire"), text
        for name, column in self.gold.columns.items():
            place = ("gold", "columns", name)
            if column.hash and not name.endswith("_id"):
                yield place, f"{name} cannot be hashed, as only an id can: write {name}: {column.of}"
            if column.of.upper() == "NULL" and name not in NULLABLE:
                known = ", ".join(NULLABLE)
                yield place, f"{name} cannot be NULL, as only {known} can: write {name}: and an expression"
        hashed = {word for column in self.gold.columns.values() if column.hash for word in words(column.of)}
        keys = {key.template: f"the standard features write {key.pattern}" for key in KEYS}
        for name, one in self.features.items():
            if seen := ", ".join(sorted(hashed & names_in([one]))):
                yield ("features", name), f"{seen} is hashed in gold.columns: name the contract's column here"
            key = re.sub(r"{\w+}", "{}", one.called(name).key)
            if key in keys:
                yield ("features", name), f"{keys[key]}: give {name} a key of its own"
            keys.setdefault(key, f"{name} has the key {one.key}")

    @property
    def declared(self) -> list[Declared]:
        return [*self.features.values()]

    @property
    def mapping(self) -> GoldMapping:
        columns = self.gold.columns
        return GoldMapping(
            columns={name: column.of for name, column in columns.items()},
            where=self.gold.where,
            salts={name: column.salt.env for name, column in columns.items() if column.salt},
            others=sorted(names_in(self.declared)),
        )


def configured() -> Configuration:
    """The configuration in the file of FEATURE_SEED_CONFIG; an empty one without a file.

    Raises:
        ConfigurationError: with file and line of every mistake, and the right form.
    """
    named = os.environ.get("FEATURE_SEED_CONFIG")
    return read(Path(named)) if named else Configuration()


def read(path: Path) -> Configuration:
    """The configuration in a file; errors as above."""
    try:
        text = path.read_text()
        root, entries = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigurationError(f"FEATURE_SEED_CONFIG names {path}, which cannot be read: {e}") from e
    except yaml.MarkedYAMLError as e:
        line = e.problem_mark.line + 1 if e.problem_mark else 1
        raise ConfigurationError(
            f"{path}, line {line}: {e.problem}. Quote what has braces or a colon in it, as in key: 'card:{{card_id}}:n'"
        ) from e
    lines = [*_lines(root)]
    known, times = dict(lines), Counter(place for place, _ in lines)
    wrong = [(known[place], f"{place[-1]} is there twice: name it once") for place in times if times[place] > 1]
    try:
        if not wrong:
            return Configuration.model_validate(entries)
    except ValidationError as e:
        whole = "the file cannot be read: write gold: {table: fact_transactions}"
        wrong = [(_line(known, one["loc"]), str(one.get("ctx", {}).get("error", whole))) for one in e.errors()]
    raise ConfigurationError("\n".join(f"{path}, line {line}: {text}" for line, text in sorted(wrong)))


def _lines(node: yaml.Node | None, place: Place = ()) -> Iterator[tuple[Place, int]]:
    """The line of every entry. An entry that is there twice comes twice: YAML by itself takes the last one."""
    pairs: list[tuple[yaml.Node, yaml.Node]] = node.value if isinstance(node, yaml.MappingNode) else []
    for key, value in pairs:
        yield (*place, key.value), key.start_mark.line + 1
        yield from _lines(value, (*place, key.value))


def _line(lines: Mapping[Place, int], place: Place) -> int:
    """The line of the entry at a place, or of the nearest entry around it."""
    return lines[place] if place in lines else _line(lines, place[:-1]) if place else 1
