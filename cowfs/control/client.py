"""The side of who asks: `open_store` gives the store itself, or one that asks its holder."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import cowfs
from cowfs import Change, Entry, Report, SpaceReport, Store
from cowfs.errors import BusyError
from cowfs.store import Progress

from . import wire
from .wire import LostError

_ATTEMPTS = 3
"""How often the image is tried: its holder may end just then, and another come before us."""


def open_store(image: str | os.PathLike[str], flag: str = "r") -> Store | RemoteStore:
    """As cowfs.open; where another process holds the image and listens, a store that asks it."""
    for attempt in range(_ATTEMPTS):
        try:
            return cowfs.open(image, flag)
        except BusyError:
            remote = RemoteStore(os.fspath(image))
            try:
                remote.hello()
            except LostError:
                if attempt + 1 < _ATTEMPTS:
                    continue  # it was about to end, and has let go of the image
                raise
            except OSError:
                if attempt + 1 < _ATTEMPTS:
                    continue  # nobody listens, or not any more: it may have ended in between
            else:
                return remote
            raise
    raise AssertionError("unreachable")


class RemoteStore:
    """A store that another process holds: the methods that it can be asked for."""

    def __init__(self, image: str) -> None:
        self.path = image

    def connect(self) -> socket.socket:
        """A connection to the holder. Raises OSError where nobody listens."""
        path = wire.socket_path(self.path)
        connection = socket.socket(socket.AF_UNIX)
        try:
            fd = os.open(path, os.O_PATH)
            try:
                connection.connect(f"/proc/self/fd/{fd}")  # an address has 107 bytes at most
            finally:
                os.close(fd)
        except BaseException:
            connection.close()
            raise
        return connection

    def hello(self) -> None:
        """Return when the holder answers. Raises OSError where nobody listens, LostError where the
        holder ends."""
        self._ask("hello")

    def close(self) -> None:
        """Nothing is held between questions."""

    def __enter__(self) -> RemoteStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __contains__(self, name: object) -> bool:
        return name in list(self)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ask("names"))

    def list(self) -> list[Entry]:
        """As Store.list."""
        entries: list[Entry] = self._ask("list")
        return entries

    def space(self) -> SpaceReport:
        """As Store.space."""
        report: SpaceReport = self._ask("space")
        return report

    def diff(self, old: str, new: str) -> Iterator[Change]:
        """As Store.diff."""
        yield from self._items("diff", old=old, new=new)

    def scrub(self, progress: Progress | None = None) -> Report:
        """As Store.scrub."""
        report: Report = self._ask("scrub", progress)
        return report

    def check(self, progress: Progress | None = None) -> Report:
        """As Store.check."""
        report: Report = self._ask("check", progress)
        return report

    def create(
        self,
        name: str,
        kind: str = "kv",
        size: int | None = None,
        record_size: int | None = None,
    ) -> None:
        """As Store.create."""
        self._ask("create", name=name, kind=kind, size=size, record_size=record_size)

    def resize(self, name: str, size: int) -> None:
        """As Volume.resize."""
        self._ask("resize", name=name, size=size)

    def rename(self, old: str, new: str) -> None:
        """As Store.rename."""
        self._ask("rename", old=old, new=new)

    def snapshot(self, *names: str) -> None:
        """As Store.snapshot."""
        self._ask("snapshot", names=names)

    def clone(self, snapshot: str, name: str) -> None:
        """As Store.clone."""
        self._ask("clone", snapshot=snapshot, name=name)

    def rollback(self, snapshot: str, keep: str | None = None) -> None:
        """As Store.rollback."""
        self._ask("rollback", snapshot=snapshot, keep=keep)

    def destroy(self, *names: str, recursive: bool = False) -> None:
        """As Store.destroy."""
        self._ask("destroy", names=names, recursive=recursive)

    def mount(self, dataset: str, directory: str, allow_other: bool) -> None:
        """Have the holder mount a dataset or snapshot of the image, too."""
        self._ask("mount", dataset=dataset, directory=directory, others=allow_other)

    def unmount(self, directory: str) -> None:
        """Have the holder unmount."""
        self._ask("unmount", directory=directory)

    def wait(self, directory: str) -> None:
        """Return when what the holder mounted at a directory is no longer so, or the holder is
        gone, and with it the mount."""
        with contextlib.suppress(LostError):
            self._ask("wait", directory=directory)

    def _ask(self, method: str, progress: Progress | None = None, /, **given: Any) -> Any:
        result = None
        for message in self._messages(method, given):
            if "progress" in message and progress is not None:
                progress(*message["progress"])
            result = message.get("result")
        return result

    def _items(self, method: str, **given: Any) -> Iterator[Any]:
        for message in self._messages(method, given):
            if "item" in message:
                yield message["item"]

    def _messages(self, method: str, given: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Ask, and give what comes until the end; an error is raised."""
        with self.connect() as connection, connection.makefile("rwb") as stream:
            try:
                wire.send(stream, {"do": method, "with": given})
            except OSError as error:
                raise LostError(f"the holder of the image does not listen: {error}") from None
            for message in wire.messages(stream):
                if "error" in message:
                    raise wire.unpack_error(message)
                yield message
                if "result" in message:
                    return
