"""Prefetch: the warehouse prepares the next blocks while the store takes the last one."""

import ctypes
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from threading import Condition, Thread
from typing import Generic, TypeVar

T = TypeVar("T")


# However large an item is, it waits for less than a source bears.
_MAX_WAIT_SECONDS = 10.0

# How long a consumer that waits does nothing else. Redis takes a connection for idle after a second at the soonest.
_IDLE_SECONDS = 0.4


class _Queue(Generic[T]):
    """Items in between two threads, their sizes adding up to `capacity`, or one larger item; an error ends them.

    With `min_rate`, none waits for room longer than its size takes at so much a second.
    """

    def __init__(self, size: Callable[[T], int], capacity: int, min_rate: int | None) -> None:
        self._size = size
        self._capacity = capacity
        self._min_rate = min_rate
        self._items: deque[T] = deque()
        self._held = 0
        self._ended = False
        self._error: BaseException | None = None
        self._changed = Condition()

    def put(self, item: T | None) -> bool:
        """Wait until there is room, for None as long as it takes; False when nobody takes items any more."""
        size = 0 if item is None else self._size(item)
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended or not self._held or self._held + size <= self._capacity,
                min(size / self._min_rate, _MAX_WAIT_SECONDS) if size and self._min_rate else None,
            )
            if item is not None and not self._ended:
                self._items.append(item)
                self._held += size
                self._changed.notify()
            return not self._ended

    def end(self, error: BaseException | None = None) -> None:
        with self._changed:
            self._ended, self._error = True, self._error or error
            self._changed.notify()

    def take(self, meanwhile: Callable[[], None]) -> Iterator[T]:
        """All items until the end; `meanwhile` is called now and then while there is none.

        Raises the error that it ended with.
        """
        while True:
            with self._changed:
                item = None
                if self._changed.wait_for(lambda: self._items or self._ended, _IDLE_SECONDS):
                    if not self._items:
                        break
                    item = self._items.popleft()
                    self._held -= self._size(item)
                    self._changed.notify()
            if item is None:
                meanwhile()
            else:
                yield item
        if self._error:
            raise self._error


@contextmanager
def prefetch(
    items: Generator[T | None, None, None],
    size: Callable[[T], int],
    capacity: int,
    interrupt: Callable[[], None],
    min_rate: int | None,
    meanwhile: Callable[[], None],
) -> Iterator[Iterator[T]]:
    """Run `items` in a thread of its own, so far ahead that the sizes of those not yet taken add up to `capacity`.

    A source that bears no long pause is read at `min_rate` sizes per second at least. It may then go beyond `capacity`
    up to its next None, where it may pause. An error of `items` ends the consumer's loop with that error. While the
    consumer waits for an item, `meanwhile` is called in its thread. Leaving the block closes `items` and ends the
    thread; `interrupt` ends whatever `items` may be waiting for then.
    """
    queue: _Queue[T] = _Queue(size, capacity, min_rate)

    def produce() -> None:
        error = None
        try:
            with closing(items):
                for item in items:
                    if not queue.put(item):
                        break
        except BaseException as e:  # noqa: BLE001 - handed over whole: the consumer raises it
            error = e
        queue.end(error)

    thread = Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        yield queue.take(meanwhile)
    finally:
        queue.end()
        interrupt()
        thread.join()
        _trim_heap()


def _trim_heap() -> None:
    """Return what the thread's items took to the machine, some 40 MB of it, where the C library is glibc.

    It has a heap for each thread, and by itself returns the end of one. There the last of what crossed over may be
    kept, some hundred bytes that the other thread has freed into a cache of its own.
    """
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
