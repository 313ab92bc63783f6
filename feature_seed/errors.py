"""Everything that feature_seed raises on purpose.

FeatureSeedError
├── ConfigurationError   the environment is incomplete or has a value that cannot be used
├── ReadinessError       warm_start was asked for before every shard was seeded from one gold version
├── WarehouseError       ClickHouse cannot be reached, refuses, or stops in mid-stream
│   └── GoldError        the gold table is missing, empty or has the wrong columns
└── StoreError           Redis cannot be reached, refuses a command or loses the connection
"""


class FeatureSeedError(Exception):
    """Base of them all; its text says what is wrong and what to do."""


class ConfigurationError(FeatureSeedError):
    """A variable is missing or has a value that cannot be used."""


class WarehouseError(FeatureSeedError):
    """ClickHouse cannot be reached, refuses a query, or stops in mid-stream."""


class GoldError(WarehouseError):
    """The gold table is missing, empty or has the wrong columns."""


class StoreError(FeatureSeedError):
    """Redis cannot be reached, refuses a command, or loses the connection."""


class ReadinessError(FeatureSeedError):
    """Not every shard has been seeded from one and the same gold version."""
