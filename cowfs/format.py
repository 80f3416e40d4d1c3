"""Every structure on the device, declared once: how it is laid out, written, read and checked.

docs/format.md describes the same byte for byte; a test reads a committed image so that the two
cannot drift apart unseen. All integers are little-endian; sizes are in bytes, addresses in blocks.
The node page itself is declared in `_node.pyx`, where it is walked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from . import limits
from .codec import COMPRESSION_NAMES, checksum
from .errors import FormatError, UsageError

MAGIC = b"\x89cowfs\r\n"
VERSION = 2
TWO_COPIES = 1
"""Incompatible feature: nodes have a second copy, whose space who does not know it would lose."""
KNOWN_INCOMPATIBLE = TWO_COPIES
"""Feature flags without which an image must not be opened at all."""
KNOWN_READ_ONLY = 0
"""Feature flags without which an image may be read but not written."""

CHECKSUM_SIZE = 16
LABEL_SIZE = 64
DATA_LEVEL = 255
"""The level that a pointer gives for what is not a node."""


# --- pointers -----------------------------------------------------------------------------------

_POINTER = struct.Struct("<QQIIBBH16s")
POINTER_SIZE = _POINTER.size
_SUMMARY = struct.Struct("<QQQI")
REF_SIZE = POINTER_SIZE + _SUMMARY.size
NO_REF = bytes(REF_SIZE)
_TWIN_SIGN = 1 << 31
_LOWER = 0xFFFF
_LEVEL_AT = struct.calcsize("<QQIIB")
_OUTSIDE_AT = POINTER_SIZE + struct.calcsize("<QQQ")
_NOTHING = bytes(REF_SIZE - _OUTSIDE_AT)
_BLOB = struct.Struct("<QI")
TREE_CELL_SIZE = REF_SIZE + _BLOB.size


class Pointer(NamedTuple):
    """What proves a block: where it is, how it is stored, and its checksum."""

    block: int
    birth: int
    stored: int
    logical: int
    compression: int
    level: int
    twin: int
    """Of a node: blocks from this copy to the second, which may lie before it; 0 without one."""
    checksum: bytes

    def blocks(self, block_size: int) -> int:
        """Blocks that a copy occupies."""
        return -(-self.stored // block_size)

    def spans(self, block_size: int) -> list[tuple[int, int]]:
        """(block, blocks) of each copy."""
        blocks = self.blocks(block_size)
        copies = (self.block, self.block + self.twin) if self.twin else (self.block,)
        return [(block, blocks) for block in copies]

    def occupied(self, block_size: int) -> int:
        """Bytes that it takes on the device, with its second copy."""
        return self.blocks(block_size) * block_size * (2 if self.twin else 1)


class Summary(NamedTuple):
    """What lies at and below a node: items, logical and stored bytes, cells that point outside."""

    items: int
    logical: int
    stored: int
    outside: int


def unpack_pointer(data: bytes) -> Pointer:
    """The pointer at the start of a cell or reference."""
    pointer = Pointer._make(_POINTER.unpack_from(data))
    if pointer.twin or (pointer.logical > _LOWER and pointer.level != DATA_LEVEL):
        return _with_twin(pointer)  # seldom: this is asked for each extent and leaf
    return pointer


def _with_twin(pointer: Pointer) -> Pointer:
    """A pointer whose two halves of the distance to the second copy, if it has one, are joined."""
    if pointer.level == DATA_LEVEL:
        return pointer._replace(twin=0)
    distance = (pointer.logical & ~_LOWER) | pointer.twin
    twin = (distance ^ _TWIN_SIGN) - _TWIN_SIGN
    return pointer._replace(logical=pointer.logical & _LOWER, twin=twin)


def pack_pointer(
    block: int,
    birth: int,
    stored: int,
    logical: int,
    compression: int,
    level: int,
    digest: bytes,
    twin: int = 0,
) -> bytes:
    """A pointer as it is stored."""
    if level != DATA_LEVEL:
        logical |= twin & (_LOWER << 16)
    return _POINTER.pack(block, birth, stored, logical, compression, level, twin & _LOWER, digest)


def unpack_summary(ref: bytes) -> Summary:
    """The summary in a node reference."""
    return Summary._make(_SUMMARY.unpack_from(ref, POINTER_SIZE))


def is_plain_leaf(ref: bytes) -> bool:
    """Whether a node reference is one to a leaf that points nowhere: to release it is to release
    its block. Destroying asks this of each leaf, so nothing else is unpacked."""
    return ref[_LEVEL_AT] == 0 and ref[_OUTSIDE_AT:REF_SIZE] == _NOTHING


def pack_blob(ref: bytes, size: int, record_size: int) -> bytes:
    """A TREE cell: the reference of a tree of records, and the size of the whole."""
    return ref + _BLOB.pack(size, record_size)


def unpack_blob(cell: bytes) -> tuple[bytes, int, int]:
    """(reference, size, record size) of a TREE cell; an empty tree's reference is NO_REF."""
    size, record_size = _BLOB.unpack_from(cell, REF_SIZE)
    return cell[:REF_SIZE], size, record_size


