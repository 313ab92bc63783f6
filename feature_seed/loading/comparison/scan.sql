    looked AS (
        SELECT
            *,
            sipHash64(card) AS card_hash,
            sipHash64(customer) AS customer_hash,
            card_hash % {shard_count:UInt16} AS card_shard,
            customer_hash % {shard_count:UInt16} AS customer_shard,
            -- Shards that were loaded by runs of their own may have watermarks of their own.
            {untils:Array(Int64)}[if(length({untils:Array(Int64)}) = 1, 1, card_shard + 1)] AS card_until,
            {untils:Array(Int64)}[if(length({untils:Array(Int64)}) = 1, 1, customer_shard + 1)] AS customer_until,
            micros <= card_until AS of_card,
            micros <= customer_until AS of_customer
        FROM usable
    ),
    scanned AS (
        SELECT
            -- By hash: groups of ids take as long and 200 MB more for 1 M of them.
            uniqExactResampleIf(0, {shard_count:UInt16}, 1)(
                card_hash, card_shard,
                of_card AND ({cards_expire:Int64} = 0 OR micros > card_until - {cards_expire:Int64} * 1000000)
            ) AS cards,
            uniqExactResampleIf(0, {shard_count:UInt16}, 1)(
                customer_hash, customer_shard,
                of_customer
                    AND ({customers_expire:Int64} = 0 OR micros > customer_until - {customers_expire:Int64} * 1000000)
            ) AS customers,
            -- By CRC32, which Python has too: whatever their length, thousands of ids fit into the URL of a request.
            groupUniqArrayIf(card, of_card AND CRC32(card) IN {scanned_cards:Array(UInt32)}) AS known_cards,
            groupUniqArrayIf(customer, of_customer AND CRC32(customer) IN {scanned_customers:Array(UInt32)})
                AS known_customers,
            arraySort(groupArrayIf(
                (card, micros, number, paid, category, latitude, longitude),
                of_card AND card_shard IN {shards:Array(UInt16)} AND intHash64(bitXor(card_hash, sipHash64({run_id:String})))
                    BETWEEN {first_of_cards:UInt64} AND {last_of_cards:UInt64}
            )) AS card_rows,
            arraySort(groupArrayIf(
                (customer, paid, micros),
                of_customer AND customer_shard IN {shards:Array(UInt16)}
                    AND intHash64(bitXor(customer_hash, sipHash64({run_id:String})))
                    BETWEEN {first_of_customers:UInt64} AND {last_of_customers:UInt64}
            )) AS customer_rows
        FROM looked
    )
-- What one scan of gold says of cards and customers: how many each shard has that have not expired, which of the ids
-- scanned in the store are gold's, and the rows of a sample. The run's id is in the hash, so every run samples others.
SELECT
    cards,
    customers,
    known_cards,
    known_customers,
    arrayMap(
        one -> (
            one[1].1,
            length(one),
            one[-1].2,
            arrayMap(row -> (row.2, row.3, row.4, row.5, row.6, row.7), arraySlice(one, -{history_length:UInt16})),
            arrayMap(
                row -> (row.6, row.7),
                arraySlice(arrayFilter(row -> isNotNull(row.6) AND isNotNull(row.7), one), -1)
            ),
            -- Two different rows of one time, id and amount have no order. Two rows of one time and id with different
            -- places leave no place. Such a card is left out, and duplicate_transactions tells of it.
            arrayUniq(arrayMap(row -> (row.2, row.3, row.4), one)) = arrayUniq(one),
            arrayUniq(arrayMap(row -> (row.2, row.3), one))
                = arrayUniq(arrayMap(row -> (row.2, row.3, row.6, row.7), one))
        ),
        arraySplit((row, nth) -> nth = 1, card_rows, arrayEnumerateUniq(arrayMap(row -> row.1, card_rows)))
    ) AS sampled_cards,
    arrayMap(
        one -> (one[1].1, arrayMap(row -> row.2, one), arrayMax(arrayMap(row -> row.3, one))),
        arraySplit((row, nth) -> nth = 1, customer_rows, arrayEnumerateUniq(arrayMap(row -> row.1, customer_rows)))
    ) AS sampled_customers
FROM scanned
