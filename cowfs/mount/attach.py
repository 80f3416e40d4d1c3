"""Putting a file system at a directory, and taking it away, for users without root too.

fusermount3 (Debian's fuse3) opens /dev/fuse, mounts, and hands the descriptor back over a socket.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import re
import shutil
import socket
import subprocess

from cowfs.errors import BusyError, Error, NotFoundError, UsageError
from cowfs.limits import KIB

PROGRAM = "fusermount3"
_OCTAL = re.compile(rb"\\([0-7]{3})")
"""How the kernel writes blanks and the like in its table of mounts."""
DEVICE = "/dev/fuse"
READ_AHEAD = 512 * KIB
"""Bytes that the kernel reads ahead, 128 KiB where it is not told. Of twice as much, less is still
in the processor's own cache when it has been read and is to be verified."""


class MountError(Error):
    """The directory could not be mounted, or unmounted."""


def check_directory(directory: str) -> None:
    """Raise where nothing can be mounted at `directory`."""
    try:
        os.listdir(directory)
    except FileNotFoundError:
        raise NotFoundError(f"{directory}: no such directory; make it first") from None
    except NotADirectoryError:
        raise UsageError(f"{directory}: not a directory, and only at one can be mounted") from None
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        raise BusyError(
            f"{directory}: the program that mounted something here is gone; "
            f"'fusermount3 -u {directory}' first"
        ) from None
    if os.path.ismount(directory):
        raise BusyError(f"{directory}: something is mounted here already; unmount it first")


def attach(directory: str, source: str, *, readonly: bool, allow_other: bool) -> int:
    """Mount at a directory; the descriptor on which the kernel sends requests."""
    program = _program()
    if not os.path.exists(DEVICE):
        raise MountError(f"{DEVICE} is missing: this kernel, or container, has no FUSE")
    options = ["default_permissions", "subtype=cowfs", f"fsname={_escape(source)}"]
    options += ["ro"] if readonly else []
    options += ["allow_other"] if allow_other else []
    # Found before anything is mounted: who looks there later asks who does not answer yet.
    place = os.path.realpath(directory)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        result = subprocess.run(
            [program, "-o", ",".join(options), "--", directory],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        if result.returncode != 0:
            raise MountError(f"{directory}: {_reason(result.stderr)}")
        fds = array.array("i")
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(fds.itemsize))
    for _, _, data in ancillary:
        fds.frombytes(data[: fds.itemsize])
    if not fds:
        raise MountError(f"{directory}: {PROGRAM} gave no descriptor")
    os.set_inheritable(fds[0], False)
    _read_ahead(place)
    return fds[0]


def detach(directory: str, *, lazy: bool = False) -> None:
    """Unmount; with `lazy` also where files are open, which stay so until they are closed."""
    command = [_program(), "-u", *(["-z"] if lazy else []), "--", directory]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if result.returncode != 0:
        raise MountError(f"{directory}: {_reason(result.stderr)}")


def _read_ahead(place: str) -> None:
    """Have the kernel read ahead further, in what was mounted at a real path. Only root may; how
    much it will be, is said before the first request."""
    with contextlib.suppress(OSError):
        knob = os.path.join("/sys/class/bdi", mounted_device(place), "read_ahead_kb")
        with open(knob, "w", encoding="ascii") as file:
            file.write(str(READ_AHEAD // KIB))


def mounted_device(place: str) -> str:
    """major:minor of what is mounted at a real path, without asking it anything; empty where
    nothing is."""
    found = ""
    with open("/proc/self/mountinfo", "rb") as table:  # as text, a carriage return would end a line
        for line in table:
            _, _, device, _, point, *_ = line.split(b" ")
            if _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), point) == os.fsencode(place):
                found = device.decode()  # the last is on top
    return found


def _program() -> str:
    program = shutil.which(PROGRAM)
    if program is None:
        raise MountError(f"{PROGRAM} is missing; install the package fuse3")
    return program


def _escape(source: str) -> str:
    return source.replace("\\", "\\\\").replace(",", "\\,")


def _reason(stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").strip().splitlines()
    return lines[-1].rpartition(f"{PROGRAM}: ")[2] if lines else f"{PROGRAM} failed"
