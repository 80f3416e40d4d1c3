"""The catalog: the tree of names, dataset and snapshot records, and what is being destroyed.

It knows how these are kept and which names are allowed; what snapshots and clones *mean* for
reference counts is the transaction's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from . import limits
from ._tree import Tree
from .errors import CorruptionError, ExistsError, KindError, NotFoundError, UsageError
from .format import (
    CATALOG_META,
    dataset_key,
    drop_key,
    name_key,
    pack_drop,
    pack_meta,
    pack_root,
    snapshot_key,
    unpack_drop,
    unpack_meta,
    unpack_root,
)
from .sizes import show_size

KINDS = ("kv", "fs", "volume")

CATALOG_OWNER = 1
SPACE_OWNER = 2
LARGEST = {CATALOG_OWNER: 0, SPACE_OWNER: 64 * limits.KIB}
"""Bytes of the largest value that is not in a leaf: of an allocation group, all of it counted."""
FIRST_DATASET = 16
"""Ids of trees: below this, the store's own."""

DATASET_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.:-]|/(?=[A-Za-z0-9_]))*")
SNAPSHOT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
MAX_NAME = 200
_DROP_LEVELS = 8
"""Levels of a subtree that is being destroyed in one item: they fit the smallest leaf."""


def check_dataset_name(name: str) -> str:
    """The name, or UsageError that says which are allowed."""
    if not _may_be_named(name):
        raise UsageError(
            f"dataset name {name!r}: allowed are 1 to {MAX_NAME} of the characters "
            "A-Z a-z 0-9 _ . - : and / between parts, each part starting with a letter, digit or _"
        )
    return name


def _may_be_named(name: object) -> bool:
    return isinstance(name, str) and len(name) <= MAX_NAME and bool(DATASET_NAME.fullmatch(name))


def is_snapshot_name(name: str) -> bool:
    """Whether a name is one of a snapshot. UsageError where it is no string."""
    if not isinstance(name, str):
        raise UsageError(f"name {name!r}: a dataset is named by a string, a snapshot DATASET@NAME")
    return "@" in name


def split_snapshot(name: str) -> tuple[str, str]:
    """`dataset@snapshot` taken apart and checked."""
    if not isinstance(name, str) or name.count("@") != 1:
        raise UsageError(f"snapshot name {name!r}: a snapshot is named DATASET@NAME")
    dataset, _, snapshot = name.partition("@")
    check_dataset_name(dataset)
    if len(snapshot) > MAX_NAME or not SNAPSHOT_NAME.fullmatch(snapshot):
        raise UsageError(
            f"snapshot name {snapshot!r}: allowed are 1 to {MAX_NAME} of the characters "
            "A-Z a-z 0-9 _ . - : starting with a letter, digit or _"
        )
    return dataset, snapshot


def check_volume_size(size: int) -> int:
    """The bytes of a volume, or UsageError where none can have so many."""
    if not (isinstance(size, int) and 0 < size <= limits.MAX_VALUE):
        raise UsageError(f"size {size!r}: a volume has 1 byte to {show_size(limits.MAX_VALUE)}")
    return size


def check_record_size(size: int | None, block_size: int) -> int:
    """The bytes of a volume's records, by default VOLUME_RECORD_SIZE; UsageError where an image
    with blocks of `block_size` cannot have them."""
    if size is None:
        return max(limits.VOLUME_RECORD_SIZE, block_size)
    allowed = [found for found in limits.VOLUME_RECORD_SIZES if found >= block_size]
    if size not in allowed:
        shown = ", ".join(map(show_size, allowed))
        raise UsageError(f"record size {size!r}: allowed in this image are {shown}")
    return size


@dataclass(frozen=True, slots=True)
class Root:
    """A dataset's head, or a snapshot: where its tree begins."""

    dataset: int
    name: str
    """Of the dataset, or of the snapshot without the dataset."""
    kind: str
    created_ns: int
    txid: int
    """The transaction that made it."""
    size: int
    """Bytes of a volume; 0 for the others."""
    record_size: int
    """Bytes of the records of a volume; RECORD_SIZE for the others."""
    ref: bytes | None
    """Reference of the root node; None for an empty tree."""


