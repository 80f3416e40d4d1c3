"""One client's connection: bytes in, requests out, replies back.

Requests are answered in the loop where everything needed is in memory, and by a thread where the
disk is; replies go out in the order in which they are ready. A client that sends faster than it
reads, or faster than the disk writes, is not read from meanwhile, so that memory is bounded. One
that does not speak the protocol is hung up on, with a line in the log; others do not notice.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import struct
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from cowfs.errors import Error, OutOfSpaceError, ReadOnlyError, UsageError
from cowfs.limits import KIB, MIB
from cowfs.writeback import BufferedVolume

from . import protocol
from .exports import Exports
from .negotiation import ALLOCATION_ID, Negotiation, Next
from .protocol import ALLOWED_FLAGS, Command, Flag, ProtocolError, Request, State

_FIRST_BUFFER = 128 * KIB
"""Bytes of options that may wait to be taken apart, of a client that may not go on to more."""
_BUFFER = 512 * KIB
"""Bytes of requests; the data of a write that is longer than half gets a buffer of its own."""
_AT_ONCE = 1 * MIB
"""Longest read that the loop does itself: others wait meanwhile."""
_OUTPUT = 128 * KIB
"""Bytes of replies that are gathered before they go to the socket: a client begins with them while
the next are made, and what a socket does not take at once is copied once more."""
_UNREAD = 256 * KIB
"""Bytes of replies that a client may leave unread before it is not listened to. Whenever the socket
takes some, the rest is moved in memory, so a few large ones are enough."""
_OWED = 64 * MIB
"""Bytes that requests in threads may hold, of one connection."""
_REQUEST_COST = 512 * KIB
"""What each counts beside its own bytes: it bounds their number."""
_PIECE = 32 * KIB
"""Bytes of zeros in an answer that are worth a chunk of their own, which spares sending them."""
_STRETCHES = 4096
"""Most stretches in one answer about the state of blocks."""
_STATUS_RECORDS = 65_536
"""Records that are looked at for one such answer, which may say less than was asked."""

log = logging.getLogger("cowfs.serve")


class Connection(asyncio.BufferedProtocol):
    """What an event loop needs for one client.

    `on_end` is called when the connection is over.
    """

    def __init__(
        self,
        exports: Exports,
        context: ssl.SSLContext | None,
        on_end: Callable[[Connection], None],
    ) -> None:
        self._exports = exports
        self._context = context
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._negotiation = Negotiation(exports.volumes, needs_tls=context is not None)
        self._step: Callable[[], bool] = self._client_flags
        """Takes one thing from the buffer; False where there is not enough of it yet."""
        self._buffer = bytearray(_FIRST_BUFFER)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._payload: bytearray | None = None
        """Of a write that is too long for the buffer, filled up to `_filled`."""
        self._filled = 0
        self._write_request: Request | None = None
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._owed = 0
        self._is_choked = False
        """Whether the client leaves replies unread."""
        self._is_held = False
        """Whether writes have to wait for a commit."""
        self._is_between = False
        """Whether TLS is being set up: the transport is not ours then."""
        self._is_ending = False

    # --- what the loop calls --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._set_transport(transport)
        self._peer = _name_of(transport)
        log.info("%s: connected", self._peer)
        transport.write(protocol.greeting())

    def _set_transport(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=_UNREAD)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_ending = True
        log.info("%s: gone%s", self._peer, f" ({exc})" if exc else "")
        self._on_end(self)

    def eof_received(self) -> bool:
        if not self._is_ending:
            if self._payload is not None or self._end > self._start:
                log.warning("%s: hung up in the middle of a message", self._peer)
            self._end_when_done()
        return self._transport.get_extra_info("ssl_object") is None  # closed after the last reply

    def pause_writing(self) -> None:
        self._is_choked = True

    def resume_writing(self) -> None:
        self._is_choked = False
        self._go_on()

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._payload is not None:
            return memoryview(self._payload)[self._filled :]
        if self._start and (self._start == self._end or 2 * self._end > len(self._buffer)):
            # What is left is less than a message, or waits for its turn.
            rest = self._end - self._start
            self._view[:rest] = self._view[self._start : self._end]
            self._start, self._end = 0, rest
        return self._view[self._end :]

    def _use_buffer(self, size: int, rest: bytes) -> None:
        """Go over to another buffer, with what is left of the one before."""
        self._buffer = bytearray(size)
        self._view = memoryview(self._buffer)
        self._view[: len(rest)] = rest
        self._start, self._end = 0, len(rest)

    def buffer_updated(self, nbytes: int) -> None:
        if self._payload is not None:
            self._filled += nbytes
        else:
            self._end += nbytes
        self._go_on()

    # --- the flow of bytes ----------------------------------------------------------------------

    def _go_on(self) -> None:
        """Do what has arrived, as far as there is room for the answers."""
        if self._is_between:
            return
        try:
            while not self._must_wait and not self._is_ending and self._step():
                if self._out_bytes > _OUTPUT:
                    self._send()
        except ProtocolError as error:
            log.warning("%s: %s; connection closed", self._peer, error)
            self._is_ending = True
            self._send()
            self._transport.close()
            return
        self._send()
        if self._is_between:
            return
        if self._must_wait or self._is_ending or self._end - self._start == len(self._buffer):
            self._transport.pause_reading()
        elif not self._transport.is_closing():
            self._transport.resume_reading()

    @property
    def _must_wait(self) -> bool:
        return self._is_choked or self._is_held or self._owed > _OWED

    def _reply(self, *parts: bytes) -> None:
        self._out += parts
        self._out_bytes += sum(map(len, parts))

    def _send(self) -> None:
        if self._out:
            out, self._out, self._out_bytes = self._out, [], 0
            if not self._transport.is_closing():
                self._transport.write(b"".join(out))

    def _take(self, length: int) -> memoryview | None:
        """The next bytes from the buffer, or None where they are not all there."""
        if self._end - self._start < length:
            return None
        self._start += length
        return self._view[self._start - length : self._start]

    # --- handshake ------------------------------------------------------------------------------

    def _client_flags(self) -> bool:
        data = self._take(protocol.CLIENT_FLAGS.size)
        if data is None:
            return False
        self._negotiation.handshake = protocol.unpack_client_flags(data)
        self._step = self._option
        return True

    def _option(self) -> bool:
        head = self._view[self._start : self._end][: protocol.OPTION.size]
        if len(head) < protocol.OPTION.size:
            return False
        option, length = protocol.unpack_option(head)
        message = self._take(protocol.OPTION.size + length)
        if message is None:
            return False
        reply, then = self._negotiation.answer(option, bytes(message[protocol.OPTION.size :]))
        self._reply(reply)
        match then:
            case Next.TRANSMISSION:
                assert self._negotiation.export is not None
                self._volume: BufferedVolume = self._exports.volumes[self._negotiation.export.name]
                self._structured = self._negotiation.structured
                log.info("%s: uses %s", self._peer, self._volume.name)
                self._use_buffer(_BUFFER, bytes(self._view[self._start : self._end]))
                self._step = self._request
            case Next.TLS:
                if self._end > self._start:
                    raise ProtocolError("sent something between STARTTLS and TLS itself")
                self._send()
                self._transport.pause_reading()
                self._is_between = True
                self._spawn(self._start_tls(), 0)
                return False
            case Next.END:
                self._end_when_done()
        return True

    async def _start_tls(self) -> None:
        assert self._context is not None
        try:
            transport = await self._loop.start_tls(
                self._transport, self, self._context, server_side=True
            )
        except OSError as error:
            log.warning("%s: no TLS: %s; connection closed", self._peer, error)
            self._transport.abort()
            return
        assert transport is not None
        self._set_transport(transport)
        self._negotiation.secured()
        self._is_between = False
        self._go_on()

    # --- transmission ---------------------------------------------------------------------------

    def _request(self) -> bool:
        if self._write_request is not None:
            return self._rest_of_write(self._write_request)
        if self._end - self._start < protocol.REQUEST.size:
            return False
        request = protocol.unpack_request(self._buffer, self._start)
        if request.command != Command.WRITE:
            self._start += protocol.REQUEST.size
            self._do(request, b"")
            return True
        if self._exports.is_full and not self._volume.readonly:
            self._hold()
            return True
        begin = self._start + protocol.REQUEST.size
        there = min(self._end - begin, request.length)
        if there == request.length:
            self._start = begin + request.length
            self._do(request, self._view[begin : self._start])
            return True
        if request.length <= _BUFFER // 2:
            return False
        self._payload = bytearray(request.length)
        self._payload[:there] = self._view[begin : begin + there]
        self._filled = there
        self._write_request = request
        self._start = self._end = 0
        return False

    def _rest_of_write(self, request: Request) -> bool:
        """Once a long write is there as a whole, do it."""
        payload = self._payload
        assert payload is not None
        if self._filled < request.length:
            return False
        self._payload, self._write_request = None, None
        self._do(request, memoryview(payload))
        return True

    def _hold(self) -> None:
        """Wait until what was written is committed."""

        def resume() -> None:
            self._is_held = False
            self._go_on()

        self._is_held = True
        self._exports.when_there_is_room(resume)

    def _do(self, request: Request, payload: bytes | memoryview) -> None:
        """Carry out one request, or have it carried out."""
        try:
            if request.flags & ~ALLOWED_FLAGS.get(request.command, 0):
                raise UsageError(f"command {request.command} with flags {request.flags:#x}")
            match request.command:
                case Command.READ:
                    self._read(request)
                case Command.WRITE:
                    self._volume.pwrite(payload, request.offset)
                    self._written(request)
                case Command.TRIM | Command.WRITE_ZEROES:
                    self._volume.discard(request.offset, request.length)
                    self._written(request)
                case Command.FLUSH:
                    self._spawn(self._attempt(request, self._flush(request)), 0)
                case Command.BLOCK_STATUS:
                    self._check_status(request)
                    self._spawn(self._attempt(request, self._status(request)), 0)
                case Command.DISCONNECT:
                    self._end_when_done()
                case _:
                    raise UsageError(f"command {request.command} is not supported")
        except (Error, OSError) as error:
            self._fail(request, error)

    def _read(self, request: Request) -> None:
        length, offset = request.length, request.offset
        if not 0 < length <= protocol.MAX_PAYLOAD:
            raise UsageError(f"a read of {length} bytes; 1 to {protocol.MAX_PAYLOAD} are allowed")
        if length <= _AT_ONCE:
            try:
                self._reply_data(request, self._volume.pread_now(length, offset))
                return
            except BlockingIOError:
                log.debug("%s: a read at %d waits for the disk", self._peer, offset)
        self._spawn(self._attempt(request, self._read_slowly(request)), length)

    async def _read_slowly(self, request: Request) -> None:
        data = await self._exports.in_thread(
            lambda: self._volume.pread(request.length, request.offset)
        )
        self._reply_data(request, data)

    def _reply_data(self, request: Request, data: bytes) -> None:
        if not self._structured:
            self._reply(protocol.simple_reply(request.cookie), data)
            return
        cookie, offset = request.cookie, request.offset
        piece = len(data) if request.flags and request.flags & Flag.DF else _PIECE
        for start, stop, is_zeros in pieces(data, piece):
            last = stop == len(data)
            if is_zeros:
                self._reply(protocol.hole_chunk(cookie, offset + start, stop - start, last=last))
            else:
                head = protocol.data_chunk(cookie, offset + start, stop - start, last=last)
                self._reply(head, data[start:stop])

    def _written(self, request: Request) -> None:
        self._exports.written(self._volume, request.length)
        if request.flags and request.flags & Flag.FUA:  # to ask an enumeration takes its time
            self._spawn(self._attempt(request, self._flush(request)), 0)
        else:
            self._reply(protocol.simple_reply(request.cookie))

    async def _flush(self, request: Request) -> None:
        await self._exports.flush()
        self._reply(protocol.simple_reply(request.cookie))

    def _check_status(self, request: Request) -> None:
        if not self._negotiation.has_context:
            raise UsageError("the state of blocks, without having agreed on a context")
        stop = request.offset + request.length
        if not 0 < request.length <= stop <= self._volume.size:
            raise UsageError(f"the state of bytes {request.offset} to {stop}")

    async def _status(self, request: Request) -> None:
        await self._exports.committed()
        one = bool(request.flags & Flag.REQ_ONE)
        start, volume = request.offset, self._volume
        stop = min(start + request.length, start + _STATUS_RECORDS * volume.record_size)
        found = await self._exports.in_thread(
            lambda: stretches(volume, start, stop, 1 if one else _STRETCHES)
        )
        self._reply(protocol.status_chunk(request.cookie, ALLOCATION_ID, found))

    def _fail(self, request: Request, error: Exception) -> None:
        """Tell the client why a request was not done; the log too, unless it is the client's own
        mistake."""
        code = _code_of(error)
        level = logging.INFO if code in (errno.EINVAL, errno.EPERM) else logging.ERROR
        log.log(level, "%s: %s: %s", self._peer, self._volume.name, error)
        if self._structured:
            self._reply(protocol.error_chunk(request.cookie, code, str(error)))
        else:
            self._reply(protocol.simple_reply(request.cookie, code))

    # --- work that waits ------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None], length: int) -> None:
        """Go on with other requests while one of `length` bytes waits for something."""
        cost = length + _REQUEST_COST
        self._owed += cost
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._done(task, cost))

    async def _attempt(self, request: Request, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # no memory, too: who asked waits for an answer
            self._fail(request, error)

    def _done(self, task: asyncio.Task[None], cost: int) -> None:
        self._tasks.discard(task)
        self._owed -= cost
        self._go_on()
        if self._is_ending and not self._tasks:
            self._transport.close()

    # --- the end --------------------------------------------------------------------------------

    def end(self) -> None:
        """Take no more requests; the connection ends when those in work are answered."""
        self._end_when_done()
        self._go_on()

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def _end_when_done(self) -> None:
        self._is_ending = True
        if not self._tasks:
            self._send()
            self._transport.close()


def pieces(data: bytes, piece: int) -> Iterator[tuple[int, int, bool]]:
    """(start, stop, whether these are zeros) of stretches as long as can be, made of pieces."""
    start = 0
    are_zeros = _is_zeros(data[:piece])
    for at in range(piece, len(data), piece):
        if _is_zeros(data[at : at + piece]) != are_zeros:
            yield start, at, are_zeros
            start, are_zeros = at, not are_zeros
    yield start, len(data), are_zeros


def _is_zeros(data: bytes) -> bool:
    """A look at the start mostly tells."""
    return not any(data[:16]) and data == bytes(len(data))


def stretches(volume: BufferedVolume, start: int, stop: int, limit: int) -> list[tuple[int, State]]:
    """(length, state) of up to `limit` stretches from `start` on, none beyond `stop`."""
    found: list[tuple[int, State]] = []
    at = start
    for begin, end in volume.data_ranges(start, stop):
        if begin > at:
            found.append((begin - at, State.HOLE | State.ZERO))
        found.append((end - begin, State.DATA))
        at = end
        if len(found) >= limit:
            return found[:limit]
    if at < stop:
        found.append((stop - at, State.HOLE | State.ZERO))
    return found[:limit]


def _code_of(error: Exception) -> int:
    if isinstance(error, OutOfSpaceError):
        return errno.ENOSPC
    if isinstance(error, ReadOnlyError):
        return errno.EPERM
    if isinstance(error, UsageError):
        return errno.EINVAL
    return errno.EIO


def _name_of(transport: asyncio.Transport) -> str:
    """Whom the log speaks of."""
    sock = transport.get_extra_info("socket")
    if sock.family == socket.AF_UNIX:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return f"process {struct.unpack('3i', credentials)[0]}"
    host, port = sock.getpeername()[:2]
    return f"{host} port {port}"