# --- superblock ---------------------------------------------------------------------------------

_SUPERBLOCK = struct.Struct("<8sIIQQQ16s64sIIQQQQQQQ16s")


@dataclass(frozen=True, slots=True)
class Superblock:
    """Identity and parameters of a store, and where its newest checkpoint record is."""

    uuid: bytes
    label: str
    block_size: int
    node_size: int
    compression: int
    limit_blocks: int
    """Blocks that the image may grow to; 0 where it may grow as needed."""
    created_ns: int
    sequence: int
    """Number of this superblock: the highest that verifies is in force, and gives the ring slot."""
    txid: int
    """Transaction of the checkpoint."""
    record_block: int
    total_blocks: int
    """Blocks that the image had at the checkpoint."""
    durable_txid: int
    """Records up to this transaction are known to be on the device whole, and need no proof."""
    record_previous: bytes
    """Checksum that the checkpoint record names as that of the record before it."""
    compatible: int = 0
    read_only: int = 0
    incompatible: int = 0

    @property
    def metadata_copies(self) -> int:
        """How many copies of each node are written."""
        return 2 if self.incompatible & TWO_COPIES else 1

    def pack(self) -> bytes:
        """One block."""
        body = _SUPERBLOCK.pack(
            MAGIC,
            VERSION,
            self.compression,
            self.compatible,
            self.read_only,
            self.incompatible,
            self.uuid,
            self.label.encode(),
            self.block_size,
            self.node_size,
            self.sequence,
            self.limit_blocks,
            self.created_ns,
            self.txid,
            self.record_block,
            self.total_blocks,
            self.durable_txid,
            self.record_previous,
        )
        body += bytes(self.block_size - CHECKSUM_SIZE - len(body))
        return body + checksum(body)


def check_label(label: str) -> str:
    """The label, or UsageError where it does not fit."""
    if len(label.encode()) > LABEL_SIZE or "\0" in label:
        raise UsageError(f"label {label!r}: a label has at most {LABEL_SIZE} bytes, and no NUL")
    return label


