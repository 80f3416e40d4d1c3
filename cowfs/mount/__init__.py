"""A FUSE file system: datasets of files, and snapshots of them, for programs of any kind.

No storage logic: requests of the kernel become calls of `cowfs.fs` by inode number. Read in this
order: `protocol.py` (the kernel's language), `attach.py` (mount and unmount), `connection.py` (the
conversation), `gathering.py` (many requests, one transaction), `snapshots.py` and `files.py` (the
operations), `mounts.py` (all that one process has mounted). See docs/mount.md.

The conversation is our own, some 400 lines, because a binding for Python would have to be forgone
for much of what is wanted: pyfuse3 knows no fallocate, lseek or O_TMPFILE and one mount in a
process (a clone could not be mounted beside its origin); mfusepy goes by path, so a file without a
name is lost; and each takes more time for a request.
"""

from __future__ import annotations

from .attach import MountError
from .mounts import Mount, Mounts

__all__ = ["Mount", "MountError", "Mounts"]
