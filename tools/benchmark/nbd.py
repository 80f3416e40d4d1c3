"""Volumes over NBD, beside qemu-nbd with a qcow2 image: the same fio jobs on both."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import cowfs
from benchmark.measure import Sample, elapsed, warm
from benchmark.report import Figure, Goal, Race
from cowfs.limits import VOLUME_RECORD_SIZE
from cowfs.serve.exports import Exports
from cowfs.serve.server import Server, listen_unix

T = TypeVar("T")
KIB = 1024
RECORD = "4K"
"""What suits disks; the default is DEFAULT."""
DEFAULT = f"{VOLUME_RECORD_SIZE // KIB}K"

NOTES = [
    f"fio's nbd engine at depth 16 over a Unix socket; records of {RECORD}, and of {DEFAULT}, as "
    "they are by default; no flushes, so that either server may keep what is written in memory "
    "(qemu-nbd: --cache=writeback). fio's bytes shrink by 6%: no record of these sizes is worth "
    "compressing.",
]

WARM = 4
"""Volumes whose bytes are used as memory before each job (`measure.warm`)."""
SNAPSHOTS = 20
SNAPSHOT_MS = 10.0


@dataclass(frozen=True)
class Job:
    """What fio does, and how much of qemu-nbd's rate is wanted; in this order, as those that read
    need what others wrote."""

    title: str
    mode: str
    block: int
    seconds: int
    """0: once through the volume."""
    at_least: float

    @property
    def words(self) -> list[str]:
        timed = ["--time_based", f"--runtime={self.seconds}"] if self.seconds else []
        return [f"--rw={self.mode}", f"--bs={self.block}", *timed]


JOBS = (
    Job("128 KiB write, in order", "write", 128 * KIB, 0, 0.9),
    Job("128 KiB read, in order", "read", 128 * KIB, 0, 0.9),
    Job("4 KiB write, at random", "randwrite", 4 * KIB, 3, 0.7),
    Job("4 KiB read, at random", "randread", 4 * KIB, 3, 0.7),
)


def fio(uri: str, size: int, words: list[str]) -> subprocess.Popen[str]:
    """A job at depth 16; what it prints is JSON."""
    return subprocess.Popen(
        [
            "fio", "--name=bench", "--ioengine=nbd", f"--uri={uri}", "--iodepth=16",
            f"--size={size}", "--output-format=json", *words,
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def seconds_for_each(uri: str, size: int, job: Job) -> float:
    """Seconds of one operation, begun when nothing that was written before waits for the disk."""
    os.sync()
    printed, _ = fio(uri, size, job.words).communicate()
    found = json.loads(printed[printed.index("{") :])["jobs"][0]
    return 1 / float(found["write" if "write" in job.mode else "read"]["iops"])


@contextmanager
def serve_cowfs(directory: Path, size: int, record: str = RECORD) -> Iterator[str]:
    image = directory / "bench.cow"
    program = Path(sys.executable).with_name("cowfs")
    subprocess.run([program, "mkfs", image], check=True)
    words = ["--kind", "volume", "--size", str(size), "--record-size", record]
    subprocess.run([program, "create", image, "disk", *words], check=True)
    server = subprocess.Popen([program, "serve", image], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    yield server.stdout.readline().strip()
    server.terminate()
    server.communicate()
    image.unlink()


@contextmanager
def serve_qemu(directory: Path, size: int) -> Iterator[str]:
    image, path = directory / "bench.qcow2", directory / "qemu.sock"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, str(size)], check=True)
    # It forks once it listens; told to serve for good, it has to be ended by its pid.
    pid = directory / "qemu.pid"
    subprocess.run(
        [
            "qemu-nbd", "--fork", "--persistent", f"--pid-file={pid}", "--format=qcow2",
            "--cache=writeback", "--export-name=disk", f"--socket={path}", image,
        ],
        check=True,
    )  # fmt: skip
    yield f"nbd+unix:///disk?socket={quote(str(path))}"
    subprocess.run(["kill", pid.read_text().strip()], check=True)
    image.unlink()


Serve = Callable[[Path, int], AbstractContextManager[str]]


def race(size: int, rounds: int, directory: Path, progress: Callable[[str], None]) -> list[Race]:
    servers: dict[str, Serve] = {
        "qemu-nbd": serve_qemu,
        "cowfs": serve_cowfs,
        f"cowfs, {DEFAULT}": partial(serve_cowfs, record=DEFAULT),
    }
    spent: dict[tuple[str, str], list[float]] = {}
    for number in range(1, rounds + 1):
        for name, serve in servers.items():
            with serve(directory, size) as uri:
                for job in JOBS:
                    progress(f"round {number} of {rounds}: {job.title}: {name}")
                    warm(directory / "warm", WARM * size)
                    found = seconds_for_each(uri, size, job)
                    spent.setdefault((job.title, name), []).append(found)
    return [
        Race(
            workload=job.title,
            operations=job.block if job.seconds == 0 else 1,
            seconds={name: Sample(tuple(spent[job.title, name])) for name in servers},
            goals=(Goal("qemu-nbd", job.at_least),),
            unit="B" if job.seconds == 0 else "",
        )
        for job in JOBS
    ]


class Background:
    """A server in a thread of this process, as live control would use it."""

    def __init__(self, store: cowfs.Store, listener: socket.socket) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.exports, self._server = self._call(self._start(store, listener))

    async def _start(self, store: cowfs.Store, listener: socket.socket) -> tuple[Exports, Server]:
        exports = Exports(store, ["disk"])
        server = Server(exports, listener)
        await server.start()
        return exports, server

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        self._call(self._server.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


def snapshots(size: int, directory: Path, progress: Callable[[str], None]) -> Figure:
    """How long snapshots take while clients write at random places."""
    progress("snapshots while serving")
    path = directory / "snapshots.sock"
    with cowfs.open(directory / "snapshots.cow", "n") as store, listen_unix(str(path)) as listener:
        store.create("disk", "volume", size, 4096)
        background = Background(store, listener)
        uri = f"nbd+unix:///disk?socket={quote(str(path))}"
        words = ["--rw=randwrite", "--bs=4k", "--time_based", "--runtime=60"]
        load = fio(uri, size, words)
        while store.txid < 20:  # until the load is there
            background.exports.settle()

        def snapshot(name: str) -> None:
            background.exports.settle()
            store.snapshot(name)

        spent = [elapsed(snapshot, f"disk@{number}") * 1000 for number in range(SNAPSHOTS)]
        load.terminate()
        load.communicate()
        background.close()
    return Figure(
        f"snapshot of a volume that is being written to, median of {SNAPSHOTS}",
        Sample(tuple(spent)),
        "ms",
        SNAPSHOT_MS,
    )
