"""The configuration: what the environment cannot say. It is a file, or the attributes of the component WarmStart."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import yaml
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails

from feature_seed.contract import KEYS
from feature_seed.errors import ConfigurationError
from feature_seed.features.declared.declared import DURATION, Declared, Order
from feature_seed.features.declared.entity import names_in
from feature_seed.features.feature import FEATURES
from feature_seed.sql import balanced, words
from feature_seed.warehouse.gold import GOLD_COLUMNS
from feature_seed.warehouse.mapping import NULLABLE, GoldMapping

# Every entry, and its right form. * is any name.
_FORMS = {
    "": "gold: {table: fact_transactions}",
    "gold": "gold: {table: fact_transactions, columns: {card_id: cc_num}}",
    "gold.table": "table: fact_transactions",
    "gold.where": "where: status = 'settled'",
    "gold.columns": "columns: {card_id: cc_num, timestamp: fromUnixTimestamp(unix_time), location_lat: NULL}",
    "gold.columns.*": "card_id: cc_num, or card_id: {of: cc_num, hash: sha256, salt: {env: CARD_SALT}}",
    "gold.columns.*.of": "of: cc_num",
    "gold.columns.*.hash": "hash: sha256",
    "gold.columns.*.salt": "salt: {env: CARD_SALT}",
    "gold.columns.*.salt.env": "env: CARD_SALT",
    "standard": "standard: {card_history: {order: newest_first}}",
    "standard.card_history": "card_history: {order: newest_first}",
    "standard.card_history.order": "order: newest_first, or order: oldest_first",
    "standard.card_location": "card_location: {}",
    "standard.customer_stats": "customer_stats: {}",
    **{f"standard.{feature.name}.expire": "expire: 30d" for feature in FEATURES},
    "features": "features: {card_amount_1h: {key: 'velocity:{card_id}:1h', string: sum(amount), window: 1h}}",
    "features.*": "card_amount_1h: {key: 'velocity:{card_id}:1h', string: sum(amount), window: 1h}",
}

# Names of assets and of the steps that load them.
_TAKEN = {"gold_transactions", "warm_start", "departed", "cards", "customers", *(one.name for one in FEATURES)}

Place = tuple[str | int, ...]


class Variable(dg.Model):
    """A secret: the variable of the environment that holds it."""

    env: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")


class Hashed(dg.Model):
    """An id that is hashed on the way: SHA-256 of the salt and the id, in hexadecimal digits."""

    of: str
    hash: Literal["sha256"]
    salt: Variable


class Gold(dg.Model):
    """Gold: its table, the rows that count, and the contract's columns as expressions over the table's own."""

    table: str | None = Field(default=None, min_length=1)
    where: str = ""
    columns: dict[str, str | Hashed | None] = Field(default_factory=dict)

    @field_validator("where")
    @classmethod
    def _is_closed(cls, where: str) -> str:
        if not balanced(where):
            raise ValueError(f"a parenthesis, a bracket or a quote is open in {where}: close it")
        return where

    @field_validator("columns")
    @classmethod
    def _are_columns(cls, columns: dict[str, str | Hashed | None]) -> dict[str, str | Hashed | None]:
        _refuse({name: text for name, entry in columns.items() if (text := _wrong(name, entry))})
        return columns


class Lasting(dg.Model):
    """A standard feature. `expire` is how long after the newest row of its card or customer all keys of that expire."""

    expire: str | None = Field(default=None, pattern=f"^{DURATION}$")


class History(Lasting):
    """The histories of cards. `order` is that in which the scorer keeps them."""

    order: Order | None = None


class Standard(dg.Model):
    """The standard features. All of them are seeded, named here or not."""

    card_history: History = Field(default_factory=History)
    card_location: Lasting = Field(default_factory=Lasting)
    customer_stats: Lasting = Field(default_factory=Lasting)


class Configuration(dg.Model):
    """All of it. What is left out is as the environment says, or as it stands in gold."""

    gold: Gold = Field(default_factory=Gold)
    standard: Standard = Field(default_factory=Standard)
    features: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("features")
    @classmethod
    def _are_features(cls, features: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        written = {key.template: f"the standard features write {key.pattern}" for key in KEYS}
        mistakes: dict[str, str] = {}
        for name, entry in features.items():
            try:
                key = re.sub(r"{\w+}", "{}", Declared.of(name, entry).key)
            except ConfigurationError as e:
                mistakes[name] = str(e)
                continue
            if name in _TAKEN:
                mistakes[name] = f"{name} is the name of another asset: give the feature one of its own"
            elif key in written:
                mistakes[name] = f"{written[key]}: give {name} a key of its own"
            written.setdefault(key, f"{name} has the key {entry['key']}")
        _refuse(mistakes)
        return features

    @model_validator(mode="wrap")
    @classmethod
    def _explained(cls, entries: Any, handler: Callable[[Any], Any]) -> Any:
        """Every mistake with its place and the right form, and without a value: a salt may stand in a wrong place."""
        try:
            return handler({} if entries is None else entries)
        except ValidationError as e:
            raise _invalid(_mistakes(e, entries)) from None

    @model_validator(mode="after")
    def _keep_ids_hashed(self) -> "Configuration":
        hashed = {word for entry in self.gold.columns.values() if isinstance(entry, Hashed) for word in words(entry.of)}
        for one in self.declared:
            if seen := ", ".join(sorted(hashed & names_in([one]))):
                raise _invalid(
                    {("features", one.name): f"{seen} is hashed in gold.columns: name the contract's column here"}
                )
        return self

    @property
    def declared(self) -> list[Declared]:
        return [Declared.of(name, entry) for name, entry in self.features.items()]

    @property
    def mapping(self) -> GoldMapping:
        columns = self.gold.columns
        return GoldMapping(
            columns={name: _expression(entry) for name, entry in columns.items()},
            where=self.gold.where,
            salts={name: entry.salt.env for name, entry in columns.items() if isinstance(entry, Hashed)},
            others=sorted(names_in(self.declared)),
        )


def configured() -> Configuration:
    """What the file of FEATURE_SEED_CONFIG says; nothing without one.

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
    wrong = [(one.start_mark.line, f"{one.value} is there twice: name it once") for one in _repeated(root)]
    try:
        if not wrong:
            return Configuration.model_validate(entries)
    except ValidationError as e:
        wrong = [(_line(root, error["loc"]), str(error.get("ctx", {})["error"])) for error in e.errors()]
    raise ConfigurationError("\n".join(f"{path}, line {line + 1}: {text}" for line, text in sorted(wrong)))


