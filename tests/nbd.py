"""An NBD server as a program, and a client that says exactly what a test wants, lies included."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

from cowfs.serve import protocol
from cowfs.serve.protocol import Command, Option

REPO = Path(__file__).parents[1]
FLAGS = struct.pack(">I", 3)


class Served:
    """`cowfs serve` with some arguments, once clients can connect."""

    def __init__(self, image: str | Path, *arguments: str | Path) -> None:
        words = ["-v", "serve", image, *arguments]
        self.log_path = Path(f"{image}.log")
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "cowfs.cli", *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | {"PYTHONPATH": str(REPO)},
                text=True,
            )
        assert self.process.stdout is not None
        self.uri = self.process.stdout.readline().strip()
        assert self.uri, self.log

    @property
    def path(self) -> str:
        """Of its socket."""
        return self.uri.partition("?socket=")[2]

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit code after a signal."""
        self.process.send_signal(number)
        self.process.communicate()
        return self.process.returncode


class Client:
    """A connection."""

    def __init__(self, served: Served) -> None:
        if port := re.search(r"127\.0\.0\.1:(\d+)", served.uri):
            self.socket = socket.create_connection(("127.0.0.1", int(port[1])))
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(served.path)
        self.socket.settimeout(60)
        greeting = self.receive(18)
        assert greeting == protocol.greeting()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def receive(self, length: int) -> bytes:
        """So many bytes, or fewer where the server hangs up."""
        data = b""
        while len(data) < length:
            try:
                more = self.socket.recv(length - len(data))
            except ConnectionResetError:
                break
            if not more:
                break
            data += more
        return data

    @property
    def is_hung_up(self) -> bool:
        """Waits until the server hangs up; False if it says something."""
        return self.receive(1) == b""

    def ask(self, option: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        """(kind, data) of each reply to an option, up to the last."""
        self.send(struct.pack(">QII", protocol.OPTION_MAGIC, option, len(data)), data)
        replies: list[tuple[int, bytes]] = []
        while True:
            head = self.receive(20)
            if len(head) < 20:
                return replies
            magic, of, kind, length = struct.unpack(">QIII", head)
            assert (magic, of) == (protocol.OPTION_REPLY_MAGIC, option)
            replies.append((kind, self.receive(length)))
            if kind == protocol.Reply.ACK or kind & 1 << 31:
                return replies

    def go(self, name: str = "") -> Client:
        """On to the transmission, with simple replies."""
        self.send(FLAGS)
        replies = self.ask(Option.GO, info_data(name))
        assert replies[-1][0] == protocol.Reply.ACK, replies
        return self

    def request(
        self, command: int, offset: int = 0, length: int = 0, data: bytes = b"", flags: int = 0
    ) -> int:
        """Send one; the error of the simple reply."""
        self.send(request(command, offset, length or len(data), flags), data)
        magic, error, cookie = struct.unpack(">IIQ", self.receive(16))
        assert (magic, cookie) == (protocol.SIMPLE_REPLY_MAGIC, 7)
        return int(error)

    def read(self, offset: int, length: int) -> bytes:
        assert self.request(Command.READ, offset, length) == 0
        return self.receive(length)


def request(
    command: int, offset: int = 0, length: int = 0, flags: int = 0, cookie: int = 7
) -> bytes:
    return protocol.REQUEST.pack(protocol.REQUEST_MAGIC, flags, command, cookie, offset, length)


def info_data(name: str, *wanted: int) -> bytes:
    encoded = name.encode()
    form = f">I{len(encoded)}sH{len(wanted)}H"
    return struct.pack(form, len(encoded), encoded, len(wanted), *wanted)
