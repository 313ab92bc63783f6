"""The loader of SQL and Lua, which lie beside the code that runs them, and the functions that all SQL may use."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Set
from importlib.resources import files

_PACKAGE = files("feature_seed")

# The functions of the dialect: the parameter, and what a call stands for. Calls are written out before a query is sent.
# Lambdas of an outer WITH would do the same on newer servers; ClickHouse 24.8 does not see them in a relation.
# `json_text`: a JSON string with slashes as they are, whatever the user's profile says: the user may not change it.
# `bulk`: length and text, as RESP writes every argument. `tagged`: an id as it stands in keys; ClickHouse's format()
# cannot take the braces itself, it stumbles over `{{{}}}`. `hash_of`: the half of an id's hash that shards do not use.
# `millis`: milliseconds of microseconds, rounded down, before 1970 as well.
# `ending`: what the digest of an entity ends in where entities expire, by its `last_ts`.
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
    "hash_of": ("id", "toUInt32(bitShiftRight(sipHash64(id), 32))"),
    "millis": ("micros", "intDiv(micros - positiveModulo(micros, 1000), 1000)"),
    "ending": ("newest", "if({expire:UInt64} = 0, '', concat(':', toString({expire:UInt64}), ':', newest))"),
    "sortable": (
        "number",
        "reverse(reinterpretAsFixedString(bitXor(toUInt64(number), bitShiftLeft(1::UInt64, 63))))",
    ),
    "unsorted": ("bytes", "toInt64(bitXor(reinterpretAsUInt64(reverse(bytes)), bitShiftLeft(1::UInt64, 63)))"),
    "ordinal": ("bits", "if(bits < 0, bitXor(bits, 9223372036854775807), bits)"),
}

# Texts, in which names mean nothing; names that no parenthesis follows.
_WORD = re.compile(r"'(?:[^'\\]|\\.)*'|`([^`]+)`|\b([^\W\d]\w*)\b(?!\s*\()")

# Texts and comments, in which parentheses and names mean nothing; names; every other character by itself.
_TOKEN = re.compile(r"'(?:[^'\\]|\\.)*'|--[^\n]*|\w+|.", re.DOTALL)

# What ClickHouse appends to the name of an aggregate, longest first.
_COMBINATOR = re.compile(r"(OrDefault|Distinct|ForEach|OrNull|Merge|Array|State|Map|If)$")


def sql(name: str) -> str:
    """The text of `{name}.sql`, where `name` begins with the wing: `warehouse/gold`."""
    return (_PACKAGE / f"{name}.sql").read_text()


def lua(name: str) -> str:
    """The text of `{name}.lua`, likewise."""
    return (_PACKAGE / f"{name}.lua").read_text()


def sha_of(script: str) -> str:
    """The name by which EVALSHA calls a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


def over(relations: Mapping[str, str], select: str) -> str:
    """A query over named relations, each of which may read the ones before it; the dialect is written out."""
    definitions = ",\n".join(f"{name} AS (\n{text})" for name, text in relations.items())
    return written_out(f"WITH {definitions}\n{select}")


def without_comments(text: str) -> str:
    """The same SQL."""
    return "".join(token for token in _TOKEN.findall(text) if not token.startswith("--"))


def columns_called(names: Iterable[str]) -> str:
    """The columns of these names that a relation has, for the head of its SELECT; '' without a name."""
    pattern = "|".join(sorted(map(re.escape, names)))
    return f"COLUMNS({literal(f'^({pattern})$')}), " if pattern else ""


def words(expression: str) -> list[str]:
    """The names by which an expression may mean a column, in backticks or not."""
    return [match[1] or match[2] for match in _WORD.finditer(expression) if match[1] or match[2]]


def literal(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


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


def balanced(expression: str) -> bool:
    """Whether every parenthesis, bracket and quote is closed."""
    pairs, opened = {")": "(", "]": "[", "}": "{"}, []
    for token in _TOKEN.findall(expression):
        if token in pairs.values():
            opened.append(token)
        elif token == "'" or (token in pairs and (not opened or opened.pop() != pairs[token])):
            return False
    return not opened


def filtered(expression: str, condition: str, aggregates: Set[str]) -> str:
    """An expression whose aggregates see only the rows for which the condition is true.

    FILTER does that, but not beside the combinator If: there, the condition of If takes it in. `aggregates` are the
    names of ClickHouse's aggregate functions, in lower case.
    """
    levels: list[list[str]] = [[]]  # the tokens so far, for each parenthesis or bracket that is open
    tokens = _TOKEN.findall(expression)
    for token, following in zip(tokens, [*tokens[1:], ""], strict=True):
        if token in ("(", "["):
            levels.append([])
        elif token in (")", "]") and len(levels) > 1:
            inside = levels.pop()
            call = levels[-1].pop() if token == ")" and levels[-1] else ""
            while call.isspace() and levels[-1]:
                call = levels[-1].pop()
            seen = _combinators(call.partition("(")[0], aggregates) if following != "(" else None
            if seen and "If" in seen:
                last = len(inside) - inside[::-1].index(",") if "," in inside else 0
                inside = [*inside[:last], f" {condition} AND (", *inside[last:], ")"]
            after = f" FILTER (WHERE {condition})" if seen is not None and "If" not in seen else ""
            levels[-1].append("".join((call, "(" if token == ")" else "[", *inside, token, after)))
        else:
            levels[-1].append(token)
    return "".join(text for level in levels for text in level)


def _combinators(name: str, aggregates: Set[str]) -> list[str] | None:
    """The combinators in the name of an aggregate; None if the name is not one's."""
    found: list[str] = []
    while name.lower() not in aggregates and (combinator := _COMBINATOR.search(name)):
        found.append(combinator[0])
        name = name[: combinator.start()]
    return found if name.lower() in aggregates else None


def _call(name: str, argument: str) -> str:
    parameter, body = _DIALECT[name]
    return "".join(f"({argument})" if token == parameter else token for token in _TOKEN.findall(body))