def _repeated(node: yaml.Node | None) -> Iterator[yaml.Node]:
    """The keys that an earlier one of the same mapping has already: YAML would take the last of them."""
    pairs: list[tuple[yaml.Node, yaml.Node]] = node.value if isinstance(node, yaml.MappingNode) else []
    names = [key.value for key, _ in pairs]
    yield from (key for i, (key, _) in enumerate(pairs) if names[i] in names[:i])
    for _, value in pairs:
        yield from _repeated(value)


def _line(node: yaml.Node | None, place: Sequence[str | int]) -> int:
    """Of the entry at a place, or of the nearest around it that is there."""
    line = 0
    for name in place:
        found = [(key, value) for key, value in getattr(node, "value", ()) if key.value == name]
        if not found:
            break
        line, node = found[-1][0].start_mark.line, found[-1][1]
    return line


def _expression(entry: str | Hashed | None) -> str:
    """YAML's own NULL is None."""
    return entry.of if isinstance(entry, Hashed) else "NULL" if entry is None else entry


def _wrong(name: str, entry: str | Hashed | None) -> str:
    """What is wrong with an entry of gold.columns, '' if nothing."""
    expression = _expression(entry)
    if name not in GOLD_COLUMNS:
        return f"{name} is none of the contract's columns: choose from {', '.join(GOLD_COLUMNS)}"
    if isinstance(entry, Hashed) and not name.endswith("_id"):
        return f"{name} cannot be hashed, as only an id can: write {name}: {expression}"
    if expression.upper() == "NULL" and name not in NULLABLE:
        return f"{name} cannot be NULL, as only {', '.join(NULLABLE)} can: write {name}: and an expression"
    if not expression.strip():
        return f"{name} is empty: write {_FORMS['gold.columns.*']}"
    return (
        "" if balanced(expression) else f"a parenthesis, a bracket or a quote is open in {name}: {expression}: close it"
    )


def _refuse(mistakes: Mapping[str, str]) -> None:
    if mistakes:
        raise _invalid({(name,): text for name, text in mistakes.items()})


def _invalid(mistakes: Mapping[Place, str]) -> ValidationError:
    """An error of these texts at these places, which Dagster finds in a component's file as well."""
    details = [
        InitErrorDetails(type="value_error", loc=place, input=None, ctx={"error": ValueError(text)})
        for place, text in mistakes.items()
    ]
    return ValidationError.from_exception_data("configuration", details)


def _mistakes(error: ValidationError, entries: Any) -> dict[Place, str]:
    """What is wrong at which place. An entry that may be one of several has an error of each: one will do."""
    mistakes: dict[Place, str] = {}
    for one in error.errors():
        place, missing = _place(one["loc"], entries)
        if own := one.get("ctx", {}).get("error"):
            text = str(own)
        elif one["type"] == "extra_forbidden":
            known = ", ".join(_known(place[:-1]))
            text = f"{place[-1]} is unknown: {f'choose from {known}' if known else f'write {_form(place[:-1])}'}"
        elif one["type"] == "missing":
            place = (*place, missing)
            text = f"{missing} is missing: write {_form(place)}"
        else:
            text = f"{'.'.join(map(str, place)) or 'the file'} cannot be read: write {_form(place)}"
        mistakes.setdefault(place, text)
    return {
        one: text
        for one, text in mistakes.items()
        if not any(one == other[: len(one)] for other in mistakes if other != one)
    }


def _place(loc: Sequence[str | int], entries: Any) -> tuple[Place, str]:
    """The names in it that are in the file, and the last one: pydantic puts names of types in between."""
    place: list[str | int] = []
    for name in loc:
        if isinstance(entries, Mapping) and name in entries:
            place.append(name)
            entries = entries[name]
    return tuple(place), str(loc[-1]) if loc else ""


def _form(place: Place) -> str:
    return _FORMS[_general(place)]


def _known(place: Place) -> list[str]:
    """The names of the entries at a place."""
    depth, start = len(place) + 1, f"{_general(place)}." if place else ""
    names = [form.split(".") for form in _FORMS if form.startswith(start) and form]
    return [name[-1] for name in names if len(name) == depth]


def _general(place: Place) -> str:
    """The place in _FORMS."""
    parts = ["*" if i and place[i - 1] in ("columns", "features") else str(part) for i, part in enumerate(place)]
    return ".".join(parts)
