"""What one process has mounted from one image, from the first mount to the last unmounting.

Each mount has a thread that answers the kernel. Another one has what the kernel holds back sent,
and all that was gathered committed, every few seconds. What live control is asked goes through here
too, so a second dataset of the image is mounted by the process that has the first one mounted.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import threading
import time
from contextlib import AbstractContextManager
from queue import SimpleQueue

from cowfs import FS, Store
from cowfs.control import Holder
from cowfs.errors import BusyError, Error, KindError, UsageError

from .attach import MountError, attach, check_directory, detach, mounted_device
from .connection import Connection
from .files import Files
from .gathering import Gathering
from .told import Subject

COMMIT_EVERY_S = 3.5
"""So that nothing is older than five seconds before it is durable, the commit itself included."""

_BEGIN_EVERY_S = 0.5
"""How often the host is told to begin writing, so that a flush need not wait for more than it was
given meanwhile. At once, it would take processor and memory from who goes on writing."""

_MOMENT_S = 1.0
"""How long a mount that nobody uses any more takes to end, at most."""

_PATIENCE_S = 5.0
"""How long files that are still open keep an unmounted file system alive when the process is told
to end."""

log = logging.getLogger("cowfs.mount")

_libc = ctypes.CDLL(None, use_errno=True)


class Mount:
    """A dataset or snapshot at a directory."""

    def __init__(
        self, mounts: Mounts, name: str, directory: str, *, readonly: bool, allow_other: bool
    ) -> None:
        self.name = name
        self.directory = directory
        self.ended = threading.Event()
        self.failure: BaseException | None = None
        """What ended it, where it was not unmounted."""
        self.files = Files(
            mounts.gathering, name, self.settle, mounts.take_snapshot, mounts.destroy_snapshot
        )
        self._place = os.path.realpath(directory)
        source = f"{os.path.abspath(mounts.store.path)}:{name}"
        fd = attach(directory, source, readonly=readonly, allow_other=allow_other)
        self.connection = Connection(fd, self.files, mounts.gathering)
        self.files.connection = self.connection
        self._events = mounts.events
        self._thread = threading.Thread(target=self._serve, name=f"mount {name}", daemon=True)
        self._thread.start()

    def in_use(self) -> bool:
        """Whether it is mounted, or files are open in it. Its thread learns of unmounting a moment
        later than who did that."""
        with contextlib.suppress(OSError):  # a host without the table: its thread has to tell
            if mounted_device(self._place):
                return True
        return not self.ended.wait(_MOMENT_S)

    def sync(self) -> None:
        """Have the kernel send what it holds back. Not for the thread that takes it."""
        try:
            fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return  # unmounted meanwhile, which sent all
        try:
            _sync(fd)
        finally:
            os.close(fd)

    def settle(self) -> None:
        """`sync`, and wait until all of it is here. As `write_out` has the kernel forget what it
        knows of the files, this is not for every few seconds."""
        self.sync()
        self.files.write_out()

    def unmount(self) -> None:
        """Take it away, with all that was written so far in the store. Files that are open stay so
        as long as this process lives, for which it waits a while."""
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            detach(self.directory, lazy=True)
            _sync(fd)
        finally:
            os.close(fd)
        self.ended.wait(_PATIENCE_S)

    def _serve(self) -> None:
        try:
            self.connection.serve()
        except BaseException as error:
            self.failure = error
            raise
        finally:
            self.connection.close()
            self.ended.set()
            self._events.put(self)


class Mounts(Holder):
    """All mounts of one store, and what others may ask of it."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._undone: SimpleQueue[set[Subject] | None] = SimpleQueue()
        """What the kernel is to be told of; None at the end."""
        self.gathering = Gathering(store, self._undone.put)
        self.events: SimpleQueue[Mount | None] = SimpleQueue()
        """Each mount that has ended; None is for those who wait here to be told something else."""
        self._mounts: list[Mount] = []
        self._state = threading.Lock()
        self._closing = threading.Event()
        store.io.device.patient = True
        self._thread = threading.Thread(target=self._commit_in_time, name="commit", daemon=True)
        self._thread.start()
        threading.Thread(target=self._tell_kernel, name="undone", daemon=True).start()

    def add(self, name: str, directory: str, *, allow_other: bool = False) -> Mount:
        """Mount a dataset, or read-only a snapshot. Raises Error."""
        directory = os.path.abspath(directory)
        with self._state:
            if self._closing.is_set():
                raise BusyError(f"{self.store.path}: who holds the image is about to end")
            self._check(name, directory)
            readonly = self.store.readonly or "@" in name
            mount = Mount(self, name, directory, readonly=readonly, allow_other=allow_other)
            self._mounts.append(mount)
        return mount

    def active(self) -> list[Mount]:
        """Those that are mounted now."""
        with self._state:
            self._mounts = [mount for mount in self._mounts if not mount.ended.is_set()]
            return list(self._mounts)

    def close(self) -> None:
        """Unmount all that is left; everything that was written is durable afterwards."""
        self._closing.set()
        for mount in self.active():
            with contextlib.suppress(MountError, OSError):
                mount.unmount()
        self._thread.join()
        self._undone.put(None)
        self.gathering.commit()
        self.store.io.device.patient = False

    def __enter__(self) -> Mounts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- live control -----------------------------------------------------------------------------

    def settle(self, datasets: set[str]) -> None:
        for mount in self.active():
            if mount.name in datasets:
                mount.settle()

    def exclusively(self) -> AbstractContextManager[None]:
        return self.gathering.exclusively()

    def check_unused(self, dataset: str) -> None:
        for mount in self.active():
            if dataset in (mount.name, mount.name.partition("@")[0]) and mount.in_use():
                raise BusyError(f"{mount.name} is mounted at {mount.directory}; unmount it first")

    def mount(self, dataset: str, directory: str, allow_other: bool) -> None:
        self.add(dataset, directory, allow_other=allow_other)

    def unmount(self, directory: str) -> None:
        for mount in self.active():
            if mount.directory == directory:
                mount.unmount()
                return
        raise UsageError(f"{directory}: nothing of {self.store.path} is mounted there")

    def wait(self, directory: str) -> None:
        for mount in self.active():
            if mount.directory == directory:
                mount.ended.wait()

    # --- for the file systems ---------------------------------------------------------------------

    def take_snapshot(self, name: str) -> None:
        """Make a snapshot of what is in the store; the kernel has sent what it held back."""
        with self.exclusively():
            self.store.snapshot(name)

    def destroy_snapshot(self, name: str) -> None:
        """Destroy a snapshot."""
        self.destroy(name, recursive=False)

    # --- inside -----------------------------------------------------------------------------------

    def _check(self, name: str, directory: str) -> None:
        check_directory(directory)
        with self.store.at(name) as view:
            if not isinstance(view, FS):
                raise KindError(f"{name} is of kind {view.kind}; only files (kind fs) are mounted")
        for mount in self._mounts:
            if mount.name == name and not mount.ended.is_set():
                raise BusyError(f"{name} is mounted at {mount.directory} already")

    def _commit_in_time(self) -> None:
        due = time.monotonic() + COMMIT_EVERY_S
        while not self._closing.wait(_BEGIN_EVERY_S):
            self.store.io.device.begin_writing()
            if time.monotonic() >= due:
                self._commit()
                due = time.monotonic() + COMMIT_EVERY_S

    def _commit(self) -> None:
        for mount in self.active():
            if mount.files.may_be_behind:
                with contextlib.suppress(OSError):  # whose write failed is told by the kernel
                    mount.sync()
        if self.gathering.pending:
            with contextlib.suppress(Error, OSError):  # it was told
                # The flush comes afterwards, so that no request waits for the disk.
                self.gathering.commit(durable=False)
                self.store.sync()

    def _tell_kernel(self) -> None:
        """Have the kernel ask anew of what is not as it was told. That waits for what it sends and
        for who changes a directory, hence for those who serve, so a thread of its own does it."""
        while (subjects := self._undone.get()) is not None:
            for mount in self.active():
                for subject in subjects:
                    if subject.dataset == mount.name:
                        self._tell_of(subject, mount)

    def _tell_of(self, subject: Subject, mount: Mount) -> None:
        """What cannot be told, as for want of memory, goes on being shown; no write goes by it."""
        try:
            mount.files.ask_anew(subject)
        except (OSError, MemoryError) as error:
            log.error("%s: some of what was lost is still shown: %s", mount.directory, error)


def _sync(fd: int) -> None:
    """syncfs(2), which os does not have."""
    if _libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
