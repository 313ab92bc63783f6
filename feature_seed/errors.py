"""Every error that feature_seed raises on purpose. Those that end in UnavailableError are transient."""

# Ids may be of any length; a message must stay readable.
_SHOWN_CHARACTERS = 200


def printable(key: bytes) -> str:
    """A key as messages show it: escapes for what cannot be printed, and cut when it is long."""
    text = key.decode(errors="backslashreplace")
    text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}… of {len(key):,} bytes"


class FeatureSeedError(Exception):
    """Base of them all; its text says what is wrong and what to do."""


class ConfigurationError(FeatureSeedError):
    """A variable is missing or has a value that cannot be used."""


class WarehouseError(FeatureSeedError):
    """ClickHouse refuses a query, or ends its answer early."""


class WarehouseUnavailableError(WarehouseError):
    """ClickHouse cannot be reached or is overloaded. A later attempt may succeed."""


class GoldError(WarehouseError):
    """The gold table is missing, empty, has the wrong columns or was rebuilt while it was read."""


class StoreError(FeatureSeedError):
    """Redis is not fit to be seeded, or refuses a command."""


class StoreUnavailableError(StoreError):
    """Redis cannot be reached, is starting, or lost the connection. A later attempt may succeed."""


class CheckFailedError(FeatureSeedError):
    """Checks that block have failed; the text has what each of them found, the first cause first."""


class ReadinessError(FeatureSeedError):
    """Not every shard has been seeded from one and the same gold version."""
