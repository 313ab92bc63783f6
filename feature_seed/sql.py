"""The loader of SQL and Lua, which lie beside the code that runs them, and the functions that all SQL may use."""

import re
from collections.abc import Mapping
from importlib.resources import files

_PACKAGE = files("feature_seed")

# The functions of the dialect: the parameter, and what a call stands for. Calls are written out before a query is sent.
# Lambdas of an outer WITH would do the same on newer servers; ClickHouse 24.8 does not see them in a relation.
# `json_text`: a JSON string with slashes as they are, whatever the user's profile says, which may be all it may send.
# `bulk`: length and text, as RESP writes every argument. `tagged`: an id as it stands in keys; ClickHouse's format()
# cannot take the braces itself, it stumbles over `{{{}}}`. `millis`: of microseconds, rounded down before 1970 as well.
# `sortable`: an Int64 as eight bytes in the same order, and `unsorted` back. `ordinal`: the bits of a double as an
# Int64 in the same order, and back.
_DIALECT = {
    "json_text": (
        "text",
        r"if(getSetting('output_format_json_escape_forward_slashes'), "
        r"replaceAll(toJSONString(text), '\\/', '/'), toJSONString(text))",
    ),
    "bulk": ("text", r"concat('$', toString(length(text)), '\r\n', text, '\r\n')"),
    "tagged": ("id", "if({key_tags:Bool}, concat('{', id, '}'), id)"),
    "shard_of": ("id", "toUInt16(sipHash64(id) % {shard_count:UInt16})"),
    "millis": ("micros", "intDiv(micros - positiveModulo(micros, 1000), 1000)"),
    "sortable": (
        "number",
        "reverse(reinterpretAsFixedString(bitXor(toUInt64(number), bitShiftLeft(1::UInt64, 63))))",
    ),
    "unsorted": ("bytes", "toInt64(bitXor(reinterpretAsUInt64(reverse(bytes)), bitShiftLeft(1::UInt64, 63)))"),
    "ordinal": ("bits", "if(bits < 0, bitXor(bits, 9223372036854775807), bits)"),
}

# Texts and comments, in which parentheses and names mean nothing; names; every other character by itself.
_TOKEN = re.compile(r"'(?:[^'\\]|\\.)*'|--[^\n]*|\w+|.", re.DOTALL)


def sql(name: str) -> str:
    """The text of `{name}.sql`, where `name` begins with the wing: `warehouse/gold`."""
    return (_PACKAGE / f"{name}.sql").read_text()


def lua(name: str) -> str:
    """The text of `{name}.lua`, likewise."""
    return (_PACKAGE / f"{name}.lua").read_text()


def over(relations: Mapping[str, str], select: str) -> str:
    """A query over named relations, each of which may read the ones before it; the dialect is written out."""
    definitions = ",\n".join(f"{name} AS (\n{text})" for name, text in relations.items())
    return written_out(f"WITH {definitions}\n{select}")


def is_closed(expression: str) -> bool:
    """Whether every parenthesis and quote that an expression opens is closed again."""
    depth = 0
    for token in _TOKEN.findall(expression):
        depth += (token == "(") - (token == ")")
        if depth < 0 or token == "'":
            return False
    return not depth


def written_out(text: str) -> str:
    """SQL with every call of the dialect's functions replaced by what it stands for, innermost calls first."""
    levels: list[list[str]] = [[]]  # the tokens so far, for each parenthesis that is open
    for token in _TOKEN.findall(text):
        if token == "(":
            levels.append([])
        elif token == ")":
            argument = "".join(levels.pop())
            name = levels[-1].pop() if levels[-1] else ""
            levels[-1].append(_call(name, argument) if name in _DIALECT else f"{name}({argument})")
        else:
            levels[-1].append(token)
    (whole,) = levels
    return "".join(whole)


def _call(name: str, argument: str) -> str:
    parameter, body = _DIALECT[name]
    return "".join(f"({argument})" if token == parameter else token for token in _TOKEN.findall(body))
