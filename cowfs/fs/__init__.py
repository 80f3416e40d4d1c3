"""The fs kind: files and directories, as `os` knows them.

Read in this order: `inode.py` (what is stored, and under which keys), `nodes.py` (operations by
inode number), `paths.py`, `dataset.py` (the public class FS), `file.py` (open files), `bulk.py` and
on it `importing.py` and `reflink.py`, `exporting.py` (copying trees), `diff.py`, `verify.py`.
"""

from __future__ import annotations

from .dataset import FS
from .results import DirEntry, Stat

__all__ = ["FS", "DirEntry", "Stat"]
