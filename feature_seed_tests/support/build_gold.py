"""Put the generated sample into the gold table of the server that CLICKHOUSE_HOST names, as an ETL would."""

import os

import clickhouse_connect

from feature_seed.sql import sql


def main() -> None:
    client = clickhouse_connect.get_client(
        host=os.environ["CLICKHOUSE_HOST"],
        username=os.environ.get("CLICKHOUSE_USER"),
        password=os.environ.get("CLICKHOUSE_PASSWORD", ""),
    )
    client.command(
        "CREATE OR REPLACE TABLE fact_transactions_gold ENGINE = MergeTree ORDER BY card_id AS "
        f"SELECT * EXCEPT (unlocated) FROM ({sql('warehouse/sample')})"
    )


if __name__ == "__main__":
    main()
