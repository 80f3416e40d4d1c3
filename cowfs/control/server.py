"""The holder's side: a socket next to the image, and a thread for each one that asks."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from cowfs import Store
from cowfs.errors import Error, UsageError

from . import wire
from .holder import Holder

if TYPE_CHECKING:
    from io import BufferedRWPair

_INTERVAL_S = 0.05
"""Shortest time between two messages about the progress of a long work."""

log = logging.getLogger("cowfs.control")


def listen(store: Store, holder: Holder | None = None) -> Server:
    """Let other processes use a store that this one holds for writing, until `close`.

    What they ask is done by `holder`; without one, by the store's own methods.
    """
    return Server(holder or Holder(store))


class Server:
    """Listens for those that ask. The image's lock sees to it that there is one for an image."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self._path = wire.socket_path(holder.store.path)
        self._socket = socket.socket(socket.AF_UNIX)
        os.fchmod(self._socket.fileno(), 0o600)  # what bind makes gets it, at once
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)  # left by a holder that was killed
        with _short(self._path) as path:
            self._socket.bind(path)
        owner = os.stat(holder.store.path)
        if owner.st_uid != os.geteuid():
            os.chown(self._path, owner.st_uid, -1)
        self._inode = os.stat(self._path).st_ino
        self._pausing = False
        self._waiting: list[socket.socket] = []
        """Those that asked after `pause`."""
        self._socket.listen()
        self._conversations: dict[threading.Thread, socket.socket] = {}
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)
        self._thread.start()

    def pause(self) -> None:
        """Answer no new question. Who asks now waits, and with `close` is sent to the image: so
        nobody finds the image held, and nobody there to ask, while the store is closed."""
        self._pausing = True

    def close(self) -> None:
        """Listen no more. The store was closed before."""
        self._pausing = True
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self._path).st_ino == self._inode:  # not that of the next holder already
                os.unlink(self._path)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        for thread, connection in list(self._conversations.items()):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)  # what is being answered still is
            thread.join()
        for connection in self._waiting:
            connection.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            if self._pausing:
                self._waiting.append(connection)
                continue
            thread = threading.Thread(
                target=self._converse, args=(connection,), name="control", daemon=True
            )
            self._conversations[thread] = connection
            thread.start()

    def _converse(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rwb") as stream, contextlib.suppress(OSError):
            try:
                question = wire.receive(stream)
                if question is not None:
                    self._answer(stream, question)
            except ValueError as error:
                log.warning("a question that is none: %s", error)
        self._conversations.pop(threading.current_thread(), None)

    def _answer(self, stream: BufferedRWPair[Any, Any], question: dict[str, Any]) -> None:
        try:
            method = str(question["do"])
            arguments = dict(question["with"])
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{question!r}") from None
        try:
            result = self._do(stream, method, arguments)
        except (Error, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            wire.send(stream, wire.pack_error(error))
        else:
            wire.send(stream, {"result": result})

    def _do(self, stream: BufferedRWPair[Any, Any], method: str, given: dict[str, Any]) -> Any:
        holder = self._holder
        progress = _progress(stream)
        match method, given:
            case "hello", {}:
                return None
            case "names", {}:
                return holder.names()
            case "list", {}:
                return holder.list()
            case "space", {}:
                return holder.space()
            case "scrub", {}:
                return holder.scrub(progress)
            case "check", {}:
                return holder.check(progress)
            case "diff", {"old": str(old), "new": str(new)}:
                for change in holder.diff(old, new):
                    wire.send(stream, {"item": change})
                return None
            case "create", {
                "name": str(name),
                "kind": str(kind),
                "size": size,
                "record_size": record_size,
            }:
                return holder.create(name, kind, size, record_size)
            case "resize", {"name": str(name), "size": int(size)}:
                return holder.resize(name, size)
            case "rename", {"old": str(old), "new": str(new)}:
                return holder.rename(old, new)
            case "snapshot", {"names": list(names)}:
                return holder.snapshot(*map(str, names))
            case "clone", {"snapshot": str(snapshot), "name": str(name)}:
                return holder.clone(snapshot, name)
            case "rollback", {"snapshot": str(snapshot), "keep": keep}:
                return holder.rollback(snapshot, keep)
            case "destroy", {"names": list(names), "recursive": bool(recursive)}:
                return holder.destroy(*map(str, names), recursive=recursive)
            case "mount", {"dataset": str(name), "directory": str(path), "others": bool(others)}:
                return holder.mount(name, path, others)
            case "unmount", {"directory": str(path)}:
                return holder.unmount(path)
            case "wait", {"directory": str(path)}:
                return holder.wait(path)
        raise UsageError(f"who holds the image knows no {method!r}; is it of an older version?")


def _progress(stream: BufferedRWPair[Any, Any]) -> Callable[[int, int], None]:
    """What tells the other side how far a work has come, now and then."""
    told = 0.0

    def tell(done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= _INTERVAL_S:
            told = now
            wire.send(stream, {"progress": [done, total]})

    return tell


@contextlib.contextmanager
def _short(path: str) -> Iterator[str]:
    """Another name for a path, which fits into the 107 bytes of a socket's address."""
    fd = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}/{os.path.basename(path)}"
    finally:
        os.close(fd)
