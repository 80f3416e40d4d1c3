"""Kernel Btrfs on a loop device, in a file beside the other stores.

Snapshots, clones and their removal are the ioctls that its command makes, without the start of a
process, as cowfs's are calls of its library; a diff is the pipe of two commands that people use.
"""

import os
import shutil
import signal
import struct
import subprocess
from collections.abc import Mapping
from fcntl import ioctl
from pathlib import Path

from benchmark.filetrees.base import Snapshots, output, run

SIZE = 32 << 30
"""Bytes of the file system; the file below it is sparse."""
PROGRAMS = ("mkfs.btrfs", "btrfs", "mount", "umount")

# From the kernel's <linux/btrfs.h>: numbers of ioctls, and their argument of 4 KiB.
SNAP_CREATE_V2 = 0x50009417
SNAP_DESTROY = 0x5000940F
SYNC = 0x9408
READ_ONLY = 2


class BtrfsTrees(Snapshots):
    name = "btrfs"

    def __init__(self, directory: Path) -> None:
        device = directory / "trees.btrfs"
        with device.open("wb") as file:
            file.truncate(SIZE)
        run("mkfs.btrfs", "--quiet", device)
        self._mounted = directory / "mounted"
        self._mounted.mkdir()
        run("mount", "-o", "loop", device, self._mounted)
        self.tree = self._mounted / "files"
        run("btrfs", "subvolume", "create", self.tree)
        self._top = os.open(self._mounted, os.O_RDONLY | os.O_DIRECTORY)

    @classmethod
    def describe(cls) -> str:
        version = output("btrfs", "--version").split()[-1]
        return (
            f"Btrfs of the kernel, mkfs.btrfs {version} and mount as by default, on a loop device"
        )

    @classmethod
    def unavailable(cls) -> str | None:
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        if missing:
            return f"{', '.join(missing)} not found: install Debian's btrfs-progs and mount"
        if os.geteuid() != 0:
            return "mounting a loop device needs root"
        if "btrfs" not in Path("/proc/filesystems").read_text().split():
            return "this kernel has no Btrfs"
        return None

    def copy_in(self, source: Path) -> None:
        run("cp", "-a", f"{source}/.", self.tree)

    def sync(self) -> None:
        ioctl(self._top, SYNC)

    def copy_out(self, target: Path) -> None:
        run("cp", "-a", self.tree, target)

    def write(self, files: Mapping[str, bytes]) -> None:
        for path, data in files.items():
            (self.tree / path).write_bytes(data)
        self.sync()

    def snapshot(self, name: str) -> None:
        self._copy(self.tree, name, READ_ONLY)

    def clone(self, snapshot: str, name: str) -> None:
        self._copy(self._mounted / snapshot, name, 0)

    def _copy(self, source: Path, name: str, flags: int) -> None:
        subvolume = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # struct btrfs_ioctl_vol_args_v2. The kernel returns when it has committed.
            argument = struct.pack("=qQQ4Q4040s", subvolume, 0, flags, 0, 0, 0, 0, name.encode())
            ioctl(self._top, SNAP_CREATE_V2, bytearray(argument))
        finally:
            os.close(subvolume)

    def diff(self, old: str, new: str) -> int:
        send = ("btrfs", "send", "--quiet", "--no-data", "-p", self._mounted / old)
        with subprocess.Popen(
            [*send, self._mounted / new], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as sender:
            dump = subprocess.run(
                ["btrfs", "receive", "--dump"],
                check=True,
                stdin=sender.stdout,
                stdout=subprocess.PIPE,
                text=True,
            ).stdout
        # The receiver may leave before the sender's last byte.
        if sender.returncode not in (0, -signal.SIGPIPE):
            raise RuntimeError(f"btrfs send failed with {sender.returncode}")
        # Each file that was written anew is an update_extent, or a truncate where it got shorter.
        words = (line.split() for line in dump.splitlines())
        return len({line[1] for line in words if line[0] in ("update_extent", "truncate")})

    def destroy(self, snapshot: str) -> None:
        argument = struct.pack("=q4088s", 0, snapshot.encode())
        ioctl(self._top, SNAP_DESTROY, bytearray(argument))
        self.sync()

    def destroy_clone(self, name: str) -> None:
        self.destroy(name)

    def close(self) -> None:
        os.close(self._top)
        run("umount", self._mounted)


FILE_TREES = BtrfsTrees
