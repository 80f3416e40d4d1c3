"""The server as a whole: listening, one connection after the other, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
import stat
import sys
from collections.abc import Callable, Sequence

from cowfs import Store
from cowfs.errors import BusyError, KindError, NotFoundError, UsageError
from cowfs.signals import ending_signals

from .connection import Connection
from .exports import Exports

LOOPBACK = "127.0.0.1"
_GRACE_S = 5
"""How long a client that reads nothing may hold up the end."""
_SWITCH_S = 0.0005
"""Longest time for which one thread of this program keeps the interpreter from others: the loop
has small things to do while a commit has large ones."""

log = logging.getLogger("cowfs.serve")


def listen_unix(path: str) -> socket.socket:
    """A socket at a path, for its owner alone; one left by a server that was killed is replaced.

    Raises BusyError where somebody listens there, UsageError where something else is.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise UsageError(f"{path}: exists and is no socket; name another with --socket")
        if _somebody_listens(path):
            raise BusyError(f"{path}: another server listens there; name another with --socket")
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        os.fchmod(listener.fileno(), 0o600)  # bind makes the file with these permissions
        listener.bind(path)
    except OSError as error:
        listener.close()
        if error.errno is None:  # longer than the address of a socket can be
            message = f"{path}: too long for the path of a socket; name another with --socket"
            raise UsageError(message) from None
        raise OSError(error.errno, error.strerror, path) from None
    listener.listen()
    return listener


def _somebody_listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
    return True


def listen_tcp(port: int) -> socket.socket:
    """A socket at a port of this machine, for programs on this machine."""
    listener = socket.socket(socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise BusyError(f"port {port}: another program listens there; choose another") from None
        raise
    listener.listen()
    return listener


def tls_context(certificate: str, key: str, authority: str | None) -> ssl.SSLContext:
    """What TLS needs; with an `authority`, clients have to show a certificate of it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    files = list(filter(None, (certificate, key, authority)))
    for path in files:
        with open(path, "rb"):
            pass  # ssl does not say which one is missing
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
        if authority is not None:
            context.load_verify_locations(authority)
            context.verify_mode = ssl.CERT_REQUIRED
    except ssl.SSLError as error:
        names = ", ".join(files)
        raise UsageError(f"{names}: no certificate and key in PEM form: {error.reason}") from None
    return context


def _no_password() -> str:
    raise UsageError("the key has a password; give one without")


def names_to_serve(store: Store, names: Sequence[str]) -> list[str]:
    """What is to be served: these, or all volumes of the store."""
    kinds = {entry.name: entry.kind for entry in store.list()}
    if not names:
        volumes = [name for name, kind in kinds.items() if kind == "volume" and "@" not in name]
        if not volumes:
            raise NotFoundError(
                f"{store.path}: no volume to serve; make one with 'cowfs create --kind volume'"
            )
        return volumes
    for name in names:
        with store.at(name) as view:  # says what there is, where this is not
            if view.kind != "volume":
                raise KindError(f"{name} is of kind {view.kind}; only volumes can be served")
    return list(dict.fromkeys(names))


def serve(
    exports: Exports,
    listener: socket.socket,
    context: ssl.SSLContext | None = None,
    *,
    ready: Callable[[], None],
) -> None:
    """Serve until a signal ends it; all that was written is durable when this returns.

    `ready` is called when clients can connect.
    """

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in ending_signals():
            loop.add_signal_handler(number, stop.set)
        server = Server(exports, listener, context)
        try:
            await server.start()
            ready()
            await stop.wait()
        finally:
            await server.close()

    sys.setswitchinterval(_SWITCH_S)
    asyncio.run(run())


class Server:
    """Serves exports on a socket that listens."""

    def __init__(
        self, exports: Exports, listener: socket.socket, context: ssl.SSLContext | None = None
    ) -> None:
        self._exports = exports
        self._listener = listener
        self._context = context
        self._connections: set[Connection] = set()
        self._nobody = asyncio.Event()
        """Set while there are no connections."""
        self._nobody.set()

    async def start(self) -> None:
        """Take connections."""
        loop = asyncio.get_running_loop()
        create = (
            loop.create_unix_server
            if self._listener.family == socket.AF_UNIX
            else loop.create_server
        )
        self._server: asyncio.Server = await create(self._connect, sock=self._listener)

    def _connect(self) -> Connection:
        connection = Connection(self._exports, self._context, self._forget)
        self._connections.add(connection)
        self._nobody.clear()
        return connection

    def _forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._nobody.set()

    async def close(self) -> None:
        """Answer what was asked, end all connections, and make everything durable."""
        self._server.close()
        for connection in list(self._connections):
            connection.end()
        try:
            await asyncio.wait_for(self._nobody.wait(), _GRACE_S)
        except TimeoutError:
            for connection in list(self._connections):
                connection.abort()
        await self._exports.close()
