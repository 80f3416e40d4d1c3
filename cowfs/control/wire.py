"""What goes over the socket: a JSON text a line, with the library's records in it.

A question is {"do": method, "with": arguments}. Answers are {"progress": [done, total]} and
{"item": …} as they come, and at the end {"result": …} or {"error": class, "message": …}.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import cowfs
from cowfs import errors
from cowfs.errors import Error

if TYPE_CHECKING:
    from io import BufferedRWPair

RECORDS = {
    record.__name__: record
    for record in (cowfs.Entry, cowfs.SpaceReport, cowfs.Report, cowfs.Fault, cowfs.Change)
}
"""What may be sent as an object, by name."""

SUFFIX = ".control"

_LONGEST = 16 << 20
"""Bytes of a line: the report on an image with many thousands of faults."""


def socket_path(image: str) -> str:
    """Where the holder of an image listens."""
    return os.path.realpath(image) + SUFFIX


def send(stream: BufferedRWPair[Any, Any], message: dict[str, Any]) -> None:
    """Write one message."""
    stream.write(json.dumps(message, default=_encode).encode() + b"\n")
    stream.flush()


def receive(stream: BufferedRWPair[Any, Any]) -> dict[str, Any] | None:
    """The next message; None at the end. ValueError where it is none."""
    line = stream.readline(_LONGEST)
    if not line:
        return None
    if not line.endswith(b"\n"):
        raise ValueError("a message that is cut off")
    try:
        message = json.loads(line, object_hook=_decode)
    except RecursionError:
        raise ValueError("a message that is nested too deeply") from None
    if not isinstance(message, dict):
        raise ValueError("a message that is no object")
    return message


class LostError(Error):
    """The holder of the image went away before it had answered."""


def messages(stream: BufferedRWPair[Any, Any]) -> Iterator[dict[str, Any]]:
    """All that come. Raises LostError where they break off."""
    while True:
        try:
            message = receive(stream)
        except (OSError, ValueError) as error:
            raise LostError(f"the holder of the image does not answer: {error}") from None
        if message is None:
            raise LostError("the holder of the image ended before it answered")
        yield message


def pack_error(error: Error | OSError) -> dict[str, str]:
    """An error as a message."""
    if isinstance(error, Error):
        return {"error": type(error).__name__, "message": str(error)}
    place = f"{error.filename}: " if error.filename else ""
    return {"error": "Error", "message": place + (error.strerror or str(error))}


def unpack_error(message: dict[str, Any]) -> Error:
    """The error in a message: of the same class and with the same text."""
    kind = getattr(errors, str(message["error"]), Error)
    if not (isinstance(kind, type) and issubclass(kind, Error)):
        kind = Error
    # Past their __init__: some make the text from parts.
    error: Error = kind.__new__(kind)
    error.args = (str(message["message"]),)
    return error


def _encode(value: object) -> object:
    if type(value).__name__ in RECORDS:
        fields = dataclasses.fields(value)  # type: ignore[arg-type]
        return {"record": type(value).__name__, "of": [getattr(value, f.name) for f in fields]}
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    if isinstance(value, datetime):
        return {"time": value.isoformat()}
    raise TypeError(f"{value!r} in a message")


def _decode(value: dict[str, Any]) -> Any:
    match value:
        case {"record": str(name), "of": list(fields)} if name in RECORDS:
            return RECORDS[name](*fields)
        case {"bytes": str(text)}:
            return text.encode("latin-1")
        case {"time": str(text)}:
            return datetime.fromisoformat(text)
    return value
