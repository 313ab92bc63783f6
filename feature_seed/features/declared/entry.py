"""An entry of the configuration, and the text about a mistake in it."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import dagster as dg
from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails

from feature_seed.sql import balanced

Place = tuple[str | int, ...]

Order = Literal["oldest_first", "newest_first"]


class Entry(dg.Model):
    """Tells every mistake at its place, with the right form. The value is left out: it may be a misplaced salt.

    The right form of a field is its description.
    """

    @model_validator(mode="wrap")
    @classmethod
    def _explained(cls, content: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(content)
        except ValidationError as e:
            if not isinstance(content, Mapping):
                raise  # the entry around it has the right form
            raise invalid({one["loc"]: cls._said(one) for one in e.errors()}) from None

    @classmethod
    def _said(cls, mistake: ErrorDetails) -> str:
        if own := mistake.get("ctx", {}).get("error"):
            return str(own)
        field, name = str(mistake["loc"][0]), mistake["loc"][-1]
        if mistake["type"] == "extra_forbidden":
            return f"{name} is unknown: choose from {', '.join(cls.model_fields)}"
        wrong = "is missing" if mistake["type"] == "missing" else "cannot be read"
        return f"{name} {wrong}: write {cls.model_fields[field].description}"


def invalid(mistakes: Mapping[Place, str]) -> ValidationError:
    """An error of these texts at these places, which Dagster finds in a component's file as well."""
    details = [
        InitErrorDetails(type="value_error", loc=place, input=None, ctx={"error": ValueError(text)})
        for place, text in mistakes.items()
    ]
    return ValidationError.from_exception_data("configuration", details)


def _closed(text: str) -> str:
    if not balanced(text):
        raise ValueError(f"a parenthesis, a bracket or a quote is open in {text}: close it")
    return text


# ClickHouse's: a condition may be empty.
Condition = Annotated[str, AfterValidator(_closed)]
Expression = Annotated[Condition, Field(pattern=r"\S")]
