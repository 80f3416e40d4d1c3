"""The handshake: from a client's first bytes to the export that it wants.

`Negotiation` knows what was agreed so far and answers one option after the other; it does no I/O.
Until the client has gone over to TLS where that is required, it is told nothing but that.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Protocol

from cowfs.limits import KIB

from . import protocol
from .protocol import Export, Handshake, Info, Option, ProtocolError, Reply

ALLOCATION = "base:allocation"
ALLOCATION_ID = 1
_QUERIES = (ALLOCATION, "base:")
"""Queries that stand for the one context that there is; the second one in a list only."""
_PREFERRED = 4 * KIB


class Disk(Protocol):
    """What must be known of an export."""

    name: str
    readonly: bool
    size: int
    record_size: int


class Next(enum.Enum):
    """What comes after an option."""

    OPTION = enum.auto()
    TLS = enum.auto()
    TRANSMISSION = enum.auto()
    END = enum.auto()


class Negotiation:
    """One client's handshake.

    `needs_tls`: whether TLS is to be had, and nothing without it.
    """

    def __init__(self, exports: Mapping[str, Disk], *, needs_tls: bool) -> None:
        self._exports = exports
        self._needs_tls = needs_tls
        self._is_secure = False
        self._context_of: str | None = None
        self.handshake = Handshake(0)
        self.structured = False
        self.export: Disk | None = None

    @property
    def has_context(self) -> bool:
        """Whether the client may ask for the state of blocks."""
        return self.export is not None and self._context_of == self.export.name

    def secured(self) -> None:
        """TLS is there: what was said before does not count."""
        self._is_secure = True
        self._context_of = None
        self.structured = False

    def answer(self, option: int, data: bytes) -> tuple[bytes, Next]:
        """What to say to an option, and what comes then."""
        if self._needs_tls and not self._is_secure:
            if option == Option.EXPORT_NAME:
                raise ProtocolError("wants an export without TLS, which is required")
            if option not in (Option.STARTTLS, Option.ABORT):
                return self._refuse(option, Reply.ERR_TLS_REQD, "TLS is required here")
        match option:
            case Option.EXPORT_NAME:
                return self._export_name(data)
            case Option.ABORT:
                return protocol.option_reply(option, Reply.ACK), Next.END
            case Option.LIST:
                return self._list(data)
            case Option.STARTTLS:
                return self._start_tls(data)
            case Option.INFO | Option.GO:
                return self._info(option, data)
            case Option.STRUCTURED_REPLY:
                if data:
                    return self._refuse(option, Reply.ERR_INVALID, "this option has no data")
                self.structured = True
                return protocol.option_reply(option, Reply.ACK), Next.OPTION
            case Option.LIST_META_CONTEXT | Option.SET_META_CONTEXT:
                return self._contexts(option, data)
        return self._refuse(option, Reply.ERR_UNSUP, f"option {option} is not supported")

    # --- the options ----------------------------------------------------------------------------

    def _export_name(self, data: bytes) -> tuple[bytes, Next]:
        try:
            name = protocol.decode_name(data)
        except ValueError:
            name = ""
        export = self._find(name)
        if export is None:
            # This option knows no way to say so but to hang up.
            raise ProtocolError(f"wants an export {data[:80]!r}, which is not here")
        self.export = export
        reply = protocol.export_reply(export.size, export_flags(export), self.handshake)
        return reply, Next.TRANSMISSION

    def _list(self, data: bytes) -> tuple[bytes, Next]:
        if data:
            return self._refuse(Option.LIST, Reply.ERR_INVALID, "this option has no data")
        replies = [
            protocol.option_reply(Option.LIST, Reply.SERVER, protocol.server_name(name))
            for name in self._exports
        ]
        replies.append(protocol.option_reply(Option.LIST, Reply.ACK))
        return b"".join(replies), Next.OPTION

    def _start_tls(self, data: bytes) -> tuple[bytes, Next]:
        if data:
            return self._refuse(Option.STARTTLS, Reply.ERR_INVALID, "this option has no data")
        if self._is_secure:
            return self._refuse(Option.STARTTLS, Reply.ERR_INVALID, "TLS is in use already")
        if not self._needs_tls:
            return self._refuse(Option.STARTTLS, Reply.ERR_POLICY, "no certificate is set up here")
        return protocol.option_reply(Option.STARTTLS, Reply.ACK), Next.TLS

    def _info(self, option: int, data: bytes) -> tuple[bytes, Next]:
        try:
            name, wanted = protocol.unpack_info(data)
        except ValueError as error:
            return self._refuse(option, Reply.ERR_INVALID, str(error))
        export = self._find(name)
        if export is None:
            return self._refuse(option, Reply.ERR_UNKNOWN, f"no export {name!r}")
        preferred = max(_PREFERRED, export.record_size)
        infos = [
            protocol.info_export(export.size, export_flags(export)),
            protocol.info_block_size(1, preferred, protocol.MAX_PAYLOAD),
        ]
        if Info.NAME in wanted:
            infos.append(protocol.info_name(export.name))
        replies = [protocol.option_reply(option, Reply.INFO, info) for info in infos]
        replies.append(protocol.option_reply(option, Reply.ACK))
        if option == Option.INFO:
            return b"".join(replies), Next.OPTION
        self.export = export
        return b"".join(replies), Next.TRANSMISSION

    def _contexts(self, option: int, data: bytes) -> tuple[bytes, Next]:
        setting = option == Option.SET_META_CONTEXT
        if setting:
            self._context_of = None
        if not self.structured:
            return self._refuse(option, Reply.ERR_INVALID, "structured replies come first")
        try:
            name, queries = protocol.unpack_meta_context(data)
        except ValueError as error:
            return self._refuse(option, Reply.ERR_INVALID, str(error))
        export = self._find(name)
        if export is None:
            return self._refuse(option, Reply.ERR_UNKNOWN, f"no export {name!r}")
        if setting:
            known = ALLOCATION in queries
            self._context_of = export.name if known else None
        else:
            known = not queries or any(query in _QUERIES for query in queries)
        reply = b""
        if known:
            context = protocol.meta_context(ALLOCATION_ID if setting else 0, ALLOCATION)
            reply = protocol.option_reply(option, Reply.META_CONTEXT, context)
        return reply + protocol.option_reply(option, Reply.ACK), Next.OPTION

    # --- inside ---------------------------------------------------------------------------------

    def _find(self, name: str) -> Disk | None:
        """The export of that name; without a name, the only one."""
        if not name and len(self._exports) == 1:
            return next(iter(self._exports.values()))
        return self._exports.get(name)

    @staticmethod
    def _refuse(option: int, kind: Reply, reason: str) -> tuple[bytes, Next]:
        return protocol.option_reply(option, kind, reason.encode()), Next.OPTION


def export_flags(export: Disk) -> Export:
    """What can be done with an export."""
    flags = Export.HAS_FLAGS | Export.SEND_FLUSH | Export.SEND_FUA | Export.SEND_DF
    flags |= Export.CAN_MULTI_CONN
    if export.readonly:
        return flags | Export.READ_ONLY
    return flags | Export.SEND_TRIM | Export.SEND_WRITE_ZEROES | Export.SEND_FAST_ZERO
