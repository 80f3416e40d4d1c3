"""Database servers under load on a mount: snapshot, clone, a second server on the clone, rollback.

Each change of the load touches two counters, so a state of one moment is one in which they agree.
What the load had acknowledged before the snapshot is in it; what it began afterwards is not.
"""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from .conftest import Image, Start, made, need, run


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A directory of a short name, for sockets."""
    with tempfile.TemporaryDirectory(prefix="cowfs-", dir="/tmp") as directory:
        yield Path(directory)


class Counters(Protocol):
    """A connection to a server that keeps two counters."""

    def count(self) -> None:
        """Raise both by one, durably."""

    def counts(self) -> tuple[int, int]:
        """Both."""

    def stop(self) -> None:
        """End the server, in order."""


class Load:
    """Counts in a thread as long as the `with` block lasts."""

    def __init__(self, counters: Counters) -> None:
        self.counters = counters
        self.begun = self.done = 0
        self._ending = threading.Event()
        self._progress = threading.Condition()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def wait_for(self, more: int) -> None:
        """Return when so many more changes were acknowledged."""
        with self._progress:
            goal = self.done + more
            self._progress.wait_for(lambda: self.done >= goal or self._failure is not None)

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                self.begun += 1
                self.counters.count()
                with self._progress:
                    self.done += 1
                    self._progress.notify_all()
        except BaseException as error:
            with self._progress:
                self._failure = error
                self._progress.notify_all()


def prove(
    image: Image, mnt: Path, begin: Callable[[Path], Counters], options: tuple[str, ...] = ()
) -> None:
    """Snapshots of a running server are states of one moment, which another server goes on from.

    `options` are those of `cowfs mount`.
    """
    server = begin(mnt)
    with Load(server) as load:
        moments = {}
        for name in ("one", "two", "three"):
            load.wait_for(30)
            before = load.done
            image.cowfs("snapshot", f"files@{name}")
            moments[name] = range(before, load.begun + 1)
            load.wait_for(10)
        image.cowfs("clone", "files@two", "copy")
        (image.directory / "copy").mkdir()
        image.cowfs("mount", "-d", "copy", image.directory / "copy", *options)
        other = begin(image.directory / "copy")
        one, two = other.counts()
        assert one == two and one in moments["two"]
        other.count()
        assert other.counts() == (one + 1, one + 1)
        load.wait_for(10)
        other.stop()
    assert server.counts() == (load.done, load.done)
    server.stop()
    run("fusermount3", "-u", image.directory / "copy")
    image.unmount(mnt)
    image.cowfs("rollback", "files@one")
    server = begin(image.mount("files", "mnt", *options))
    one, two = server.counts()
    assert one == two and one in moments["one"]
    server.count()
    server.stop()


# --- servers of SQL -----------------------------------------------------------------------------


class SQLServer:
    """A server that runs, and one client of it. `lines` is what it said until it was ready."""

    def __init__(self, server: subprocess.Popen[str], ready: str, client: list[str]) -> None:
        assert server.stdout is not None
        self.lines: list[str] = []
        for line in server.stdout:
            self.lines.append(line)
            if ready in line:
                break
        else:
            pytest.fail("the server did not start:\n" + "".join(self.lines))
        self.server = server
        self._reader = threading.Thread(target=server.stdout.read)
        self._reader.start()
        self.client = subprocess.Popen(
            client, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, statements: str) -> tuple[int, int]:
        """What the last of some statements, each with its semicolon, selects."""
        assert self.client.stdin is not None and self.client.stdout is not None
        self.client.stdin.write(statements + "\n")
        self.client.stdin.flush()
        one, two = self.client.stdout.readline().split()
        return int(one), int(two)

    def stop(self) -> None:
        self.client.communicate()
        self.server.terminate()
        self.server.wait()
        self._reader.join()


# --- MariaDB ------------------------------------------------------------------------------------


class MariaDB(SQLServer):
    """mariadbd on a directory, and one client of it."""

    def __init__(self, directory: Path, path: Path, start: Start) -> None:
        mariadbd = need("mariadbd", "mariadb-server")
        client_program = need("mariadb", "mariadb-client")
        fresh = not (directory / "mysql").exists()
        common = ["--no-defaults", f"--datadir={directory}", "--user=root"]
        if fresh:
            run(
                need("mariadb-install-db", "mariadb-server"),
                *common,
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            )
        server = start(
            mariadbd,
            *common,
            f"--socket={path}",
            f"--pid-file={path}.pid",
            "--skip-networking",
            "--innodb-buffer-pool-size=16M",
            "--innodb-log-file-size=8M",
        )
        client = [client_program, "--no-defaults", f"--socket={path}", "-uroot", "-NBn"]
        super().__init__(server, "ready for connections", client)
        if fresh:
            self.ask(
                "CREATE DATABASE d; CREATE TABLE d.a (n INT PRIMARY KEY, t TEXT) ENGINE=InnoDB;"
                "CREATE TABLE d.b LIKE d.a; SELECT 0, 0;"
            )

    def count(self) -> None:
        text = "x" * 500
        self.ask(
            f"BEGIN; INSERT INTO d.a SELECT COUNT(*), '{text}' FROM d.b;"
            f"INSERT INTO d.b SELECT COUNT(*), '{text}' FROM d.b; COMMIT; SELECT 1, 1;"
        )

    def counts(self) -> tuple[int, int]:
        return self.ask("SELECT (SELECT COUNT(*) FROM d.a), (SELECT COUNT(*) FROM d.b);")


def test_mariadb(image: Image, mnt: Path, start: Start, sockets: Path) -> None:
    need("mariadbd", "mariadb-server")

    def begin(directory: Path) -> MariaDB:
        return MariaDB(directory, sockets / directory.name, start)

    prove(image, mnt, begin)


# --- PostgreSQL ---------------------------------------------------------------------------------


def postgres_programs() -> Path:
    """Where Debian puts the programs of the newest PostgreSQL that is installed."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name)
    if not versions:
        pytest.skip("postgresql is not installed")
    return versions[-1]


