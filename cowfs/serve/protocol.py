"""The NBD protocol: every number and structure that goes over the wire, declared once.

Pure functions from bytes to values and back; what does not follow the protocol is a ProtocolError.
All integers are big-endian. Names are those of the protocol's document, without its prefix.
"""

from __future__ import annotations

import enum
import errno
import struct
from collections.abc import Iterable
from typing import NamedTuple

from cowfs.errors import Error
from cowfs.limits import KIB, MIB

MAX_PAYLOAD = 32 * MIB
"""Most bytes of one read or write: what clients may take for granted."""
MAX_OPTION = 64 * KIB
"""Most bytes of an option's data: a name, and some hundred queries."""
MAX_NAME = 4 * KIB
"""Longest string in bytes."""


class ProtocolError(Error):
    """A client that does not speak the protocol: its connection ends."""


# --- handshake ----------------------------------------------------------------------------------

GREETING_MAGIC = 0x4E42444D41474943
OPTION_MAGIC = 0x49484156454F5054
OPTION_REPLY_MAGIC = 0x0003E889045565A9

_GREETING = struct.Struct(">QQH")
CLIENT_FLAGS = struct.Struct(">I")
OPTION = struct.Struct(">QII")
_OPTION_REPLY = struct.Struct(">QIII")
_EXPORT = struct.Struct(">QH")
_LENGTH = struct.Struct(">I")
_COUNT = struct.Struct(">H")
_INFO_EXPORT = struct.Struct(">HQH")
_INFO_BLOCK_SIZE = struct.Struct(">HIII")
_CONTEXT = struct.Struct(">I")
_PADDING = bytes(124)


class Handshake(enum.IntFlag):
    """Flags of server and client alike."""

    FIXED_NEWSTYLE = 1
    NO_ZEROES = 2


class Option(enum.IntEnum):
    """What a client may ask for before the transmission."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


class Reply(enum.IntEnum):
    """What the answer to an option is."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = 0x80000001
    ERR_POLICY = 0x80000002
    ERR_INVALID = 0x80000003
    ERR_TLS_REQD = 0x80000005
    ERR_UNKNOWN = 0x80000006


class Info(enum.IntEnum):
    """What can be told about an export."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class Export(enum.IntFlag):
    """What can be done with an export."""

    HAS_FLAGS = 1
    READ_ONLY = 2
    SEND_FLUSH = 4
    SEND_FUA = 8
    SEND_TRIM = 32
    SEND_WRITE_ZEROES = 64
    SEND_DF = 128
    CAN_MULTI_CONN = 256
    SEND_FAST_ZERO = 2048


def greeting() -> bytes:
    """What the server says first."""
    return _GREETING.pack(
        GREETING_MAGIC, OPTION_MAGIC, Handshake.FIXED_NEWSTYLE | Handshake.NO_ZEROES
    )


def unpack_client_flags(data: bytes | memoryview) -> Handshake:
    """The client's answer to the greeting."""
    (flags,) = CLIENT_FLAGS.unpack(data)
    known = int(Handshake.FIXED_NEWSTYLE | Handshake.NO_ZEROES)
    if flags & ~known:
        raise ProtocolError(f"handshake flags {flags:#x}, of which only {known:#x} are known")
    if not flags & Handshake.FIXED_NEWSTYLE:
        raise ProtocolError("a client without fixed newstyle negotiation")
    return Handshake(flags)


def unpack_option(data: bytes | memoryview) -> tuple[int, int]:
    """(option, bytes of its data)."""
    magic, option, length = OPTION.unpack(data)
    if magic != OPTION_MAGIC:
        raise ProtocolError(f"an option that begins with {magic:#018x}")
    if length > MAX_OPTION:
        raise ProtocolError(f"option {option} with {length} bytes of data")
    return option, length


def option_reply(option: int, kind: Reply, data: bytes = b"") -> bytes:
    """An answer to an option; for an error, `data` is a text."""
    return _OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, kind, len(data)) + data


def server_name(name: str) -> bytes:
    """The data of a SERVER reply."""
    encoded = name.encode()
    return _LENGTH.pack(len(encoded)) + encoded


def info_export(size: int, flags: Export) -> bytes:
    """The data of an INFO reply about size and abilities."""
    return _INFO_EXPORT.pack(Info.EXPORT, size, flags)


def info_name(name: str) -> bytes:
    """The data of an INFO reply with the export's own name."""
    return _COUNT.pack(Info.NAME) + name.encode()


def info_block_size(minimum: int, preferred: int, maximum: int) -> bytes:
    """The data of an INFO reply about the lengths of requests."""
    return _INFO_BLOCK_SIZE.pack(Info.BLOCK_SIZE, minimum, preferred, maximum)


def meta_context(number: int, name: str) -> bytes:
    """The data of a META_CONTEXT reply."""
    return _CONTEXT.pack(number) + name.encode()


def export_reply(size: int, flags: Export, handshake: Handshake) -> bytes:
    """The answer to EXPORT_NAME, which has a form of its own."""
    return _EXPORT.pack(size, flags) + (b"" if handshake & Handshake.NO_ZEROES else _PADDING)


