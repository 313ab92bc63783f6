"""Reading ahead: the warehouse prepares the next blocks while the store takes the last one."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from queue import Full, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class _Item(Generic[T]):
    value: T


@dataclass(frozen=True)
class _End:
    error: BaseException | None = None


@contextmanager
def prefetch(items: Generator[T, None, None], depth: int, interrupt: Callable[[], None]) -> Iterator[Iterator[T]]:
    """Run `items` in a thread of its own, at most `depth` of them ahead.

    An error of `items` ends the consumer's loop with that error. Leaving the block closes `items` and ends the thread;
    `interrupt` ends whatever `items` may be waiting for then.
    """
    ready: Queue[_Item[T] | _End] = Queue(depth)
    left = Event()

    def put(message: _Item[T] | _End) -> bool:
        while not left.is_set():
            try:
                ready.put(message, timeout=_POLL_SECONDS)
            except Full:
                continue
            return True
        return False

    def produce() -> None:
        end = _End()
        try:
            with closing(items):
                for value in items:
                    if not put(_Item(value)):
                        break
        except BaseException as e:  # noqa: BLE001 - handed over whole: the consumer raises it
            end = _End(e)
        put(end)

    def consume() -> Iterator[T]:
        while isinstance(message := ready.get(), _Item):
            yield message.value
        if message.error:
            raise message.error

    thread = Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        yield consume()
    finally:
        left.set()
        interrupt()
        thread.join()
