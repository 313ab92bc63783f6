"""The dialect that the SQL is written in: calls of its functions are written out before ClickHouse sees them."""

import struct
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from feature_seed.sql import over, written_out


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("shard_of(card_id)", "toUInt16(sipHash64((card_id)) % {shard_count:UInt16})"),
        ("shard_of(lower(trim(id)))", "toUInt16(sipHash64((lower(trim(id)))) % {shard_count:UInt16})"),
        ("f(tagged(id), 2)", "f(if({key_tags:Bool}, concat('{', (id), '}'), (id)), 2)"),
        ("ordinal(x)", "if((x) < 0, bitXor((x), 9223372036854775807), (x))"),
        ("millis(ordinal(x))", "intDiv((if((x) < 0, bitXor((x), 9223372036854775807), (x))) - positiveModulo("
         "(if((x) < 0, bitXor((x), 9223372036854775807), (x))), 1000), 1000)"),
    ],
)  # fmt: skip
def test_calls_are_written_out(text: str, written: str) -> None:
    """An argument is put in parentheses wherever the parameter stands, and is itself written out first."""
    assert written_out(text) == written


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 'bulk(1) it''s \\' bulk(2)'",
        "SELECT 1 -- bulk(1), of ClickHouse's\n, 2",
        "SELECT in_bulk(1), bulk_of(2), bulk + 3, (4), bulk",
        "SELECT ')', '(', 1 IN (2, 3) -- :)\n",
        "",
    ],
)
def test_all_else_is_left_as_it_is(text: str) -> None:
    """A name in a text, in a comment, in another name or without an argument is no call."""
    assert written_out(text) == text


def test_a_text_in_an_argument_is_left_as_it_is(chdb: Client) -> None:
    """A text that holds the parameter's name and a parenthesis is put in whole."""
    query = "SELECT " + written_out("bulk('text)')")
    assert chdb.query(query).result_rows == [("$5\r\ntext)\r\n",)]


def test_relations_may_use_the_dialect(chdb: Client) -> None:
    """A relation calls the dialect, and one that reads it does too."""
    query = over({"one": "SELECT bulk('a') AS x", "two": "SELECT bulk(x) AS y FROM one"}, "SELECT bulk(y) FROM two")
    assert chdb.query(query).result_rows == [("$13\r\n$7\r\n$1\r\na\r\n\r\n\r\n",)]


# As the wire protocol and IEEE 754 have it.
NUMBERS = [-(2**63), -(2**62) - 1, -1001, -1000, -1, 0, 1, 999, 2**63 - 1]


@pytest.mark.parametrize("number", NUMBERS)
def test_what_the_functions_mean(chdb: Client, number: int) -> None:
    """`sortable` is big-endian with the sign bit turned over, `unsorted` its inverse, `millis` rounds down."""
    calls = ["hex(sortable(n))", "unsorted(sortable(n))", "millis(n)"]
    query = "SELECT " + ", ".join(f"({written_out(call)}) AS c{i}" for i, call in enumerate(calls))
    (found,) = chdb.query(f"{query} FROM (SELECT {{n:Int64}} AS n)", parameters={"n": number}).result_rows
    assert found[:2] == (struct.pack(">Q", number + 2**63).hex().upper(), number)
    if number > -(2**62):  # no time is so far from 1970 that the remainder overflows
        assert found[2] == number // 1000


def test_ordinal_has_the_order_of_doubles(chdb: Client) -> None:
    """Sorted by their ordinals, doubles are in the order of their values; an ordinal's ordinal is the double's bits."""
    values = [-1e300, -1.5, -5e-324, 0.0, 5e-324, 0.1, 1e100]
    call = written_out("ordinal(reinterpretAsInt64(v))"), written_out("ordinal(ordinal(reinterpretAsInt64(v)))")
    rows: Any = chdb.query(f"SELECT v, {call[0]} AS o, {call[1]} FROM (SELECT arrayJoin({values}) AS v) ORDER BY o")
    assert [(value, bits) for value, _, bits in rows.result_rows] == [
        (value, struct.unpack("<q", struct.pack("<d", value))[0]) for value in values
    ]