class _Fields:
    """Reads the data of an option from front to back; ValueError where it is no such data."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, form: struct.Struct) -> int:
        if self._at + form.size > len(self._data):
            raise ValueError("too short")
        (value,) = form.unpack_from(self._data, self._at)
        self._at += form.size
        return int(value)

    def text(self) -> str:
        length = self.number(_LENGTH)
        if length > MAX_NAME or self._at + length > len(self._data):
            raise ValueError(f"a string of {length} bytes")
        part = self._data[self._at : self._at + length]
        self._at += length
        return decode_name(part)

    def end(self) -> None:
        if self._at != len(self._data):
            raise ValueError(f"{len(self._data) - self._at} bytes too many")


def decode_name(data: bytes) -> str:
    """A string of the protocol; ValueError where it is none."""
    if len(data) > MAX_NAME or b"\0" in data:
        raise ValueError("no name")
    return data.decode()


def unpack_info(data: bytes) -> tuple[str, list[int]]:
    """(export, what is to be told) of INFO and GO; ValueError where it is malformed."""
    fields = _Fields(data)
    name = fields.text()
    wanted = [fields.number(_COUNT) for _ in range(fields.number(_COUNT))]
    fields.end()
    return name, wanted


def unpack_meta_context(data: bytes) -> tuple[str, list[str]]:
    """(export, queries) of LIST_ and SET_META_CONTEXT; ValueError where it is malformed."""
    fields = _Fields(data)
    name = fields.text()
    count = fields.number(_LENGTH)
    if count > len(data) // _LENGTH.size:
        raise ValueError(f"{count} queries in {len(data)} bytes")
    queries = [fields.text() for _ in range(count)]
    fields.end()
    return name, queries


# --- transmission -------------------------------------------------------------------------------

REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
CHUNK_MAGIC = 0x668E33EF

REQUEST = struct.Struct(">IHHQQI")
_SIMPLE_REPLY = struct.Struct(">IIQ")
_CHUNK = struct.Struct(">IHHQI")
_DATA_CHUNK = struct.Struct(">IHHQIQ")
_HOLE_CHUNK = struct.Struct(">IHHQIQI")
_ERROR = struct.Struct(">IH")
_STATUS = struct.Struct(">II")
_DONE = 1


class Command(enum.IntEnum):
    """What a request is."""

    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3
    TRIM = 4
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


class Flag(enum.IntFlag):
    """Flags of requests."""

    FUA = 1
    NO_HOLE = 2
    DF = 4
    REQ_ONE = 8
    FAST_ZERO = 16


ALLOWED_FLAGS = {
    int(command): int(Flag.FUA | others)
    for command, others in (
        (Command.READ, Flag.DF),
        (Command.WRITE, Flag(0)),
        (Command.DISCONNECT, Flag(0)),
        (Command.FLUSH, Flag(0)),
        (Command.TRIM, Flag(0)),
        (Command.WRITE_ZEROES, Flag.NO_HOLE | Flag.FAST_ZERO),
        (Command.BLOCK_STATUS, Flag.REQ_ONE),
    )
}
"""Flags that a command may have, as plain numbers, which are quicker; FUA may be set on all, and
means something on three."""


class Chunk(enum.IntEnum):
    """What a chunk of a structured reply is."""

    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = 0x8001


class State(enum.IntFlag):
    """Of a stretch, in the context base:allocation."""

    DATA = 0
    HOLE = 1
    ZERO = 2


ERRORS = {
    errno.EPERM: 1,
    errno.EIO: 5,
    errno.ENOMEM: 12,
    errno.EINVAL: 22,
    errno.ENOSPC: 28,
}
"""The protocol's own numbers of errors."""


class Request(NamedTuple):
    """What a client asks for; the bytes of a WRITE follow behind."""

    flags: int
    command: int
    cookie: int
    offset: int
    length: int


def unpack_request(data: bytes | bytearray | memoryview, at: int = 0) -> Request:
    """The request at `at`."""
    magic, flags, command, cookie, offset, length = REQUEST.unpack_from(data, at)
    if magic != REQUEST_MAGIC:
        raise ProtocolError(f"a request that begins with {magic:#010x}")
    if length > MAX_PAYLOAD and command == Command.WRITE:
        raise ProtocolError(f"a write of {length} bytes; {MAX_PAYLOAD} are allowed")
    return Request(flags, command, cookie, offset, length)


def simple_reply(cookie: int, error: int = 0) -> bytes:
    """The head of a simple reply; where a read succeeded, its bytes follow. `error` is an errno."""
    return _SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, ERRORS[error] if error else 0, cookie)


def data_chunk(cookie: int, offset: int, length: int, *, last: bool = True) -> bytes:
    """The head of a chunk with `length` bytes, which follow; `last` of the structured reply?"""
    flags = _DONE if last else 0
    return _DATA_CHUNK.pack(CHUNK_MAGIC, flags, Chunk.OFFSET_DATA, cookie, length + 8, offset)


def hole_chunk(cookie: int, offset: int, length: int, *, last: bool = True) -> bytes:
    """A chunk that stands for `length` zeros; `last` of the structured reply?"""
    flags = _DONE if last else 0
    return _HOLE_CHUNK.pack(CHUNK_MAGIC, flags, Chunk.OFFSET_HOLE, cookie, 12, offset, length)


def error_chunk(cookie: int, error: int, message: str) -> bytes:
    """A structured reply that says what went wrong; `error` is an errno."""
    text = message.encode()[:MAX_NAME]
    head = _CHUNK.pack(CHUNK_MAGIC, _DONE, Chunk.ERROR, cookie, _ERROR.size + len(text))
    return head + _ERROR.pack(ERRORS[error], len(text)) + text


def status_chunk(cookie: int, context: int, stretches: Iterable[tuple[int, State]]) -> bytes:
    """A structured reply with (length, state) of the stretches in a context."""
    body = b"".join(_STATUS.pack(length, state) for length, state in stretches)
    head = _CHUNK.pack(CHUNK_MAGIC, _DONE, Chunk.BLOCK_STATUS, cookie, _CONTEXT.size + len(body))
    return head + _CONTEXT.pack(context) + body