def unpack_superblock(data: bytes) -> Superblock | None:
    """The superblock in `data` (which may run on behind it), or None where it does not verify.

    FormatError where it is a sound superblock of a newer version.
    """
    if len(data) < _SUPERBLOCK.size or data[: len(MAGIC)] != MAGIC:
        return None
    fields = _SUPERBLOCK.unpack_from(data)
    version, compression, compatible, read_only, incompatible = fields[1:6]
    uuid, label, block_size, node_size = fields[6:10]
    if block_size not in limits.BLOCK_SIZES or len(data) < block_size:
        return None
    body = data[: block_size - CHECKSUM_SIZE]
    if checksum(body) != data[block_size - CHECKSUM_SIZE : block_size]:
        return None
    if version > VERSION:
        raise FormatError(f"format version {version}; this cowfs reads up to {VERSION}: update it")
    if version < VERSION:
        raise FormatError(f"format version {version} of before 1.0; this cowfs reads {VERSION}")
    if incompatible & ~KNOWN_INCOMPATIBLE:
        raise FormatError(
            f"needs features {incompatible & ~KNOWN_INCOMPATIBLE:#x} that this cowfs does not know"
        )
    if compression not in COMPRESSION_NAMES.values():
        raise FormatError(f"compression {compression}, which this cowfs does not know")
    sequence, limit, created, txid, block, total, durable, previous = fields[10:]
    if (
        node_size not in limits.NODE_SIZES
        or max(sequence, txid, durable, block, limit) > limits.MAX_NUMBER
        or 0 < limit < limits.MIN_IMAGE_BLOCKS
    ):
        return None
    return Superblock(
        uuid=uuid,
        label=label.rstrip(b"\0").decode(errors="replace"),
        block_size=block_size,
        node_size=node_size,
        compression=compression,
        limit_blocks=limit,
        created_ns=created,
        sequence=sequence,
        txid=txid,
        record_block=block,
        total_blocks=total,
        durable_txid=durable,
        record_previous=previous,
        compatible=compatible,
        read_only=read_only,
        incompatible=incompatible,
    )


# --- commit record ------------------------------------------------------------------------------

RECORD_MAGIC = b"cowfsLOG"
_RECORD = struct.Struct("<8sQ16s16sQQQBBHIIIII")
_RUN = struct.Struct("<QI16s")
_SEGMENT = struct.Struct("<QI")
_COPY = struct.Struct("<Q")
_COUNT = struct.Struct("<QI")

FLAG_CHECKPOINT = 1
"""The record stands on its own: it names the space tree of this very moment."""
FLAG_FLUSHED = 2
"""All blocks of the transaction were flushed before the record was written."""
FLAG_OPERATIONS = 4
"""The record holds operations on trees instead of a delta, and no roots: those of the record before
it stand, and what these operations make of them is in memory only, until trees are stored."""
FLAG_COPIES = 8
"""The record says where second copies are: where metadata has two."""


class Run(NamedTuple):
    """Blocks that a transaction wrote in one piece, and the checksum over them."""

    block: int
    blocks: int
    checksum: bytes


