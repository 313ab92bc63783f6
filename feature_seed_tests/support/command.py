"""The command `dagster`, in a process that has Dagster loaded already. Else it is like a process of a shell.

    python -m feature_seed_tests.support.command

loads Dagster, which takes seconds, and forks a process for every order on stdin; it prints each one's exit code.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Order:
    """What a process is to do.

    Attributes:
        arguments: of the command.
        log: where it prints to.
        environment: its variables, in addition to those of its parent.
        mishap: Python that is run first; `after_load` and `before_block` are known to it.
    """

    arguments: list[str]
    log: str
    environment: dict[str, str]
    mishap: str = ""


@dataclass(frozen=True)
class Ended:
    """A command that has ended, and what it printed."""

    code: int
    printed: str


class Command:
    """Runs the command, one at a time; `home` is Dagster's."""

    def __init__(self, forks: subprocess.Popen[str], home: Path) -> None:
        self._forks = forks
        self.home = home
        self._log = home / "terminal.txt"

    def run(self, *arguments: str, environment: Mapping[str, str], mishap: str = "") -> Ended:
        self._log.write_bytes(b"")
        order = Order([*arguments], str(self._log), {**environment, "DAGSTER_HOME": str(self.home)}, mishap)
        assert self._forks.stdin and self._forks.stdout
        self._forks.stdin.write(json.dumps(asdict(order)) + "\n")
        self._forks.stdin.flush()
        code = int(self._forks.stdout.readline())
        return Ended(code, self._log.read_text(errors="replace"))


@contextmanager
def dagster_command(home: Path) -> Iterator[Command]:
    """Start the process that forks, with an instance of Dagster in `home`."""
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    command = [sys.executable, "-m", __name__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as forks:
        try:
            yield Command(forks, home)
        finally:
            forks.kill()


def main() -> None:
    import dagster._cli  # noqa: F401 - but not chdb, whose threads a fork would lack

    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            return _run(Order(**json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    return None


def _run(order: Order) -> None:
    """Run the command to the end of the interpreter, with no patience and no pictures."""
    os.environ.update(order.environment)
    for stream, name, mode in ((0, os.devnull, os.O_RDONLY), (1, order.log, os.O_WRONLY), (2, order.log, os.O_WRONLY)):
        os.dup2(os.open(name, mode | os.O_APPEND), stream)

    from dagster._cli import create_dagster_cli

    from feature_seed.graph import retries
    from feature_seed.graph.report import report
    from feature_seed.store import bulk, cluster, lock
    from feature_seed.warehouse import failures

    report.find_spec = lambda _: None
    retries.DELAYS_SECONDS, failures.RETRY_DELAYS = (), ()
    lock.WAIT_SECONDS, bulk.REPLICATION_SECONDS, cluster.FAILOVER_SECONDS = 0.5, 0.5, 0.5
    exec(order.mishap, {"after_load": _after_load, "before_block": _before_block})
    create_dagster_cli()(order.arguments)


def _after_load(happen: Callable[[], object]) -> None:
    """Have something happen once, when the first feature has been loaded."""
    from feature_seed.graph.io_manager import RedisIOManager

    handle_output, left = RedisIOManager.handle_output, [happen]

    def handle_and_happen(manager: RedisIOManager, context: object, obj: object) -> None:
        handle_output(manager, context, obj)  # type: ignore[arg-type]
        while left:
            left.pop()()

    RedisIOManager.handle_output = handle_and_happen  # type: ignore[method-assign]


def _before_block(happen: Callable[[], object]) -> None:
    """Have something happen once, before the second block is written to a cluster."""
    from feature_seed.store.block import Block
    from feature_seed.store.cluster import ClusterConnection

    write, left = ClusterConnection.write, [happen, lambda: None]

    def happen_and_write(connection: ClusterConnection, block: Block) -> None:
        if left:
            left.pop()()
        write(connection, block)

    ClusterConnection.write = happen_and_write  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
