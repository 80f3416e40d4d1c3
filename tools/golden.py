"""What is in fixtures/golden-2.cow.gz: made by `tools/fixtures`, read by tests/unit/test_golden.py.

Small, but with one of everything that the format knows: all kinds of cells and datasets, trees of
several levels, holes, shared and unshared nodes, a subtree that is being destroyed, a log with
overflow, operations that no tree shows yet, and a commit in flight that did not arrive whole.
"""

from __future__ import annotations

import random
import stat
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import cowfs
from cowfs import limits
from cowfs.format import unpack_record
from cowfs.fs import FS
from cowfs.limits import KIB, MIB

NAME = "golden-2.cow.gz"
"""The number is that of the format version."""
LABEL = "golden äöü"

Items = dict[bytes, bytes]

# --- contents -----------------------------------------------------------------------------------


def text(size: int, seed: int) -> bytes:
    """Bytes that compress well."""
    words = [b"%x " % random.Random(seed).getrandbits(40) for _ in range(20)]
    return (b"".join(words) * (size // 100 + 1))[:size]


def noise(size: int, seed: int) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(size)


def first_items() -> Items:
    """The map `keys` at its first snapshot."""
    items = {b"user/%06d" % (i * 7919 % 99991): b"value %d of the map" % i for i in range(2000)}
    items |= {bytes([i]) * length: b"" for i, length in ((1, 1), (2, 2), (255, 1), (254, 1024))}
    items |= {
        b"size/0000": b"",
        b"size/1920": text(1920, 1),
        b"size/1921": text(1921, 2),
        b"size/extent, compressed": text(100 * KIB, 3),
        b"size/extent, raw": noise(5 * KIB, 4),
        b"size/record": text(128 * KIB, 5),
        b"size/records": text(300 * KIB, 6),
        b"size/holes": text(128 * KIB, 7) + bytes(512 * KIB) + text(1000, 8),
        b"size/zeros": bytes(MIB),
    }
    return items


def second_items() -> Items:
    """The map at its second snapshot."""
    items = first_items()
    for i in range(0, 2000, 50):
        items[b"user/%06d" % (i * 7919 % 99991)] = b"changed %d" % i
    for key in [key for key in items if key.startswith(b"user/04")]:
        del items[key]
    items[b"size/records"] = text(300 * KIB, 6)[: 200 * KIB] + b"patched" * 1000
    return items


def last_items() -> Items:
    """The map as its last whole commit left it."""
    items = second_items()
    items |= {b"last/%03d" % i: b"one commit each" for i in range(5)}
    items |= {b"last/many %03d" % i: noise(60, i) for i in range(100)}
    del items[b"size/0000"], items[b"last/many 050"], items[b"last/many 051"]
    items[b"last/not durable"] = b"but on the device"
    return items


def cloned_items() -> Items:
    """The clone of the first snapshot."""
    return first_items() | {b"user/000000": b"another in the clone", b"only/here": b"!"}


def small_extents() -> Items:
    """Many values of one block each, whose removal makes a long delta."""
    return {b"%04d" % i: text(2000, i % 4) for i in range(300)}


VOLUME_SIZE = 64 * MIB
VOLUME_WRITES = {0: text(4 * KIB, 20), 10 * MIB + 5: b"unaligned", 64 * MIB - 512: text(512, 21)}
VOLUME_LATER = {128 * KIB: text(200 * KIB, 22), 10 * MIB: b"over the old"}


def volume_bytes(*writes: dict[int, bytes]) -> bytes:
    """The whole volume after some writes."""
    content = bytearray(VOLUME_SIZE)
    for part in writes:
        for offset, data in part.items():
            content[offset : offset + len(data)] = data
    return bytes(content)


@dataclass
class File:
    """A file as `lstat` and a read show it."""

    mode: int
    content: bytes = b""
    """Of a symbolic link, its target."""
    mtime_ns: int = 1_700_000_000_123_456_789
    uid: int = 1000
    gid: int = 100
    xattrs: dict[str, bytes] = field(default_factory=dict)
    links: int = 1


REGULAR, DIRECTORY, LINK, FIFO = stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK | 0o777, stat.S_IFIFO


def first_files() -> dict[bytes, File]:
    """The file system at its snapshot; directories before what is in them."""
    files = {
        b"/empty": File(REGULAR | 0o644),
        b"/inline": File(REGULAR | 0o600, b"a few bytes\n", mtime_ns=-1_000_000_000),
        b"/extent": File(REGULAR | 0o4755, text(50 * KIB, 30)),
        b"/records": File(REGULAR | 0o640, text(400 * KIB, 31)),
        b"/sparse": File(REGULAR | 0o644, bytes(MIB) + b"behind a hole"),
        b"/name \xff\xfe of no text": File(REGULAR | 0o644, b"bytes"),
        b"/" + b"n" * 255: File(REGULAR | 0o644, b"the longest name"),
        b"/attributes": File(
            REGULAR | 0o644, xattrs={"user.small": b"\0\1", "user.large": noise(3000, 32)}
        ),
        b"/link": File(LINK, b"inline"),
        b"/long link": File(LINK, b"x/" * 2000),
        b"/fifo": File(FIFO | 0o620),
        b"/two names": File(REGULAR | 0o644, b"one file", links=2),
        b"/directory": File(DIRECTORY | 0o1777, links=3),
        b"/directory/inner": File(DIRECTORY | 0o700, links=2),
        b"/directory/inner/other name": File(REGULAR | 0o644, b"one file", links=2),
        b"/many": File(DIRECTORY | 0o755, links=2),
    }
    for i in range(200):
        files[b"/many/%03d" % i] = File(REGULAR | 0o644, b"%d" % i)
    return files


def last_files() -> dict[bytes, File]:
    """The file system now."""
    files = first_files()
    files[b"/inline"].content = b"other bytes\n"
    files[b"/extent"].mode = REGULAR | 0o755
    del files[b"/empty"]
    for path in [path for path in files if path.startswith(b"/directory")]:
        files[path.replace(b"/directory", b"/renamed")] = files.pop(path)
    files[b"/shared copy"] = File(REGULAR | 0o640, text(400 * KIB, 31))
    files[b"/orphan's neighbour"] = File(REGULAR | 0o644, b"new")
    return files


FILE_CHANGES = [
    ("M", b"/", None),
    ("R", b"/directory", b"/renamed"),
    ("-", b"/empty", None),
    ("M", b"/extent", None),
    ("M", b"/inline", None),
    ("+", b"/orphan's neighbour", None),
    ("+", b"/shared copy", None),
]

DATASETS = {
    "clone": "kv",
    "disk": "volume",
    "disk@clean": "volume",
    "empty": "kv",
    "empty@nothing": "kv",
    "files": "fs",
    "files@before": "fs",
    "keys": "kv",
    "keys@first": "kv",
    "keys@second": "kv",
    "renamed/to:this": "kv",
}

# --- making it ----------------------------------------------------------------------------------


def build(path: Path) -> bytes:
    """The image, made in a file at `path` and taken from it as by a stop of the machine."""
    with cowfs.open(path, "n", label=LABEL, punch=False) as store:
        _fill(store)
        _snapshots(store)
        _destroy_in_part(store)
        _log_tail(store)
        return _cut_off(store, path)


def _fill(store: cowfs.Store) -> None:
    with store.transaction() as tx:
        tx.create("keys").load_sorted(sorted(first_items().items()))
        tx.create("empty")
        tx.create("named-before")[b"key"] = b"value"
        tx.create("doomed").update(small_extents())
        tx.create("small").update(small_extents())
    with store.transaction() as tx:
        write_files(tx.create("files", kind="fs"), first_files())
    disk = store.create("disk", kind="volume", size=VOLUME_SIZE)
    for offset, data in VOLUME_WRITES.items():
        disk.pwrite(data, offset)


def write_files(fs: FS, files: dict[bytes, File]) -> None:
    """Make files as they are described."""
    names: dict[bytes, bytes] = {}
    for path, file in files.items():
        kind = stat.S_IFMT(file.mode)
        if kind == stat.S_IFDIR:
            fs.mkdir(path)
        elif kind == stat.S_IFLNK:
            fs.symlink(file.content, path)
        elif kind == stat.S_IFIFO:
            fs.mkfifo(path)
        elif file.links > 1 and file.content in names:
            fs.link(names[file.content], path)
        else:
            names[file.content] = path
            fs.write_bytes(path, b"")
            with fs.open(path, "r+b") as stream:
                skip = len(file.content) - len(file.content.lstrip(b"\0"))
                stream.seek(skip)
                stream.write(file.content[skip:])
        for name, value in file.xattrs.items():
            fs.setxattr(path, name, value)
    for path, file in reversed(files.items()):
        _set_state(fs, path, file)


def _set_state(fs: FS, path: bytes, file: File) -> None:
    fs.chown(path, file.uid, file.gid, follow_symlinks=False)
    if not stat.S_ISLNK(file.mode):
        fs.chmod(path, stat.S_IMODE(file.mode))
    fs.utime(path, ns=(file.mtime_ns + 1, file.mtime_ns), follow_symlinks=False)


def _snapshots(store: cowfs.Store) -> None:
    store.snapshot("keys@first", "empty@nothing", "files@before", "disk@clean")
    with store.transaction() as tx:
        keys, items = tx["keys"], second_items()
        keys.delete_range(b"user/04", b"user/05")
        for key, value in items.items():
            if key.startswith(b"user/") and keys[key] != value:
                keys[key] = value
        keys[b"size/records"] = items[b"size/records"]
        tx.snapshot("keys@second")
    clone = store.clone("keys@first", "clone")
    clone.update({key: cloned_items()[key] for key in (b"user/000000", b"only/here")})
    with store.transaction() as tx:
        fs, files = tx["files"], last_files()
        fs.write_bytes("/inline", files[b"/inline"].content)
        fs.chmod("/extent", 0o755)
        fs.unlink("/empty")
        fs.rename("/directory", "/renamed")
        fs.copy("/records", "/shared copy")
        fs.write_bytes("/orphan's neighbour", b"new")
        for path in (b"/inline", b"/shared copy", b"/orphan's neighbour", b"/renamed", b"/extent"):
            _set_state(fs, path, files[path])
    for offset, data in VOLUME_LATER.items():
        store["disk"].pwrite(data, offset)
    store.rename("named-before", "renamed/to:this")


def _destroy_in_part(store: cowfs.Store) -> None:
    """Leave a subtree behind of which a part is destroyed already."""
    with mock.patch.object(limits, "REAP_BLOCKS", 40), store.transaction() as tx:
        tx.destroy("doomed")


def _log_tail(store: cowfs.Store) -> None:
    """A checkpoint, and commits of all sorts behind it."""
    with store.transaction() as tx:
        tx.checkpoint = True
    with store.transaction() as tx:
        tx.destroy("small")  # frees so much that the delta overflows
    keys = store["keys"]
    for i in range(5):
        keys[b"last/%03d" % i] = b"one commit each"
    with store.transaction() as tx:  # more than a record has room for, and another dataset
        tx["keys"].update({b"last/many %03d" % i: noise(60, i) for i in range(100)})
        tx["empty"][b"key"] = b"value"
    with store.transaction() as tx:
        tx["keys"].delete_range(b"last/many 050", b"last/many 052")
        del tx["keys"][b"size/0000"], tx["empty"][b"key"]
    with store.transaction(durable=False) as tx:
        tx["keys"][b"last/not durable"] = b"but on the device"


def _cut_off(store: cowfs.Store, path: Path) -> bytes:
    """The image as it is with one more commit, of which a block did not arrive."""
    log, block_size = store.log, 4 * KIB
    block = log.next_block
    store["keys"][b"in flight"] = noise(5 * KIB, 9)
    image = bytearray(path.read_bytes())
    record = unpack_record(bytes(image[block * block_size : (block + 1) * block_size]))
    assert record is not None and record.runs, "the last commit has no runs to prove"
    lost = (record.runs[-1].block + record.runs[-1].blocks - 1) * block_size
    image[lost : lost + block_size] = bytes(block_size)
    return bytes(image)


# --- reading it ---------------------------------------------------------------------------------


def read_files(fs: FS) -> dict[bytes, File]:
    """Everything in a file system, as it was described."""
    found = {}
    for top, directories, others in fs.walk(b"/"):
        for name in directories + others:
            path = top.rstrip(b"/") + b"/" + name
            status = fs.lstat(path)
            content = b""
            if stat.S_ISREG(status.st_mode):
                content = fs.read_bytes(path)
            elif stat.S_ISLNK(status.st_mode):
                content = fs.readlink(path)
            attributes = fs.listxattr(path, follow_symlinks=False)
            found[path] = File(
                status.st_mode,
                content,
                status.st_mtime_ns,
                status.st_uid,
                status.st_gid,
                {a: fs.getxattr(path, a, follow_symlinks=False) for a in attributes},
                status.st_nlink,
            )
    return found
