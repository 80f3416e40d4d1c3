"""Where what was saved goes: files on the host, beneath one directory that was empty before.

Nothing is ever replaced or followed: names come from an image that may be forged.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ..host import pwrite_all
from .walk import Hurt, Piece

_REFUSED = frozenset(
    (
        errno.EEXIST,
        errno.EFBIG,
        errno.EILSEQ,
        errno.EINVAL,
        errno.ELOOP,
        errno.EMLINK,
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
        errno.ENOTSUP,
        errno.EACCES,
        errno.EPERM,
    )
)
"""What a host says that cannot have one thing, and may well have the next; a full disk does not."""


class Refused(Exception):
    """The host cannot have this file; why."""


@contextmanager
def refusing() -> Iterator[None]:
    """Errors of the host are Refused, where others may still go well."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        raise Refused(f"the host refuses it: {error.strerror}") from None


def make_directories(top: bytes, path: bytes) -> None:
    """`path` beneath `top`: each part a directory, and none a way out of there. Raises Refused."""
    at = top
    for part in path.split(b"/") if path else ():
        at = os.path.join(at, part)
        with refusing():
            try:
                os.mkdir(at, 0o700)
            except FileExistsError:
                if not stat.S_ISDIR(os.lstat(at).st_mode):
                    raise Refused("something else has the name of its directory") from None


def new_file(path: bytes) -> int:
    """A descriptor of an empty file that was not there. Raises Refused."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with refusing():
        return os.open(path, flags, 0o600)


def fill(fd: int, size: int, parts: Iterable[Piece | Hurt]) -> Iterator[Hurt]:
    """Write the pieces of a value of `size` bytes; what is missing is a hole, and comes back, with
    neighbours together. Raises Refused."""
    with refusing():
        os.ftruncate(fd, size)
    last: Hurt | None = None
    for part in parts:
        if isinstance(part, Piece):
            pwrite_all(fd, memoryview(part.data), part.offset)
        elif last is not None and last.stop == part.start:
            last = last._replace(stop=part.stop)
        else:
            if last is not None:
                yield last
            last = part
    if last is not None:
        yield last