@dataclass(slots=True)
class Delta:
    """What a transaction does to free space and counts."""

    segments: list[tuple[int, int]] = field(default_factory=list)
    """(block, blocks) that are now in use."""
    freed: bytes = b""
    """Words `block << 16 | blocks` of what is free now."""
    counts: dict[int, int] = field(default_factory=dict)
    """New counts; 1 or 0 for a block that is no longer shared."""

    def pack(self) -> bytes:
        """The delta as it is stored, inside the record or in overflow extents."""
        return b"".join(
            (
                struct.pack("<III", len(self.segments), len(self.freed) // 8, len(self.counts)),
                *(_SEGMENT.pack(*segment) for segment in self.segments),
                self.freed,
                *(_COUNT.pack(*item) for item in self.counts.items()),
            )
        )


def unpack_delta(data: bytes) -> Delta:
    """ValueError where `data` is no delta."""
    try:
        segments, freed, counts = struct.unpack_from("<III", data)
        at = 12
        stop = at + segments * _SEGMENT.size
        delta = Delta([(a, b) for a, b in _SEGMENT.iter_unpack(data[at:stop])])
        delta.freed = data[stop : stop + 8 * freed]
        at = stop + 8 * freed
        stop = at + counts * _COUNT.size
        delta.counts = dict(_COUNT.iter_unpack(data[at:stop]))
    except struct.error as error:
        raise ValueError(str(error)) from None
    if stop != len(data) or len(delta.freed) != 8 * freed:
        raise ValueError(f"a delta of {stop} bytes in {len(data)}")
    if any(start > limits.MAX_NUMBER for start, _ in delta.segments):
        raise ValueError("blocks beyond the end of any image")
    if any(count > limits.MAX_COUNT for count in delta.counts.values()):
        raise ValueError("an impossible count")
    return delta


_OPERATION = struct.Struct("<BBHH")
OPERATION_TREE, OPERATION_PUT, OPERATION_DELETE, OPERATION_RANGE = range(4)
_TREE_ID_SIZE = 8


def unpack_operations(packed: bytes) -> Iterator[tuple[int, int, bytes, bytes]]:
    """(id of a tree, operation, key, value) of each in a list as `_ledger.Operations` packs it;
    ValueError where there is none."""
    at, tree = 0, 0
    while at < len(packed):
        if at + _OPERATION.size > len(packed):
            raise ValueError("a list of operations that ends within one")
        operation, _, key_size, value_size = _OPERATION.unpack_from(packed, at)
        at += _OPERATION.size
        middle, end = at + key_size, at + key_size + value_size
        if end > len(packed) or operation > OPERATION_RANGE:
            raise ValueError(f"an operation {operation} of {key_size} and {value_size} bytes")
        if operation != OPERATION_TREE:
            yield tree, operation, packed[at:middle], packed[middle:end]
        elif key_size == _TREE_ID_SIZE:
            tree = int.from_bytes(packed[at:middle], "little")
        else:
            raise ValueError("an operation on a tree without an id")
        at = end


@dataclass(slots=True)
class CommitRecord:
    """One block for each commit: the new roots, what changed in space, where the next one is."""

    uuid: bytes
    txid: int
    previous: bytes
    """Checksum of the record before this one: records form a chain that cannot be cut and glued."""
    next_block: int
    """Where the record of the next commit will be."""
    total_blocks: int
    durable_txid: int
    """The newest transaction known to be flushed when this record was written."""
    flags: int
    catalog: bytes
    """Reference of the catalog tree's root."""
    space: bytes = NO_REF
    """Reference of the space tree's root, in a checkpoint."""
    runs: list[Run] = field(default_factory=list)
    overflow: list[bytes] = field(default_factory=list)
    """Pointers to the extents that hold the packed delta, where it does not fit here."""
    delta: bytes = b""
    """Or the operations, in a record that holds such."""
    copies: list[int] = field(default_factory=list)
    """Blocks of the second copies, 0 for what has none: of this record, of the next one, and of
    each overflow extent."""
    opening: int = 0
    """Drawn at each opening for writing: a transaction that is made again after a crash has another
    record, so that what followed the lost one, and did arrive, does not follow the new one."""

    @property
    def copy(self) -> int:
        """Where the second copy of this record is; 0: nowhere."""
        return self.copies[0] if self.copies else 0

    @property
    def next_copy(self) -> int:
        """Where the second copy of the next record will be; 0: nowhere."""
        return self.copies[1] if self.copies else 0

    def proof(self, block: int, data: bytes) -> Pointer:
        """A pointer to this record in a block, with all its bytes and its second copy."""
        size = len(data)
        twin = self.copy - block if self.copy else 0
        return Pointer(block, self.txid, size, size, 0, DATA_LEVEL, twin, checksum(data))

    def overflows(self) -> list[Pointer]:
        """Pointers to the overflow extents, with their second copies."""
        pointers = [unpack_pointer(pointer) for pointer in self.overflow]
        for i, copy in enumerate(self.copies[2:]):
            if copy:
                pointers[i] = pointers[i]._replace(twin=copy - pointers[i].block)
        return pointers

    def pack(self, block_size: int) -> bytes | None:
        """One block, or None where it does not fit."""
        body = b"".join(
            (
                _RECORD.pack(
                    RECORD_MAGIC,
                    self.txid,
                    self.uuid,
                    self.previous,
                    self.next_block,
                    self.total_blocks,
                    self.durable_txid,
                    self.flags,
                    0,
                    self.opening,
                    len(self.runs),
                    len(self.overflow),
                    len(self.delta),
                    len(self.catalog),
                    len(self.space),
                ),
                self.catalog,
                self.space,
                *(_RUN.pack(*run) for run in self.runs),
                *self.overflow,
                self.delta,
                *map(_COPY.pack, self.copies),
            )
        )
        room = block_size - CHECKSUM_SIZE - len(body)
        if room < 0:
            return None
        body += bytes(room)
        return body + checksum(body)


def unpack_record(data: bytes) -> CommitRecord | None:
    """The record in one block, or None where there is no sound one."""
    if data[: len(RECORD_MAGIC)] != RECORD_MAGIC or len(data) < limits.BLOCK_SIZES[0]:
        return None
    if checksum(data[:-CHECKSUM_SIZE]) != data[-CHECKSUM_SIZE:]:
        return None
    (
        _,
        txid,
        uuid,
        previous,
        next_block,
        total_blocks,
        durable_txid,
        flags,
        _,
        opening,
        runs,
        overflow,
        delta_length,
        catalog_length,
        space_length,
    ) = _RECORD.unpack_from(data)
    at = _RECORD.size
    sizes = (
        catalog_length,
        space_length,
        runs * _RUN.size,
        overflow * POINTER_SIZE,
        delta_length,
        (2 + overflow) * _COPY.size if flags & FLAG_COPIES else 0,
    )
    if (
        at + sum(sizes) > len(data) - CHECKSUM_SIZE
        or catalog_length != REF_SIZE
        or space_length != REF_SIZE
        or max(txid, next_block, durable_txid) > limits.MAX_NUMBER
    ):
        return None
    parts = []
    for size in sizes:
        parts.append(data[at : at + size])
        at += size
    copies = [block for (block,) in _COPY.iter_unpack(parts[5])] if parts[5] else []
    if copies and max(copies) > limits.MAX_NUMBER:
        return None
    return CommitRecord(
        uuid=uuid,
        txid=txid,
        previous=previous,
        next_block=next_block,
        total_blocks=total_blocks,
        durable_txid=durable_txid,
        flags=flags,
        catalog=parts[0],
        space=parts[1],
        runs=[Run._make(run) for run in _RUN.iter_unpack(parts[2])],
        overflow=[parts[3][i : i + POINTER_SIZE] for i in range(0, len(parts[3]), POINTER_SIZE)],
        delta=parts[4],
        copies=copies,
        opening=opening,
    )


def unproven_next_block(data: bytes) -> int:
    """Where a record that does not verify seems to lead, if it is one at all."""
    return int(_RECORD.unpack_from(data)[4]) if len(data) >= _RECORD.size else 0


# --- space tree: one item for each allocation group ---------------------------------------------

_GROUP = struct.Struct("<BH")
_GROUP_COUNT = struct.Struct("<HI")
GROUP_FREE, GROUP_USED, GROUP_BITMAP = range(3)
GROUP_SHARED = 4
"""Flag beside one of these: a second bitmap follows, of the blocks that are shared."""


def group_key(group: int) -> bytes:
    """Key of a group in the space tree."""
    return struct.pack(">I", group)


def group_number(key: bytes) -> int:
    """The inverse of `group_key`; ValueError where it is none."""
    if len(key) != 4:
        raise ValueError(f"a group with a key of {len(key)} bytes")
    return int.from_bytes(key, "big")


def pack_group(bitmap: bytes, shared: bytes, many: list[tuple[int, int]]) -> bytes:
    """A group's blocks in use, those that are shared, and (index in group, count) of those with a
    count above two."""
    if not any(bitmap):
        kind, bits = GROUP_FREE, b""
    elif bitmap.count(b"\xff") == len(bitmap):
        kind, bits = GROUP_USED, b""
    else:
        kind, bits = GROUP_BITMAP, bitmap
    if any(shared):
        kind, bits = kind | GROUP_SHARED, bits + shared
    return b"".join(
        (_GROUP.pack(kind, len(many)), bits, *(_GROUP_COUNT.pack(*item) for item in many))
    )


def unpack_group(data: bytes, length: int) -> tuple[bytes, bytes, list[tuple[int, int]]]:
    """The inverse of `pack_group` for bitmaps of `length` bytes; ValueError where it is none."""
    try:
        kind, n = _GROUP.unpack_from(data)
        at = _GROUP.size
        if kind & ~GROUP_SHARED == GROUP_FREE:
            bitmap = bytes(length)
        elif kind & ~GROUP_SHARED == GROUP_USED:
            bitmap = b"\xff" * length
        elif kind & ~GROUP_SHARED == GROUP_BITMAP:
            bitmap = data[at : at + length]
            at += length
        else:
            raise ValueError(f"group of kind {kind}")
        shared = bytes(length)
        if kind & GROUP_SHARED:
            shared = data[at : at + length]
            at += length
        many = [(index, count) for index, count in _GROUP_COUNT.iter_unpack(data[at:])]
    except struct.error as error:
        raise ValueError(str(error)) from None
    if len(bitmap) != length or len(shared) != length or len(many) != n:
        raise ValueError("a group of the wrong length")
    return bitmap, shared, many


# --- catalog: what it holds is in catalog.py, how it is stored is here ---------------------------

_DATASET = struct.Struct("<BBHQQQQ")
CATALOG_META = b"\0"
_META = struct.Struct("<QQ")


def pack_meta(next_id: int, next_drop: int) -> bytes:
    """The catalog's counters."""
    return _META.pack(next_id, next_drop)


def unpack_meta(data: bytes) -> tuple[int, int]:
    """(next dataset id, next number in the list of what is being destroyed); ValueError where it is
    neither."""
    if len(data) != _META.size:
        raise ValueError(f"counters of {len(data)} bytes")
    next_id, next_drop = _META.unpack(data)
    if max(next_id, next_drop) > limits.MAX_NUMBER:
        raise ValueError(f"counters at {next_id} and {next_drop}")
    return next_id, next_drop


def name_key(name: str) -> bytes:
    """Key under which a dataset's id is found."""
    return b"N" + name.encode()


def dataset_key(dataset: int) -> bytes:
    """Key of a dataset's record."""
    return b"D" + struct.pack(">Q", dataset)


def snapshot_key(dataset: int, name: str = "") -> bytes:
    """Key of a snapshot's record; without a name, the prefix of all of a dataset."""
    return b"S" + struct.pack(">Q", dataset) + name.encode()


def drop_key(number: int) -> bytes:
    """Key of a subtree that is being destroyed."""
    return b"R" + struct.pack(">Q", number)


def pack_root(
    kind: int, created_ns: int, txid: int, size: int, record_size: int, name: str, ref: bytes | None
) -> bytes:
    """A dataset's or snapshot's record."""
    encoded = name.encode()
    return (
        _DATASET.pack(kind, 0, len(encoded), created_ns, txid, size, record_size)
        + encoded
        + (ref or b"")
    )


def unpack_root(data: bytes) -> tuple[int, int, int, int, int, str, bytes | None]:
    """The inverse of `pack_root`; ValueError where it is none."""
    try:
        kind, _, length, created_ns, txid, size, record_size = _DATASET.unpack_from(data)
    except struct.error as error:
        raise ValueError(str(error)) from None
    name = data[_DATASET.size : _DATASET.size + length].decode()
    ref = data[_DATASET.size + length :]
    if len(ref) not in (0, REF_SIZE):
        raise ValueError("a root reference of the wrong length")
    if txid > limits.MAX_NUMBER:
        raise ValueError(f"a root of transaction {txid}")
    if size > limits.MAX_VALUE or record_size > limits.MAX_RECORD:
        raise ValueError(f"a root of {size} bytes, in records of {record_size}")
    return kind, created_ns, txid, size, record_size, name, ref or None


_POSITION = struct.Struct("<I")
_DROP_ITEM = REF_SIZE + _POSITION.size


def pack_drop(stack: list[tuple[bytes, int]]) -> bytes:
    """How far destroying a subtree has come: (reference, children done) from the top down."""
    return b"".join(ref + _POSITION.pack(done) for ref, done in stack)


def unpack_drop(data: bytes) -> list[tuple[bytes, int]]:
    """The inverse of `pack_drop`; ValueError where it is none."""
    if not data or len(data) % _DROP_ITEM:
        raise ValueError("a drop list of the wrong length")
    return [
        (data[i : i + REF_SIZE], _POSITION.unpack_from(data, i + REF_SIZE)[0])
        for i in range(0, len(data), _DROP_ITEM)
    ]
