"""All datasets and snapshots of a damaged image, each on its way out to a directory of its own.

`OUT/DATASET/@` gets what a dataset holds, `OUT/DATASET/@NAME` a snapshot (no part of a dataset's
name begins with @): of files a tree in `files`, of a volume a sparse file `disk.raw`, of keys and
values `map.dump`, in the form that mdb_dump and db_dump write. Values of which bytes are missing,
and large ones, are no part of a dump: they are in `values/N`, and `values/keys` says whose N is.
"""

from __future__ import annotations

import os
from binascii import hexlify
from collections.abc import Callable, Iterator

from .. import limits
from .._view import EXTENT
from ..catalog import DATASET_NAME, SNAPSHOT_NAME, Root, read_root
from ..device import Device
from ..errors import CorruptionError, UsageError
from ..format import unpack_root, unpack_summary
from ..report import Loss
from ..values import cell_size
from ..volume import BLOB_KEY
from .files import Files
from .moment import Moment, newest
from .output import Refused, fill, make_directories, new_file
from .walk import Cell, Damaged, Gap, Hurt, Item, Piece, walk, whole

Progress = Callable[[int, int], None]

_LARGE = limits.MIB
"""Bytes of a value that is not put into a dump."""
_HEADER = b"VERSION=3\nformat=bytevalue\ntype=btree\nHEADER=END\n"
_CATALOG = "(catalog)"


class Salvage:
    """Copies everything that still verifies on a device to a directory, and nothing to the device.

    Iterate over it: what could not be copied comes as it is found.
    """

    def __init__(
        self, device: Device, out: str | os.PathLike[str], progress: Progress | None = None
    ) -> None:
        self._device = device
        self._out = os.fsencode(out)
        self._progress = progress
        self._total = 0
        self._names: dict[int, str] = {}
        """Of the datasets that have been met."""
        self.txid = 0
        """The transaction as of which it is."""
        self.versions = 0
        """Datasets and snapshots of which something was copied out."""

    def __iter__(self) -> Iterator[Loss]:
        """Raises UsageError where the directory cannot be used, CorruptionError or FormatError
        where there is nothing that could be copied."""
        _prepare(self._out)
        for found in newest(self._device):
            if isinstance(found, str):
                yield Loss("", b"", None, None, None, found)
            else:
                yield from self._all(found)

    def _all(self, moment: Moment) -> Iterator[Loss]:
        self.txid = moment.txid
        if self._progress is not None:
            self._total = sum(map(_stored, walk(moment.source, moment.catalog, _CATALOG)))
            moment.source.tell = self._tell
        for found in walk(moment.source, moment.catalog, _CATALOG):
            if isinstance(found, Gap):
                yield Loss("", b"", None, None, found.block, f"{_names(found)}: {found.reason}")
                continue
            key, _, raw = found
            try:
                if key[:1] == b"D" and len(key) == 9:
                    yield from self._head(moment, int.from_bytes(key[1:], "big"), raw)
                elif key[:1] == b"N":
                    self._note_name(key, raw)
                elif key[:1] == b"S" and len(key) > 9:
                    yield from self._snapshot(moment, int.from_bytes(key[1:9], "big"), raw)
            except CorruptionError as error:
                yield Loss("", b"", None, None, error.block, f"the catalog: {error.reason}")
        for number in moment.later.keys() - self._names.keys():
            yield Loss(
                "", b"", None, None, None, f"what the log holds of dataset {number}, which is lost"
            )

    def _head(self, moment: Moment, number: int, raw: bytes) -> Iterator[Loss]:
        root = read_root(number, raw, DATASET_NAME)
        self._names[number] = root.name
        tree = Damaged(moment.source, root.ref, root.name, moment.later.get(number))
        yield from self._version(tree, root, f"{root.name}/@")

    def _note_name(self, key: bytes, raw: bytes) -> None:
        """The name of a dataset whose record may be lost."""
        name = key[1:].decode("ascii", "backslashreplace")
        if DATASET_NAME.fullmatch(name):
            self._names.setdefault(int.from_bytes(raw[:8], "big"), name)

    def _snapshot(self, moment: Moment, number: int, raw: bytes) -> Iterator[Loss]:
        root = read_root(number, raw, SNAPSHOT_NAME)
        dataset = self._names.get(number, f"@{number}")
        tree = Damaged(moment.source, root.ref, f"{dataset}@{root.name}")
        yield from self._version(tree, root, f"{dataset}/@{root.name}")

    def _version(self, tree: Damaged, root: Root, place: str) -> Iterator[Loss]:
        """One dataset or snapshot."""
        top = os.path.join(self._out, place.encode())
        self.versions += 1
        try:
            make_directories(self._out, place.encode())
            if root.kind == "fs":
                yield from Files(tree, top).run()
            elif root.kind == "kv":
                yield from _Map(tree, top).run()
            else:
                yield from _volume(tree, root.size, top)
        except Refused as refused:
            yield Loss(tree.label, b"", None, None, None, str(refused))

    def _tell(self, done: int) -> None:
        if self._progress is not None:
            self._progress(min(done, self._total), self._total)


