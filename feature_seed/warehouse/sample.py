"""The generated sample: the gold that is seeded if no other is named."""

import os
from pathlib import Path

from clickhouse_connect.driver.client import Client

from feature_seed.sql import sql


def sample_gold(client: Client, home: Path) -> Path:
    """Path of the sample as Parquet under `home`, written there on first use by embedded ClickHouse."""
    sample = home.resolve() / "sample_gold.parquet"
    if not sample.exists():
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = sample.with_suffix(f".{os.getpid()}.parquet")  # renamed when whole: several processes may start at once
        select = sql("warehouse/sample")
        client.command(
            "INSERT INTO FUNCTION file({draft:String}, 'Parquet') SELECT * EXCEPT (unlocated) FROM (" + select + ")",
            parameters={"draft": str(draft)},
        )
        draft.rename(sample)
    return sample
