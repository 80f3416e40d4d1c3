"""Small images with everything in them, and what must be found there."""

from __future__ import annotations

from dataclasses import dataclass

import cowfs
from cowfs import limits
from cowfs.device import MemoryDevice
from crashfuzzer.model import Items, contents, noise, text

Contents = dict[str, Items]


@dataclass(frozen=True, slots=True)
class Sample:
    """An image, and what it may be found to hold."""

    name: str
    data: bytes
    allowed: tuple[Contents, ...]
    """The newest state last. Before it: what was acknowledged before the newest commit, which is
    told from one in flight by being whole, on an image that was not closed."""


def memory_device(data: bytes | bytearray) -> MemoryDevice:
    """A device that holds an image."""
    device = MemoryDevice(len(data))
    device.write(0, data)
    return device


def make(name: str) -> Sample:
    """The sample of that name, the same bytes in every process but for times and the image's id."""
    compression, closed, copies = _SAMPLES[name]
    device = MemoryDevice()
    parameters = cowfs.Parameters(node_size=4096, compression=compression, metadata_copies=copies)
    store = cowfs.open_device(device, parameters=parameters)
    keys = store.create("keys")
    with store.transaction() as tx:
        tx["keys"].update((b"%03d" % n, text(n * 7 % 400, n)) for n in range(60))
        tx["keys"][b"extent"] = noise(6000)
        tx["keys"][b"records"] = noise(140_000)
    _make_files(store)
    disk = store.create("disk", kind="volume", size=1 << 20)
    disk.pwrite(text(5000), 100_000)
    disk.pwrite(noise(2000), 700_000)
    store.snapshot("keys@x", "files@x", "disk@x")
    store.clone("keys@x", "clone")
    with store.transaction() as tx:
        tx["keys"].update({b"%03d" % n: noise(50, n) for n in range(0, 60, 10)})
        tx["files"].write_bytes("/dir/deep/new", noise(100))
        tx["disk"].pwrite(b"changed", 100_100)
    _half_destroy(store)
    allowed = [contents(store)]
    keys.delete_range(b"05", b"06")
    newest = contents(store)
    if closed:
        allowed.clear()
        store.close()
    return Sample(name, device.read(0, device.size()), (*allowed, newest))


_SAMPLES = {
    "closed": ("lz4", True, 1),
    "open": ("lz4", False, 1),
    "plain": ("none", True, 1),
    "plain-open": ("none", False, 1),
    "twins": ("none", True, 2),
    "twins-open": ("none", False, 2),
}
NAMES = tuple(_SAMPLES)


def _make_files(store: cowfs.Store) -> None:
    with store.transaction() as tx:
        files = tx.create("files", kind="fs")
        files.makedirs("/dir/deep")
        files.write_bytes("/small", b"a few bytes")
        files.write_bytes("/dir/large", noise(20_000))
        files.symlink("/dir/large", "/link")
        files.link("/small", "/dir/other-name")
        files.setxattr("/small", "user.note", b"an attribute")
        for number in range(12):
            files.write_bytes(f"/dir/deep/{number}", text(number * 30, number))


def _half_destroy(store: cowfs.Store) -> None:
    """Leave a dataset that is being destroyed behind, as a crash in the midst of it does."""
    store.create("gone").update((b"%03d" % n, noise(1000, n)) for n in range(40))
    step, limits.REAP_BLOCKS = limits.REAP_BLOCKS, 4
    try:
        with store.transaction() as tx:
            tx.destroy("gone")
    finally:
        limits.REAP_BLOCKS = step