class Catalog:
    """Typed access to the catalog tree; changes need a tree with a ledger."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    # --- reading --------------------------------------------------------------------------------

    def dataset(self, name: str) -> Root:
        """The head of a dataset. Raises NotFoundError."""
        check_dataset_name(name)
        found = self.find(name)
        if found is None:
            known = ", ".join(sorted(self.names())[:8]) or "none yet"
            raise NotFoundError(f"no dataset {name!r} in this image; there are: {known}")
        return found

    def find(self, name: str) -> Root | None:
        """The head of a dataset, or None: for what is no name at all, too."""
        if not _may_be_named(name):
            return None
        number = self.tree.get(name_key(name))
        return None if number is None else self._head(name, number)

    def by_id(self, dataset: int) -> Root:
        """The head of the dataset with this id."""
        return self._root(dataset, self._need(dataset_key(dataset)), DATASET_NAME)

    def snapshot(self, dataset: Root, name: str) -> Root:
        """One snapshot of a dataset. Raises NotFoundError."""
        data = self.tree.get(snapshot_key(dataset.dataset, name))
        if data is None:
            known = ", ".join(s.name for s in self.snapshots(dataset)) or "none"
            raise NotFoundError(
                f"dataset {dataset.name!r} has no snapshot {name!r}; it has: {known}"
            )
        return self._snapshot(dataset, data, name)

    def has_snapshot(self, dataset: Root, name: str) -> bool:
        """Whether a dataset has a snapshot of that name. Costs the same, however many it has."""
        return snapshot_key(dataset.dataset, name) in self.tree

    def resolve(self, name: str) -> Root:
        """A head or a snapshot by its full name. Raises NotFoundError."""
        if is_snapshot_name(name):
            dataset, snapshot = split_snapshot(name)
            return self.snapshot(self.dataset(dataset), snapshot)
        return self.dataset(name)

    def names(self) -> Iterator[str]:
        """Names of all datasets, in order."""
        for key in self.tree.items_between(b"N", b"O", False, 1):
            yield _name(key[1:], DATASET_NAME)

    def datasets(self) -> Iterator[Root]:
        """All heads, by name."""
        for key, number in self.tree.items_between(b"N", b"O"):
            yield self._head(_name(key[1:], DATASET_NAME), number)

    def snapshots(self, dataset: Root) -> list[Root]:
        """A dataset's snapshots, oldest first."""
        start = snapshot_key(dataset.dataset)
        found = []
        for key, data in self._snapshot_items(dataset.dataset):
            name = _name(key[len(start) :], SNAPSHOT_NAME)
            found.append(self._snapshot(dataset, data, name))
        return sorted(found, key=lambda root: (root.txid, root.created_ns, root.name))

    def drops(self) -> Iterator[tuple[int, list[tuple[bytes, int]]]]:
        """(number, position) of each subtree that is being destroyed, oldest first."""
        for key, data in self.tree.items_between(b"R", b"S", False, 0):
            try:
                stack = unpack_drop(data)
            except ValueError as error:
                raise _corrupt(str(error)) from None
            number = int.from_bytes(key[1:], "big")
            if key != drop_key(min(number, limits.MAX_NUMBER)):
                raise _corrupt(f"an item {key!r}")
            for ref, _ in stack:
                self.tree.check_ref(ref)
            yield number, stack

    def faults(self) -> Iterator[str]:
        """What in the catalog does not fit together, a line each."""
        heads = {head.dataset: head for head in self.datasets()}
        next_id, next_drop = self._meta()
        numbers = [number for number, _ in self.drops()]
        if heads and next_id <= max(heads):
            yield f"the next dataset is to be number {next_id}, of {max(heads)}"
        if numbers and next_drop <= max(numbers):
            yield f"the next subtree to be destroyed is to be number {next_drop}, of {max(numbers)}"
        for key in self.tree.items_between(what=1):
            number = int.from_bytes(key[1:9], "big")
            known = number in heads and (
                key == dataset_key(number) or (key[:1] == b"S" and len(key) > len(snapshot_key(0)))
            )
            if not (known or key == CATALOG_META or key[:1] in (b"N", b"R")):
                yield f"an item {key!r} that belongs to no dataset"

    def _head(self, name: str, number: bytes) -> Root:
        dataset = int.from_bytes(number, "big")
        if len(number) != 8 or not FIRST_DATASET <= dataset < limits.MAX_NUMBER:
            raise _corrupt(f"dataset {name!r} has the number {number.hex()}")
        return self._root(dataset, self._need(b"D" + number), DATASET_NAME, name)

    def _snapshot_items(self, dataset: int) -> Iterator[tuple[bytes, bytes]]:
        return self.tree.items_between(snapshot_key(dataset), snapshot_key(dataset + 1))

    def _need(self, key: bytes) -> bytes:
        data: bytes | None = self.tree.get(key)
        if data is None:
            raise _corrupt(f"the record {key!r} is missing")
        return data

    def _root(
        self, dataset: int, data: bytes, allowed: re.Pattern[str], name: str | None = None
    ) -> Root:
        """A head or snapshot, which must have that `name` where it is known by one."""
        root = read_root(dataset, data, allowed)
        if name is not None and root.name != name:
            raise _corrupt(f"{root.name!r} is listed as {name!r}")
        if root.ref is not None:
            self.tree.check_ref(root.ref)
        return root

    def _snapshot(self, dataset: Root, data: bytes, name: str) -> Root:
        root = self._root(dataset.dataset, data, SNAPSHOT_NAME, name)
        if root.kind != dataset.kind:
            raise _corrupt(
                f"a snapshot {name!r} of kind {root.kind}, and {dataset.kind} its dataset"
            )
        return root

    # --- changing -------------------------------------------------------------------------------

    def add_dataset(self, name: str, kind: str, **fields: int | bytes | None) -> Root:
        """A new head under a free name. Raises ExistsError."""
        check_dataset_name(name)
        if kind not in KINDS:
            raise KindError(f"kind {kind!r}: a dataset is one of {', '.join(KINDS)}")
        self._need_free(name)
        number, next_drop = self._meta()
        if dataset_key(number) in self.tree or any(True for _ in self._snapshot_items(number)):
            raise _corrupt(f"the next dataset is to be number {number}, of which there are records")
        self.tree.put(CATALOG_META, pack_meta(number + 1, next_drop))
        empty = Root(number, name, kind, 0, 0, 0, 0, None)
        root = replace(empty, **fields)  # type: ignore[arg-type]
        self.tree.put(name_key(name), number.to_bytes(8, "big"))
        self.put_dataset(root)
        return root

    def put_dataset(self, root: Root) -> None:
        """Store a head that is in the catalog already."""
        self.tree.put(dataset_key(root.dataset), _pack(root))

    def rename_dataset(self, root: Root, name: str) -> Root:
        """Another name for a dataset; its snapshots go with it. Raises ExistsError."""
        check_dataset_name(name)
        self._need_free(name)
        self.tree.delete(name_key(root.name))
        self.tree.put(name_key(name), root.dataset.to_bytes(8, "big"))
        renamed = replace(root, name=name)
        self.put_dataset(renamed)
        return renamed

    def remove_dataset(self, root: Root) -> None:
        """Forget a head; its snapshots must be gone."""
        self.tree.delete(name_key(root.name))
        self.tree.delete(dataset_key(root.dataset))

    def add_snapshot(self, root: Root) -> None:
        """Store a new snapshot. Raises ExistsError."""
        if self.has_snapshot(root, root.name):
            raise ExistsError(
                f"{self.by_id(root.dataset).name}@{root.name}: this snapshot exists already"
            )
        self.tree.put(snapshot_key(root.dataset, root.name), _pack(root))

    def rename_snapshot(self, root: Root, name: str) -> None:
        """Another name for a snapshot. Raises ExistsError."""
        self.add_snapshot(replace(root, name=name))
        self.tree.delete(snapshot_key(root.dataset, root.name))

    def remove_snapshot(self, root: Root) -> None:
        """Forget a snapshot."""
        self.tree.delete(snapshot_key(root.dataset, root.name))

    def add_drop(self, stack: list[tuple[bytes, int]]) -> None:
        """Queue a subtree that nobody refers to any more, to be destroyed in steps."""
        next_id, number = self._meta()
        # Each level can be gone on with by itself, so a high stack may be kept in pieces.
        for i in range(0, len(stack), _DROP_LEVELS):
            self.tree.put(drop_key(number), pack_drop(stack[i : i + _DROP_LEVELS]))
            number += 1
        self.tree.put(CATALOG_META, pack_meta(next_id, number))

    def put_drop(self, number: int, stack: list[tuple[bytes, int]]) -> None:
        """Note how far destroying a subtree has come; an empty stack is the end."""
        self.tree.delete(drop_key(number))
        self.add_drop(stack)

    def _meta(self) -> tuple[int, int]:
        data = self.tree.get(CATALOG_META)
        try:
            return (FIRST_DATASET, 0) if data is None else unpack_meta(data)
        except ValueError as error:
            raise _corrupt(str(error)) from None

    def _need_free(self, name: str) -> None:
        if name_key(name) in self.tree:
            raise ExistsError(f"dataset {name!r} exists already; choose another name")


def read_root(dataset: int, data: bytes, allowed: re.Pattern[str]) -> Root:
    """A stored head or snapshot, its name one that is `allowed`. Raises CorruptionError."""
    try:
        kind, created_ns, txid, size, record_size, name, ref = unpack_root(data)
        root = Root(dataset, name, KINDS[kind], created_ns, txid, size, record_size, ref)
    except (ValueError, IndexError) as error:
        raise _corrupt(str(error)) from None
    _name(name.encode(), allowed)
    if (root.kind == "volume") != (root.size > 0):
        raise _corrupt(f"{name!r} is a {root.kind} of {root.size} bytes")
    return root


def _name(data: bytes, allowed: re.Pattern[str]) -> str:
    name = data.decode("ascii", "backslashreplace")
    if len(name) > MAX_NAME or not allowed.fullmatch(name):
        raise _corrupt(f"a name {data!r}")
    return name


def _corrupt(reason: str) -> CorruptionError:
    return CorruptionError("(catalog)", None, reason)


def _pack(root: Root) -> bytes:
    return pack_root(
        KINDS.index(root.kind),
        root.created_ns,
        root.txid,
        root.size,
        root.record_size,
        root.name,
        root.ref,
    )
