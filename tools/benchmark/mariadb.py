"""What a database notices of snapshots: MariaDB, with its directory on a mount, under load."""

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmark.measure import Sample, elapsed
from benchmark.mount import cowfs, on_cowfs, run
from benchmark.report import Figure

SNAPSHOTS = 10
PROGRAMS = ("mariadbd", "mariadb-install-db", "mariadb")

Ask = Callable[[str], str]
"""Sends statements, each with its semicolon; what the last of them selects."""


def available() -> bool:
    """Whether MariaDB is installed."""
    return all(map(shutil.which, PROGRAMS))


@contextmanager
def server(data: Path) -> Iterator[Ask]:
    """A server on a new directory, and one client of it."""
    common = ["--no-defaults", f"--datadir={data}", "--user=root"]
    run("mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db")
    # A socket's path is short.
    with tempfile.TemporaryDirectory(prefix="cowfs-") as directory:
        socket = f"--socket={directory}/socket"
        command = ["mariadbd", *common, socket, f"--pid-file={directory}/pid", "--skip-networking"]
        output, errors = subprocess.PIPE, subprocess.STDOUT
        with subprocess.Popen(command, stdout=output, stderr=errors, text=True) as process:
            assert process.stdout is not None
            while "ready for connections" not in process.stdout.readline():
                if process.poll() is not None:
                    raise RuntimeError("mariadbd did not start")
            threading.Thread(target=process.stdout.read, daemon=True).start()
            client = ["mariadb", "--no-defaults", socket, "-uroot", "-NBn"]
            with subprocess.Popen(client, stdin=output, stdout=output, text=True) as conversation:
                asking, answers = conversation.stdin, conversation.stdout
                assert asking is not None and answers is not None

                def ask(statements: str) -> str:
                    asking.write(statements + "\n")
                    asking.flush()
                    return answers.readline()

                yield ask
                asking.close()
            process.terminate()


class Load:
    """Transactions of one row, as long as the block lasts; `longest` is in seconds."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.longest = 0.0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        statements = f"INSERT INTO d.t (text) VALUES ('{'x' * 500}'); SELECT 1;"
        while not self._ending.is_set():
            self.longest = max(self.longest, elapsed(self.ask, statements))


def pauses(rounds: int, directory: Path, progress: Callable[[str], None]) -> list[Figure]:
    """The longest transaction while snapshots are taken, and in as long a time without."""
    if not available() or os.geteuid() != 0:
        return []
    longest: dict[bool, list[float]] = {True: [], False: []}
    for number in range(1, rounds + 1):
        progress(f"round {number} of {rounds}: snapshots under MariaDB")
        place = directory / f"mariadb{number}"
        place.mkdir()
        with on_cowfs(place) as mnt, server(mnt / "data") as ask:
            table = "CREATE TABLE d.t (n INT AUTO_INCREMENT KEY, text TEXT)"
            ask(f"CREATE DATABASE d; {table}; SELECT 1;")
            for snapshots in (True, False):
                with Load(ask) as load:
                    for name in range(SNAPSHOTS):
                        if snapshots:
                            cowfs("snapshot", place / "image.cow", f"files@{name}")
                        else:
                            cowfs("list", place / "image.cow")
                longest[snapshots].append(load.longest * 1e3)
        shutil.rmtree(place)
    what = "longest transaction of MariaDB while ten snapshots are taken"
    return [
        Figure(what, Sample(tuple(longest[True])), "ms", at_most=100),
        Figure("the same, the command is ten times `list`", Sample(tuple(longest[False])), "ms"),
    ]