class PostgreSQL(SQLServer):
    """postgres on the directory `data` in a directory, and one client of it.

    It refuses to be root's, so where root runs the tests it is nobody's.
    """

    def __init__(self, directory: Path, path: Path, start: Start) -> None:
        programs, data = postgres_programs(), directory / "data"
        words: list[str] = []
        uid, gid = os.getuid(), os.getgid()
        if uid == 0:
            nobody = pwd.getpwnam("nobody")
            uid, gid = nobody.pw_uid, nobody.pw_gid
            words = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
        path.mkdir(exist_ok=True)
        os.chown(path, uid, gid)
        fresh = not data.exists()
        if fresh:
            data.mkdir()
            os.chown(data, uid, gid)
            initdb = programs / "initdb"
            options = ["--no-sync", "--no-locale", "--wal-segsize=1", "--auth=trust"]
            run(*words, initdb, *options, "--username=test", "--pgdata", data)
        # It names the server that wrote it, which in a clone is another one, and runs.
        (data / "postmaster.pid").unlink(missing_ok=True)
        server = start(
            *(*words, programs / "postgres", "-D", data, "-k", path),
            *("-c", "listen_addresses=", "-c", "shared_buffers=8MB", "-c", "autovacuum=off"),
        )
        client = f"{programs}/psql -XqtA -h {path} -U test postgres -F".split()
        super().__init__(server, "ready to accept connections", [*client, " "])
        self.recovered = any("not properly shut down" in line for line in self.lines)
        if fresh:
            self.ask(
                "CREATE TABLE a (n INT PRIMARY KEY, t TEXT); CREATE TABLE b (LIKE a); SELECT 0, 0;"
            )

    def count(self) -> None:
        text = "x" * 500
        self.ask(
            f"BEGIN; INSERT INTO a SELECT COUNT(*), '{text}' FROM b;"
            f"INSERT INTO b SELECT COUNT(*), '{text}' FROM b; COMMIT; SELECT 1, 1;"
        )

    def counts(self) -> tuple[int, int]:
        return self.ask("SELECT (SELECT COUNT(*) FROM a), (SELECT COUNT(*) FROM b);")


def test_postgresql(sockets: Path, start: Start) -> None:
    postgres_programs()
    sockets.chmod(0o755)  # what nobody uses cannot be where pytest puts things
    options = ("--allow-other",) if os.getuid() == 0 else ()
    recovered = []

    def begin(directory: Path) -> PostgreSQL:
        server = PostgreSQL(directory, sockets / f"{directory.name}.sockets", start)
        recovered.append(server.recovered)
        return server

    with made(sockets) as image:
        prove(image, image.mount("files", "mnt", *options), begin, options)
    assert recovered == [False, True, True]


# --- Redis --------------------------------------------------------------------------------------


class Redis:
    """redis-server with its append-only file in a directory, and one client of it."""

    def __init__(self, directory: Path, path: Path, start: Start) -> None:
        self.server = start(
            need("redis-server", "redis-server"),
            *("--port", "0", "--unixsocket", path, "--dir", directory),
            *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
        )
        assert self.server.stdout is not None
        lines = []
        for line in self.server.stdout:
            lines.append(line)
            if "ready to accept connections at" in line:
                break
        else:
            pytest.fail("redis-server did not start:\n" + "".join(lines))
        self._reader = threading.Thread(target=self.server.stdout.read)
        self._reader.start()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")

    def ask(self, *commands: str, answers: int) -> list[bytes]:
        self._socket.sendall("".join(f"{command}\r\n" for command in commands).encode())
        return [self._lines.readline() for _ in range(answers)]

    def count(self) -> None:
        value = "x" * 500
        answers = self.ask("MULTI", "INCR a", f"SET text {value}", "INCR b", "EXEC", answers=8)
        assert answers[-1].startswith(b":"), answers

    def counts(self) -> tuple[int, int]:
        lines = self.ask("MGET a b", answers=5)
        one, two = (int(lines[at]) for at in (2, 4))
        return one, two

    def stop(self) -> None:
        self._socket.close()
        self._lines.close()
        self.server.terminate()
        self.server.wait()
        self._reader.join()


def test_redis(image: Image, mnt: Path, start: Start, sockets: Path) -> None:
    need("redis-server", "redis-server")

    def begin(directory: Path) -> Redis:
        return Redis(directory, sockets / directory.name, start)

    prove(image, mnt, begin)


def test_redis_saves_in_the_background_beside_snapshots(
    image: Image, mnt: Path, start: Start, sockets: Path
) -> None:
    server = Redis(mnt, sockets / "redis", start)
    with Load(server) as load:
        load.wait_for(50)
        side = socket.socket(socket.AF_UNIX)
        side.connect(str(sockets / "redis"))
        with side, side.makefile("rb") as lines:
            side.sendall(b"BGSAVE\r\n")
            assert b"saving started" in lines.readline()
            image.cowfs("snapshot", "files@beside")
            saving = True
            while saving:
                load.wait_for(1)
                side.sendall(b"INFO persistence\r\n")
                length = int(lines.readline()[1:])
                info = lines.read(length + 2)
                saving = b"rdb_bgsave_in_progress:1" in info
            assert b"rdb_last_bgsave_status:ok" in info
    server.stop()
    assert run(need("redis-check-rdb", "redis-tools"), mnt / "dump.rdb").count("RDB looks OK") == 1
