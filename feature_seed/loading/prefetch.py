"""Prefetch: the warehouse prepares the next blocks while the store takes the last one."""

import ctypes
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from threading import Condition
from typing import TypeVar

from feature_seed.store.block import Block

T = TypeVar("T")

# The longest wait of a block, however large it is. A source bears a longer pause.
_MAX_WAIT_SECONDS = 10.0

# How long a consumer waits before it does something else. Redis calls a connection idle after a second at the soonest.
_IDLE_SECONDS = 0.4


class _Queue:
    """Blocks between two threads: `capacity` bytes of them, or one larger block.

    With `min_rate`, no block waits for room longer than it takes at so many bytes a second.
    """

    def __init__(self, capacity: int, min_rate: int | None) -> None:
        self._capacity = capacity
        self._min_rate = min_rate
        self._blocks: deque[Block] = deque()
        self._held = 0
        self._ended = False
        self._changed = Condition()

    def put(self, block: Block | None) -> bool:
        """Wait until there is room, with None as long as it takes. False if nobody takes blocks any more."""
        size = len(block.payload) if block else 0
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended or not self._held or self._held + size <= self._capacity,
                min(size / self._min_rate, _MAX_WAIT_SECONDS) if size and self._min_rate else None,
            )
            if block and not self._ended:
                self._blocks.append(block)
                self._held += size
                self._changed.notify()
            return not self._ended

    def close(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()

    def take(self, meanwhile: Callable[[], None]) -> Iterator[Block]:
        """All blocks until the end. While there is none, `meanwhile` is called now and then."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._blocks or self._ended, _IDLE_SECONDS)
                block = self._blocks.popleft() if self._blocks else None
                if block:
                    self._held -= len(block.payload)
                    self._changed.notify()
                elif self._ended:
                    return
            if block:
                yield block
            else:
                meanwhile()


@contextmanager
def prefetch(
    blocks: Generator[Block | None, None, None],
    capacity: int,
    interrupt: Callable[[], None],
    min_rate: int | None,
    meanwhile: Callable[[], None],
) -> Iterator[Iterator[Block]]:
    """Run `blocks` in a thread of its own, so far ahead that the blocks not yet taken add up to `capacity` bytes.

    A source that bears no long pause is read at `min_rate` bytes per second at least. The source may then go beyond
    `capacity`, up to its next None, where it may pause. An error of `blocks` ends the consumer's loop with that error.
    While the consumer waits for a block, `meanwhile` is called in its thread. Leaving the context closes `blocks` and
    ends the thread. `interrupt` ends whatever `blocks` may be waiting for then.
    """
    queue = _Queue(capacity, min_rate)

    def produce() -> None:
        with closing(queue), closing(blocks):
            for block in blocks:
                if not queue.put(block):
                    break

    def taken() -> Iterator[Block]:
        yield from queue.take(meanwhile)
        producing.result()

    thread = ThreadPoolExecutor(1, "prefetch")
    producing = thread.submit(produce)
    try:
        yield taken()
    finally:
        queue.close()
        interrupt()
        thread.shutdown()
        _trim_heap()


def begun_ahead(
    begins: Sequence[Callable[[], AbstractContextManager[T]]],
) -> Generator[AbstractContextManager[T], None, None]:
    """What each begins, in order. A thread begins the next one while the caller uses the last.

    A caller that leaves waits until the next one is begun.
    """
    following: Future[AbstractContextManager[T]] | None = None
    with ThreadPoolExecutor(1, "begun ahead") as thread:
        try:
            for begin in [*begins, None]:
                begun = following.result() if following else None
                following = thread.submit(begin) if begin else None
                if begun:
                    yield begun
        finally:
            if following and not following.cancel() and not following.exception():
                with following.result():
                    pass  # nobody takes it


def _trim_heap() -> None:
    """Return the memory of the thread's blocks to the machine, some 40 MB, where the C library is glibc.

    glibc has a heap for each thread, and by itself returns only the end of a heap. At the end, some hundred bytes may
    lie that the other thread has freed into a cache of its own.
    """
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
