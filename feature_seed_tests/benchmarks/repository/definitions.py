# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""What feast is told of the features, read in its own environment: a view of cards and one of customers."""

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64, String

card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING)
customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)

card_view = FeatureView(
    name="card",
    entities=[card],
    schema=[
        Field(name="history", dtype=String),
        Field(name="lat", dtype=Float64),
        Field(name="lon", dtype=Float64),
        Field(name="last_ts", dtype=Float64),
        Field(name="seq", dtype=Int64),
    ],
    source=FileSource(path="card.parquet", timestamp_field="event_timestamp"),
)

customer_view = FeatureView(
    name="customer",
    entities=[customer],
    schema=[
        Field(name="count", dtype=Int64),
        Field(name="mean", dtype=Float64),
        Field(name="M2", dtype=Float64),
    ],
    source=FileSource(path="customer.parquet", timestamp_field="event_timestamp"),
)
