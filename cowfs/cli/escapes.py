r"""Bytes as text that fits in a line: keys, values and paths.

What prints is shown as it is, any other byte as `\xNN`; `read_text` takes it back. A backslash
stands for itself unless what follows it would read as an escape, so that text without odd bytes
is never changed either way.
"""

from __future__ import annotations

import binascii
import os
import re
from collections.abc import Iterable, Iterator

from cowfs.errors import UsageError

_LOOKS_ESCAPED = re.compile(r"\\(?=x[0-9a-fA-F]{2})")
_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})")
_BEGUN = re.compile(rb"(?:\\(?:x[0-9a-fA-F]?)?|[\xc0-\xff][\x80-\xbf]{0,2})\Z")
"""At the end of a piece: what the next one may make an escape, or a character, of."""


def show_text(data: bytes) -> str:
    r"""Printable UTF-8 as it is, every other byte as \xNN."""
    text = data.decode("utf-8", "surrogateescape")
    if "\\" in text:
        text = _LOOKS_ESCAPED.sub(r"\\x5c", text)
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else "".join(f"\\x{byte:02x}" for byte in _encode(c)) for c in text
    )


def show_pieces(pieces: Iterable[bytes]) -> Iterator[str]:
    """What `show_text` makes of all pieces together, piece by piece."""
    rest = b""
    for piece in pieces:
        data = rest + piece
        begun = _BEGUN.search(data, max(len(data) - 3, 0))
        cut = begun.start() if begun else len(data)
        yield show_text(data[:cut])
        rest = data[cut:]
    if rest:
        yield show_text(rest)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def read_text(text: str) -> bytes:
    """What `show_text` shows as `text`; the text as given where nothing in it is an escape."""
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), os.fsencode(text))


def show_hex(data: bytes) -> str:
    return data.hex()


def read_hex(text: str) -> bytes:
    try:
        return binascii.unhexlify("".join(text.split()))
    except ValueError:
        raise UsageError(f"{text!r} is not hex: two digits 0-9 a-f for each byte") from None
