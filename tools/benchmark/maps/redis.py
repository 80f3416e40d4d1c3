"""Redis: a server of its own on a socket in the directory; a snapshot is BGSAVE.

The child that saves is slowed down, so that it is still there when every key was rewritten: what a
slow disk does, or a larger map.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from redis import Redis
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as NoConnection
from redis.retry import Retry

from benchmark.maps.base import ChangingMap, Pair, Usage, memory_of

SAVE_DELAY = 1_000
"""Microseconds that the child spends on each key."""
IN_PIPELINE = 1_000


class RedisMap(ChangingMap):
    name = "redis"

    def __init__(self, directory: Path) -> None:
        # The path of a socket has at most 107 bytes, which that of the directory may exceed.
        self._place = tempfile.TemporaryDirectory(prefix="redis-")
        socket = Path(self._place.name) / "redis.sock"
        place = ("--port", "0", "--unixsocket", socket, "--dir", directory)
        saving = ("--save", "", "--appendonly", "no", "--rdb-key-save-delay", str(SAVE_DELAY))
        self._server = subprocess.Popen(
            ["redis-server", *place, *saving], stdout=subprocess.DEVNULL
        )
        patience = Retry(ConstantBackoff(0.05), 200, supported_errors=(NoConnection,))
        self._writer = Redis(unix_socket_path=str(socket), retry=patience)
        self._other = Redis(unix_socket_path=str(socket), retry=patience)
        self._writer.ping()
        self._memory = 0

    @classmethod
    def describe(cls) -> str:
        words = subprocess.run(
            ["redis-server", "--version"], check=True, stdout=subprocess.PIPE, text=True
        ).stdout.split()
        version = next(word.removeprefix("v=") for word in words if word.startswith("v="))
        return f"Redis {version}, on a Unix socket, no append-only file"

    @classmethod
    def unavailable(cls) -> str | None:
        if shutil.which("redis-server") is None:
            return "redis-server not found: install Debian's redis-server"
        return None

    def load(self, pairs: Iterable[Pair]) -> None:
        pipe = self._writer.pipeline(transaction=False)
        for number, (key, value) in enumerate(pairs, 1):
            pipe.set(key, value)
            if number % IN_PIPELINE == 0:
                pipe.execute()
        pipe.execute()

    def put(self, key: bytes, value: bytes) -> None:
        self._writer.set(key, value)

    def prepare(self) -> None:
        self._memory = memory_of(self._server.pid, "Rss")

    def snapshot(self) -> None:
        self._other.bgsave()

    def usage(self) -> Usage:
        """What the child does not share with the server any more, and what the server grew."""
        children = Path(f"/proc/{self._server.pid}/task/{self._server.pid}/children").read_text()
        if not children.split():
            raise RuntimeError("BGSAVE ended before every key was rewritten")
        copied = memory_of(children.split()[0], "Private_Dirty", "Private_Clean")
        grown = memory_of(self._server.pid, "Rss") - self._memory
        return Usage(copied + max(0, grown), 0, 0)

    def close(self) -> None:
        self._writer.close()
        self._other.close()
        self._server.terminate()
        self._server.wait()
        self._place.cleanup()


MAP = RedisMap
