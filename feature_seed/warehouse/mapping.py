"""The mapping: the contract's columns as expressions over gold's own, and which of gold's rows count."""

import hashlib
import os
import re
from collections.abc import Collection, Mapping
from typing import Any

import dagster as dg
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from pydantic import Field

from feature_seed.errors import ConfigurationError, GoldError
from feature_seed.sql import columns_called, sql, words
from feature_seed.warehouse.gold import GOLD_COLUMNS, unreadable

# Gold's table, as every query names it.
_TABLE = "{database:Identifier}.{gold:Identifier}"

# Columns that may be NULL, with their types: no number or text can be made of a `NULL` without a type.
NULLABLE = {"merchant_category": "String", "location_lat": "Float64", "location_long": "Float64"}


class Salt(str):
    """A secret that a parameter carries. It is shown nowhere."""

    def __repr__(self) -> str:
        return "'…'"


class GoldMapping(dg.Config):
    """How gold is read. An empty mapping reads gold as it stands.

    Attributes:
        columns: by the contract's name, a ClickHouse expression over gold's own columns. Others keep their names.
        where: the rows that count; '' for all of them.
        salts: by the contract's name of a hashed id, the variable that holds the salt.
        others: words that may be columns of gold, which declared features read as they are.
    """

    columns: dict[str, str] = Field(default_factory=dict)
    where: str = ""
    salts: dict[str, str] = Field(default_factory=dict)
    others: list[str] = Field(default_factory=list)

    def over(self, query: str) -> str:
        """The query over gold's table, as a query over the mapped gold."""
        return query.replace(_TABLE, f"(\n{self._select()}\n)") if self.columns or self.where else query

    def _select(self) -> str:
        return sql("warehouse/mapped").format(
            others=columns_called(self.others),
            columns=", ".join(f"{self._outer(name)} AS {name}" for name in GOLD_COLUMNS),
            expressions=", ".join(f"(\n{self.expression(name)}\n) AS {_inner(name)}" for name in GOLD_COLUMNS),
            where=self.where or "1",
        )

    def expression(self, name: str) -> str:
        """What a column of the contract is made of."""
        found = self.columns.get(name, name)
        return f"CAST(NULL, 'Nullable({NULLABLE[name]})')" if name in NULLABLE and found.upper() == "NULL" else found

    def _outer(self, name: str) -> str:
        """The salt is a parameter, so that it is in no statement."""
        if name not in self.salts:
            return _inner(name)
        text = f"toString({_inner(name)})"
        return f"if({text} = '', '', lower(hex(SHA256(concat({{salt_{name}:String}}, {text})))))"

    @property
    def parameters(self) -> dict[str, Salt]:
        """The salts, under the names the SQL knows them by; a ConfigurationError names a variable that is not set."""
        return {f"salt_{name}": _salt(name, variable) for name, variable in self.salts.items()}

    @property
    def identity(self) -> str:
        """Another for every mapping. A salt is in it as a key that is slow to make: nobody tries a million."""
        salts = [hashlib.pbkdf2_hmac("sha256", one.encode(), b"gold", 200_000) for one in self.parameters.values()]
        given = (sorted(self.columns.items()), self.where, sorted(self.salts), salts)
        return repr(given) if any(given) else ""

    def names(self, found: Collection[str] | None = None) -> list[str]:
        """The columns of gold that are read: without `found`, all words of the expressions that may be columns."""
        texts = [self.columns.get(name, name) for name in GOLD_COLUMNS] + [self.where]
        named = dict.fromkeys([word for text in texts for word in words(text)] + self.others)
        return [word for word in named if word.upper() != "NULL" and (found is None or word in found)]

    def plain(self, column: str) -> str:
        """The contract's name of a column of gold that is taken as it is; '' for any other."""
        return next((name for name in GOLD_COLUMNS if self.expression(name).strip("` ") == column), "")

    def types(self, client: Client, parameters: dict[str, Any], table: str, found: Mapping[str, str]) -> dict[str, str]:
        """The types of the mapped columns. `found` are the types of gold's own columns.

        A GoldError names every entry that ClickHouse does not take, with ClickHouse's words.
        """
        types, wrong = {}, []
        for name in self.columns:
            query = sql("warehouse/mapped_column").format(expression=self.expression(name), name=_inner(name))
            try:
                types[name] = client.query(query, parameters).result_rows[0][1]
            except DatabaseError as e:
                wrong.append(f"gold.columns.{name}: {self.columns[name]}: {_said(e)}")
        if self.where:
            try:
                client.query(sql("warehouse/mapped_where").format(where=self.where), parameters)
            except DatabaseError as e:
                wrong.append(f"gold.where: {self.where}: {_said(e)}")
        if wrong:
            raise GoldError(unreadable(table, wrong, found))
        return {**types, **dict.fromkeys(self.salts, "String")}


def _inner(name: str) -> str:
    return f"mapped_{name}"


def _said(error: DatabaseError) -> str:
    """ClickHouse's words about an expression, without the query around it."""
    if error.code is None or error.name == "ACCESS_DENIED":
        raise error  # the expression is not to blame
    said = str(error).partition("DB::Exception: ")[2].partition(f" ({error.name})")[0] or str(error)
    without = re.sub(
        r"[,.]? ([Ii]n (scope|query):?|while processing query:) .*?(?=\. Maybe|\.$|$)", "", said, flags=re.DOTALL
    )
    return " ".join(without.split()).rstrip(".")


def _salt(name: str, variable: str) -> Salt:
    if not (value := os.environ.get(variable)):
        raise ConfigurationError(f"{variable} is not set: gold.columns.{name} takes the salt of its hash from there")
    return Salt(value)
