"""The loader of SQL and Lua, which lie beside the code that runs them, and the functions that all SQL may use."""

from collections.abc import Mapping
from importlib.resources import files

_PACKAGE = files("feature_seed")

# Lambdas are inlined where they are used: no call per value.
# `bulk`: length and text, as RESP writes every argument. `tagged`: an id as it stands in keys; ClickHouse's format()
# cannot take the braces itself, it stumbles over `{{{}}}`. `millis`: of microseconds, rounded down before 1970 as well.
# `sortable`: an Int64 as eight bytes in the same order, and `unsorted` back. `ordinal`: the bits of a double as an
# Int64 in the same order, and back.
_DIALECT = r"""
    (text -> concat('$', toString(length(text)), '\r\n', text, '\r\n')) AS bulk,
    (id -> if({key_tags:Bool}, concat('{', id, '}'), id)) AS tagged,
    (id -> toUInt16(sipHash64(id) % {shard_count:UInt16})) AS shard_of,
    (micros -> intDiv(micros - positiveModulo(micros, 1000), 1000)) AS millis,
    (number -> reverse(reinterpretAsFixedString(bitXor(toUInt64(number), bitShiftLeft(1::UInt64, 63))))) AS sortable,
    (bytes -> toInt64(bitXor(reinterpretAsUInt64(reverse(bytes)), bitShiftLeft(1::UInt64, 63)))) AS unsorted,
    (bits -> if(bits < 0, bitXor(bits, 9223372036854775807), bits)) AS ordinal
"""


def sql(name: str) -> str:
    """The text of `{name}.sql`, where `name` begins with the wing: `warehouse/gold`."""
    return (_PACKAGE / f"{name}.sql").read_text()


def lua(name: str) -> str:
    """The text of `{name}.lua`, likewise."""
    return (_PACKAGE / f"{name}.lua").read_text()


def over(relations: Mapping[str, str], select: str) -> str:
    """A query over named relations, each of which may read the ones before it."""
    definitions = ",\n".join(f"{name} AS (\n{text})" for name, text in relations.items())
    return f"WITH {_DIALECT.strip()},\n{definitions}\n{select}"
