"""cowfs mount: files for any program, through FUSE."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import signal
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import click

from cowfs import Store
from cowfs.control import RemoteStore, listen, open_store
from cowfs.errors import Error
from cowfs.mount import Mounts
from cowfs.signals import ending_signals

from .arguments import dataset_argument, image_argument
from .command import command
from .datasets import need_datasets

SYSTEM_LOG = "/dev/log"

log = logging.getLogger(__name__)


@command(
    "mount",
    "Mount files, so that any program can use them.\n\n"
    "A snapshot is mounted read-only. In a mounted dataset .cowfs/snapshots/NAME shows each "
    "snapshot; mkdir there takes one, rmdir destroys it. What a program has synced is durable, "
    "all else within five seconds. Other commands work meanwhile: they ask this one. "
    "'fusermount3 -u DIRECTORY' ends it, and so does SIGTERM, without loss.",
)
@image_argument
@dataset_argument(metavar="DATASET[@NAME]")
@click.argument("directory", type=click.Path())
@click.option("-d", "--daemon", is_flag=True, help="Go on in the background once it is mounted.")
@click.option(
    "--allow-other", is_flag=True, help="Let other users in, too; the kernel checks permissions."
)
def run(image: str, dataset: str, directory: str, daemon: bool, allow_other: bool) -> None:
    directory = os.path.abspath(directory)
    with background() if daemon else contextlib.nullcontext(_do_nothing) as ready:
        store = _open(image)
        with store:
            need_datasets(store, dataset)
            if isinstance(store, RemoteStore):
                if daemon:
                    store.mount(dataset, directory, allow_other)
                else:
                    _follow(store, dataset, directory, allow_other)
            else:
                _hold(store, dataset, directory, allow_other, ready)


def _open(image: str) -> Store | RemoteStore:
    try:
        return open_store(image, "w")
    except PermissionError:
        return open_store(image, "r")


def _hold(
    store: Store, dataset: str, directory: str, allow_other: bool, ready: Callable[[], None]
) -> None:
    """Mount, and stay until nothing is mounted any more, or a signal ends it."""
    mounts = Mounts(store)
    server = None if store.readonly else listen(store, mounts)  # many may read
    try:
        _on_signals(lambda: mounts.events.put(None))
        mount = mounts.add(dataset, directory, allow_other=allow_other)
        _say(store, dataset, directory)
        ready()
        while mounts.active() and mounts.events.get() is not None:
            pass
    finally:
        if server is not None:
            server.pause()
        try:
            mounts.close()
            store.close()
        finally:
            if server is not None:
                server.close()
    if mount.failure is not None:
        raise Error(f"{directory}: the file system failed: {mount.failure}")


def _follow(store: RemoteStore, dataset: str, directory: str, allow_other: bool) -> None:
    """Have the holder mount, and stay as long as it is; a signal ends that."""
    events: SimpleQueue[str] = SimpleQueue()

    def wait() -> None:
        try:
            store.wait(directory)
        finally:
            events.put("ended")

    _on_signals(lambda: events.put("signal"))
    store.mount(dataset, directory, allow_other)
    _say(store, dataset, directory)
    threading.Thread(target=wait, daemon=True).start()
    if events.get() == "signal":
        store.unmount(directory)


def _say(store: Store | RemoteStore, dataset: str, directory: str) -> None:
    log.info("%s: mounted %s at %s", store.path, dataset, directory)


def _on_signals(action: Callable[[], None]) -> None:
    for number in ending_signals():
        signal.signal(number, lambda *_: action())


def _do_nothing() -> None:
    pass


@contextlib.contextmanager
def background() -> Iterator[Callable[[], None]]:
    """The `with` block runs in a process of its own; this one ends well as soon as that calls what
    it was given or ends well itself, and else as that ends."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        with open(reading, "rb") as pipe:
            if pipe.read(1):
                raise click.exceptions.Exit(0)
        _, status = os.waitpid(child, 0)
        # It has said what there was to say.
        os._exit(os.waitstatus_to_exitcode(status))
    os.close(reading)
    os.setsid()
    with open(writing, "wb", buffering=0) as to_parent:

        def ready() -> None:
            to_parent.write(b"+")
            _detach()

        yield ready


def _detach() -> None:
    """Let go of the terminal: what is to be said from now on goes to the system's log."""
    if os.path.exists(SYSTEM_LOG):
        handler = logging.handlers.SysLogHandler(SYSTEM_LOG)
        handler.setFormatter(logging.Formatter("cowfs: %(message)s"))
        logging.getLogger("cowfs").handlers[:] = [handler]
    sink = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(sink, fd)
    os.close(sink)
