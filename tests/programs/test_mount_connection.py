"""The conversation with the kernel, where it ends in another way than by unmounting."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from pathlib import Path

import pytest

from benchmark.passthrough import Passthrough
from cowfs.mount.attach import attach, detach
from cowfs.mount.connection import Connection

from .conftest import need_fuse


class Broken(Passthrough):
    """Operations of which one ends in an error that nobody foresaw."""

    def write(self, nodeid: int, handle: int, offset: int, data: memoryview, flags: int) -> int:
        raise ZeroDivisionError


def test_who_waits_for_the_kernel_goes_on_when_nobody_answers_any_more(tmp_path: Path) -> None:
    need_fuse()
    source, mnt = tmp_path / "source", tmp_path / "mnt"
    source.mkdir()
    mnt.mkdir()
    fd = attach(str(mnt), "source", readonly=False, allow_other=False)
    connection = Connection(fd, Broken(str(source)), contextlib.nullcontext())
    ended: list[BaseException] = []

    def serve() -> None:
        try:
            connection.serve()
        except ZeroDivisionError as error:
            ended.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        with contextlib.suppress(OSError), (mnt / "file").open("wb", 0) as file:
            for page in range(100):  # held back by the kernel, and sent in as many requests
                os.pwrite(file.fileno(), b"content", page << 13)
            connection.write_out((source / "file").stat().st_ino)
            thread.join()
        assert len(ended) == 1
        with pytest.raises(OSError) as raised:
            (mnt / "file").stat()
        assert raised.value.errno == errno.ENOTCONN
    finally:
        detach(str(mnt), lazy=True)