class _Map:
    """A dataset or snapshot of keys and values."""

    def __init__(self, tree: Damaged, top: bytes) -> None:
        self._tree = tree
        self._top = top
        self._values = 0
        """Values that have files of their own."""

    def run(self) -> Iterator[Loss]:
        """Copy everything out; what was lost."""
        with os.fdopen(new_file(os.path.join(self._top, b"map.dump")), "wb") as dump:
            dump.write(_HEADER)
            for found in self._tree.items():
                if isinstance(found, Gap):
                    yield self._loss(_keys(found), found)
                    continue
                key, cell = found[0], found[1:]
                value, hurt = self._small(cell)
                if value is not None:
                    dump.write(b" %s\n %s\n" % (hexlify(key), hexlify(value)))
                elif hurt is not None:
                    yield self._loss(key, hurt)
                else:
                    yield from self._file(key, cell)
            dump.write(b"DATA=END\n")

    def _small(self, cell: Cell) -> tuple[bytes | None, Hurt | None]:
        """A value for the dump; or what is wrong with it, where all of it is lost."""
        size = cell_size(cell)
        if size <= _LARGE:
            try:
                return whole(self._tree, cell), None
            except CorruptionError as error:
                if cell[0] == EXTENT:
                    return None, Hurt(0, size, error.block, error.reason)
        return None, None

    def _file(self, key: bytes, cell: Cell) -> Iterator[Loss]:
        """A value in a file of its own."""
        self._values += 1
        make_directories(self._top, b"values")
        path = os.path.join(self._top, b"values")
        try:
            fd = new_file(os.path.join(path, b"%d" % self._values))
            try:
                for hurt in fill(fd, cell_size(cell), self._tree.pieces(*cell)):
                    yield self._loss(key, hurt)
            finally:
                os.close(fd)
        except Refused as refused:
            yield Loss(self._tree.label, key, None, None, None, str(refused))
        with open(os.path.join(path, b"keys"), "ab") as keys:
            keys.write(b"%d\t%s\n" % (self._values, hexlify(key)))

    def _loss(self, what: bytes, found: Gap | Hurt) -> Loss:
        start, stop = (found.start, found.stop) if isinstance(found, Hurt) else (None, None)
        return Loss(self._tree.label, what, start, stop, found.block, found.reason)


def _volume(tree: Damaged, size: int, top: bytes) -> Iterator[Loss]:
    """The disk that a volume is."""

    def parts() -> Iterator[Piece | Hurt]:
        for found in tree.items():
            if isinstance(found, Gap):
                yield Hurt(0, size, found.block, found.reason)
            elif found[0] == BLOB_KEY:
                yield from tree.pieces(*found[1:])

    fd = new_file(os.path.join(top, b"disk.raw"))
    try:
        for hurt in fill(fd, size, parts()):
            yield Loss(tree.label, b"", hurt.start, hurt.stop, hurt.block, hurt.reason)
    finally:
        os.close(fd)


def _prepare(out: bytes) -> None:
    """Make the directory, or see that it is empty."""
    try:
        os.mkdir(out)
    except FileExistsError:
        if not os.path.isdir(out) or os.listdir(out):
            raise UsageError(
                f"{os.fsdecode(out)}: exists already; name a directory that is new or empty"
            ) from None
    except FileNotFoundError:
        raise UsageError(f"{os.fsdecode(out)}: the directory above does not exist") from None


def _stored(found: Item | Gap) -> int:
    """Bytes that a root in the catalog says are below it."""
    if isinstance(found, Gap) or found[0][:1] not in (b"D", b"S"):
        return 0
    try:
        ref = unpack_root(found[2])[6]
    except ValueError:
        return 0
    return unpack_summary(ref).stored if ref is not None else 0


def _keys(gap: Gap) -> bytes:
    """The keys in a gap."""
    if gap.high is None:
        return b"keys from %s on" % gap.low if gap.low else b"all keys"
    return b"keys from %s to %s" % (gap.low, gap.high)


def _names(gap: Gap) -> str:
    """What of the catalog lies in a gap."""
    kinds = {"D": "datasets", "N": "names of datasets", "S": "snapshots"}
    first, last = gap.low[:1] or b"D", gap.high[:1] if gap.high is not None else b"S"
    return " and ".join(name for of, name in kinds.items() if first <= of.encode() <= last)
