"""Answers that are slow to come or slowly read: a healthy server and a slow store are both borne."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from feature_seed.errors import WarehouseError
from feature_seed.loading import stream
from feature_seed.loading.stream import FeatureStream
from feature_seed.warehouse import failures
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.sockets import Sockets
from feature_seed_tests.support.bank import (
    BROKE_OFF,
    CARDS,
    MAKE,
    at,
    delivered,
    gold_rows,
    history,
    nothing_left,
)
from feature_seed_tests.support.clickhouse_http import ClickHouseServer
from feature_seed_tests.support.gold import write_parquet
from feature_seed_tests.support.patience import wait_for


def test_long_scan_does_not_time_out(bank: ClickHouseServer, gold: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """More time than the server may be silent goes by before the first block, but it says that it is at work."""
    gold.profile()
    monkeypatch.setattr(failures, "ANSWER_SECONDS", 3)
    bank.play("late", seconds=3.5)
    assert delivered(history(gold)) == CARDS


@pytest.fixture(scope="module")
def long(bank: ClickHouseServer) -> Warehouse:
    """40 MB of commands that no compressor makes small: more than the line holds, in blocks of some 160 KB."""
    with at(bank.port).client() as client:
        client.command(MAKE.replace("bank.gold", "bank.long"))
        id_, time_ = "concat(toString(number), hex(randomString(5000)))", "toDateTime64('2026-01-01', 3, 'UTC')"
        client.command(
            f"INSERT INTO bank.long SELECT {id_}, toString(number), 'p', 'food', 1, {time_}, 1, 1 FROM numbers(4000)"
        )
    return at(bank.port, table="long")


def pausing(read: FeatureStream, pause: Callable[[], object]) -> int:
    """How many entities a reader gets that takes a block, and the others after a pause."""
    with read.prefetched(1) as blocks:
        taken = len(next(blocks).keys)
        pause()
        return taken + sum(len(block.keys) for block in blocks)


def test_slow_reader_does_not_time_out(gold: Warehouse, long: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """More comes than the line holds, the store takes nothing for longer than the server may be silent, and goes on."""
    add, opened = Sockets.add, list[socket.socket]()
    monkeypatch.setattr(Sockets, "add", lambda self, one: (opened.append(one), add(self, one)))

    def pause() -> None:
        for one in opened:
            one.settimeout(1)  # only now: a busy server may take longer to begin its answer
        time.sleep(1.5)

    assert pausing(history(long), pause) == 4000
    assert opened


def test_server_bears_a_slow_reader(
    bank: ClickHouseServer, gold: Warehouse, long: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store takes nothing for longer than the server's http_send_timeout. The server would break off, but its
    answer is read on, to its end."""
    long.profile()
    bank.play("impatient", seconds=0.5)
    with monkeypatch.context() as patch, pytest.raises(WarehouseError, match=BROKE_OFF):
        patch.setattr(stream, "READ_BYTES_PER_SECOND", 1)
        pausing(history(long), lambda: wait_for(bank.gave_up, "the server breaks off"))
    bank.play("none")
    monkeypatch.setattr(stream, "READ_BYTES_PER_SECOND", 40_000_000)
    whole = pausing(history(long), lambda: wait_for(bank.ended, "the answer is read to its end"))
    assert whole == 4000


def test_reading_on_ends_with_the_pass(
    bank: ClickHouseServer, gold: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of gold in several passes, the second does not begin before the store has taken the first: memory has a bound."""
    monkeypatch.setattr(stream, "READ_BYTES_PER_SECOND", 10_000_000)
    several = at(bank.port, pass_bytes=80_000)
    several.profile()
    bank.play("none", times=100)
    with history(several).prefetched(1) as blocks:
        next(blocks)
        wait_for(bank.ended, "the first pass is read")
        time.sleep(0.5)
        assert bank.played() == 1
        list(blocks)
    assert bank.played() > 1


def test_embedded_collects_the_next_pass_meanwhile(
    chdb: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: gold in 16 passes, and a store that takes nothing. The second pass is begun, and no third. A reader that
    leaves then leaves no thread behind, and another gets everything."""
    write_parquet(chdb, tmp_path / "gold.parquet", gold_rows())
    read = history(Warehouse(gold_parquet=str(tmp_path / "gold.parquet"), pass_bytes=10_000))
    begin, begun = FeatureStream._begin, list[object]()  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(FeatureStream, "_begin", lambda self, *given: (begun.append(given), begin(self, *given))[1])
    read.warehouse.profile()
    with nothing_left(), read.prefetched(1):
        wait_for(lambda: len(begun) > 1, "the next pass is begun")
    assert len(begun) == 2
    begun.clear()
    assert delivered(read) == CARDS
    assert len(begun) == 16
