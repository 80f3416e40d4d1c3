"""cowfs: snapshots, clones, rollback, diff and checksums in one ordinary file.

    import cowfs

    with cowfs.open("app.cow", "c") as store:
        users = store.create("users", kind="kv")
        with store.transaction() as tx:
            tx["users"][b"alice"] = b"..."
            tx.snapshot("users@before")

See docs/library.md.
"""

from __future__ import annotations

from .errors import (
    BusyError,
    ClosedError,
    CorruptionError,
    DeviceError,
    Error,
    ExistsError,
    FailedError,
    FileError,
    FormatError,
    KeyTypeError,
    KindError,
    NotFoundError,
    OutOfSpaceError,
    ReadOnlyError,
    TooLargeError,
    UsageError,
)
from .fs import FS
from .kv import KV
from .parameters import Parameters
from .report import Change, Entry, Fault, Report, SpaceReport
from .store import Store, open, open_device
from .transaction import Transaction
from .version import Reader
from .volume import Volume

__version__ = "0.1.0"

__all__ = [
    "FS",
    "KV",
    "BusyError",
    "Change",
    "ClosedError",
    "CorruptionError",
    "DeviceError",
    "Entry",
    "Error",
    "ExistsError",
    "FailedError",
    "Fault",
    "FileError",
    "FormatError",
    "KeyTypeError",
    "KindError",
    "NotFoundError",
    "OutOfSpaceError",
    "Parameters",
    "ReadOnlyError",
    "Reader",
    "Report",
    "SpaceReport",
    "Store",
    "TooLargeError",
    "Transaction",
    "UsageError",
    "Volume",
    "open",
    "open_device",
]
