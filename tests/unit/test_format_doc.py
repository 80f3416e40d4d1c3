"""docs/format.md says what the code does.

Its tables are compared with the declarations that it names, and then the committed image is read by
these tables alone, without a line of cowfs: who has the document can read an image.
"""

from __future__ import annotations

import ast
import gzip
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lz4.block
import pytest
import xxhash

import golden
from cowfs import format, limits, space, values
from cowfs.fs import inode

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "format.md").read_text()
MODULES = {"format": format, "limits": limits, "values": values, "inode": inode}

UNDOCUMENTED = {space._WORD}
"""Structs that are a number, for which the document has words."""


@dataclass(frozen=True)
class Field:
    """A row of a table of fields."""

    offset: int
    size: int
    meaning: str


@dataclass(frozen=True)
class Table:
    """A table of fields: `name` is that of the declaration, or the words that it stands under."""

    name: str
    fields: dict[str, Field]
    sizes: list[int]
    offsets: list[int]

    def get(self, data: bytes, field: str, base: int = 0) -> int:
        """A number in a structure that starts at `base`."""
        return int.from_bytes(self.raw(data, field, base), "little")

    def raw(self, data: bytes, field: str, base: int = 0) -> bytes:
        """The bytes of a field."""
        found = self.fields[field]
        return data[base + found.offset : base + found.offset + found.size]

    @property
    def size(self) -> int:
        """Bytes of the structure."""
        return self.offsets[-1] + self.sizes[-1]


def rows(header: str) -> Iterator[tuple[int, list[list[str]]]]:
    """(position, rows of cells) of each table with this header."""
    for match in re.finditer(re.escape(header) + r"\n\|[ |-]+\n((?:\|.*\n)+)", TEXT):
        lines = match[1].splitlines()
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        yield match.start(), cells


def tables() -> dict[str, Table]:
    """Every table of fields in the document."""
    found = {}
    for position, cells in rows("| offset | size | field | meaning |"):
        paragraph = TEXT[:position].rstrip().rpartition("\n\n")[2]
        declaration = re.findall(r"eclared as\s+`(\w+\.\w+)`", paragraph)
        name = declaration[-1] if declaration else paragraph
        offsets = [int(row[0]) for row in cells]
        sizes = [int(row[1]) for row in cells]
        fields = {
            row[2].strip("`"): Field(offset, size, row[3])
            for row, offset, size in zip(cells, offsets, sizes, strict=True)
        }
        assert name not in found, name
        found[name] = Table(name, fields, sizes, offsets)
    return found


TABLES = tables()


def declared(name: str) -> object:
    module, _, attribute = name.partition(".")
    return getattr(MODULES[module], attribute)


def field_sizes(layout: str) -> list[int]:
    """The size of each field of a struct."""
    order, codes = layout[0], layout[1:]
    assert order in "<>", "a layout without an order of bytes"
    sizes = []
    for count, code in re.findall(r"(\d*)([a-zA-Z])", codes):
        if code == "s":
            sizes.append(int(count))
        else:
            sizes += [struct.calcsize(order + code)] * int(count or 1)
    return sizes


@pytest.mark.parametrize("name", [name for name in TABLES if "." in name and " " not in name])
def test_a_table_has_the_fields_of_its_declaration(name: str) -> None:
    layout = declared(name)
    assert isinstance(layout, struct.Struct)
    table = TABLES[name]
    assert table.sizes == field_sizes(layout.format)
    assert table.offsets == [sum(table.sizes[:i]) for i in range(len(table.sizes))]
    assert table.size == layout.size
    for field in table.fields.values():
        big_endian = layout.format.startswith(">") and field.size > 1
        assert ("big-endian" in field.meaning) == big_endian


@pytest.mark.parametrize("name", [name for name in TABLES if "." not in name or " " in name])
def test_the_fields_of_other_tables_lie_side_by_side(name: str) -> None:
    table = TABLES[name]
    assert table.offsets == [sum(table.sizes[:i]) for i in range(len(table.sizes))]


def test_every_declaration_has_a_table() -> None:
    missing = [
        f"{module}.{name}"
        for module, where in MODULES.items()
        for name, value in vars(where).items()
        if isinstance(value, struct.Struct)
        and value not in UNDOCUMENTED
        and f"{module}.{name}" not in TABLES
    ]
    assert not missing, f"docs/format.md has no table for {missing}"


def test_constants_are_as_documented() -> None:
    source = (ROOT / "cowfs" / "_node.pxd").read_text()
    node = {name: int(value, 0) for name, value in re.findall(r"^    (\w+) = (\w+)$", source, re.M)}
    checked = 0
    for _, cells in rows("| constant | value | meaning |"):
        for constant, value, _ in cells:
            module, _, name = constant.strip("`").partition(".")
            actual = node[name] if module == "_node" else declared(f"{module}.{name}")
            assert actual == ast.literal_eval(value.strip("`")), constant
            checked += 1
    assert checked > 20
    assert node["POINTER"] == format.POINTER_SIZE
    assert node["REF"] == format.REF_SIZE
    assert node["TREE_CELL"] == format.TREE_CELL_SIZE
    assert node["MAX_KEY_LEN"] == limits.MAX_KEY


# --- reading the image by the document ----------------------------------------------------------

SUPERBLOCK = TABLES["format._SUPERBLOCK"]
RECORD = TABLES["format._RECORD"]
RUN = TABLES["format._RUN"]
OPERATION = TABLES["format._OPERATION"]
POINTER = TABLES["format._POINTER"]
SUMMARY = TABLES["format._SUMMARY"]
NODE = TABLES["The header:"]
CELL = TABLES["A cell:"]
BLOB = TABLES["format._BLOB"]
HEAD = TABLES["format._DATASET"]
INODE = TABLES["inode._INODE"]
ENTRY = TABLES["inode._ENTRY"]
POINTER_SIZE, REF_SIZE, SUM_SIZE = 44, 72, 16


class Reader:
    """An image, read as docs/format.md says."""

    def __init__(self, image: bytes) -> None:
        self.image = image
        self.superblock = max(self.superblocks(), key=lambda data: SUPERBLOCK.get(data, "sequence"))
        self.block_size = SUPERBLOCK.get(self.superblock, "block_size")
        self.records = list(self.chain())
        stored = [data for data in self.records if not RECORD.get(data, "flags") & 4]
        self.catalog = dict(self.items(stored[-1][RECORD.size : RECORD.size + REF_SIZE]))
        self.later = self.records[self.records.index(stored[-1]) + 1 :]

    def superblocks(self) -> Iterator[bytes]:
        for size in (4096 << shift for shift in range(5)):
            for block in [*range(8), *range(256, 264)]:
                data = self.image[block * size : (block + 1) * size]
                if data[:8] == b"\x89cowfs\r\n" and self.proves(data[:-SUM_SIZE], data[-SUM_SIZE:]):
                    yield data

    @staticmethod
    def proves(data: bytes, checksum: bytes) -> bool:
        return xxhash.xxh3_128_digest(data) == checksum

    def block(self, number: int, count: int = 1) -> bytes:
        return self.image[number * self.block_size : (number + count) * self.block_size]

    def chain(self) -> Iterator[bytes]:
        """The records that count."""
        found: list[bytes] = []
        at = SUPERBLOCK.get(self.superblock, "record_block")
        previous = SUPERBLOCK.raw(self.superblock, "record_previous")
        while True:
            data = self.block(at)
            if (
                RECORD.raw(data, "magic") != b"cowfsLOG"
                or not self.proves(data[:-SUM_SIZE], data[-SUM_SIZE:])
                or RECORD.raw(data, "uuid") != SUPERBLOCK.raw(self.superblock, "uuid")
                or RECORD.raw(data, "previous") != previous
            ):
                break
            found.append(data)
            at, previous = RECORD.get(data, "next_block"), data[-SUM_SIZE:]
        durable = max(
            SUPERBLOCK.get(self.superblock, "durable_txid"),
            *(RECORD.get(data, "durable_txid") for data in found),
        )
        for data in found:
            proven = RECORD.get(data, "txid") <= durable or RECORD.get(data, "flags") & 2
            if not proven and not self.landed(data):
                return
            yield data

    def landed(self, record: bytes) -> bool:
        at = RECORD.size + 2 * REF_SIZE
        for _ in range(RECORD.get(record, "runs")):
            first, count = RUN.get(record, "block", at), RUN.get(record, "blocks", at)
            if not self.proves(self.block(first, count), RUN.raw(record, "checksum", at)):
                return False
            at += RUN.size
        return True

    def extent(self, pointer: bytes) -> bytes:
        start = POINTER.get(pointer, "block") * self.block_size
        data = self.image[start : start + POINTER.get(pointer, "stored")]
        assert self.proves(data, POINTER.raw(pointer, "checksum"))
        if POINTER.get(pointer, "compression"):
            size = POINTER.get(pointer, "logical")
            plain: bytes = lz4.block.decompress(data, uncompressed_size=size)
            return plain
        return data

    def cells(self, reference: bytes) -> Iterator[tuple[bytes, int, bytes]]:
        """(key, kind, value as stored) of every item of a tree, in order."""
        if not any(reference):
            return
        node = self.extent(reference)
        assert NODE.raw(node, "magic") == b"CNOD"
        level = NODE.get(node, "level")
        assert level == POINTER.get(reference, "level")
        for slot in range(NODE.get(node, "count")):
            at = NODE.size + 2 * slot
            cell = len(node) - int.from_bytes(node[at : at + 2], "little")
            key_size = CELL.get(node, "key_size", cell)
            kind, key_size = key_size >> 14, key_size & 0x3FFF
            key_at = cell + CELL.size
            value_at = key_at + key_size
            value = node[value_at : value_at + CELL.get(node, "value_size", cell)]
            if level:
                yield from self.cells(value)
            else:
                yield node[key_at:value_at], kind, value

    def value(self, kind: int, stored: bytes) -> bytes:
        if kind == 0:
            return stored
        if kind == 1:
            return self.extent(stored)
        whole = bytearray(BLOB.get(stored, "size", REF_SIZE))
        for key, inner_kind, inner in self.cells(stored[:REF_SIZE]):
            data = self.value(inner_kind, inner)
            start = int.from_bytes(key, "big") * BLOB.get(stored, "record_size", REF_SIZE)
            whole[start : start + len(data)] = data
        return bytes(whole)

    def items(self, reference: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key, kind, stored in self.cells(reference):
            yield key, self.value(kind, stored)

    def dataset(self, name: str) -> dict[bytes, bytes]:
        """Everything in a dataset or snapshot."""
        dataset, _, snapshot = name.partition("@")
        number = self.catalog[b"N" + dataset.encode()]
        head = self.catalog[b"S" + number + snapshot.encode() if snapshot else b"D" + number]
        reference = head[HEAD.size + HEAD.get(head, "name_size") :]
        items = dict(self.items(reference)) if reference else {}
        if reference:
            assert SUMMARY.get(reference, "items", POINTER_SIZE) == len(items)
        if not snapshot:
            for key, value in self.operations(int.from_bytes(number, "big")):
                if value is None:
                    items.pop(key, None)
                else:
                    items[key] = value
        return items

    def operations(self, wanted: int) -> Iterator[tuple[bytes, bytes | None]]:
        """(key, value) that was put into a dataset since its tree was stored; None for what was
        deleted. Of ranges, the two keys that the golden image deletes as one."""
        for record in self.later:
            at = RECORD.size + 2 * REF_SIZE + RECORD.get(record, "runs") * RUN.size
            pointers = record[at : at + RECORD.get(record, "overflow") * POINTER_SIZE]
            at += len(pointers)
            packed = record[at : at + RECORD.get(record, "delta_size")] or b"".join(
                self.extent(pointers[i : i + POINTER_SIZE])
                for i in range(0, len(pointers), POINTER_SIZE)
            )
            at = tree = 0
            while at < len(packed):
                kind = OPERATION.get(packed, "operation", at)
                key_at = at + OPERATION.size
                value_at = key_at + OPERATION.get(packed, "key_size", at)
                end = value_at + OPERATION.get(packed, "value_size", at)
                key, value = packed[key_at:value_at], packed[value_at:end]
                if kind == 0:
                    tree = int.from_bytes(key, "little")
                elif tree == wanted and kind == 3:
                    assert (key, value) == (b"last/many 050", b"last/many 052")
                    yield from ((b"last/many 050", None), (b"last/many 051", None))
                elif tree == wanted:
                    yield key, value if kind == 1 else None
                at = end


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(gzip.decompress((ROOT / "fixtures" / golden.NAME).read_bytes()))


def test_the_superblock_reads_as_documented(reader: Reader) -> None:
    label = SUPERBLOCK.raw(reader.superblock, "label").rstrip(b"\0").decode()
    assert label == golden.LABEL
    assert SUPERBLOCK.get(reader.superblock, "version") == 2
    assert len(reader.records) > 5


def test_maps_read_as_documented(reader: Reader) -> None:
    assert len(reader.later) > 5
    assert reader.dataset("keys") == golden.last_items()
    assert reader.dataset("keys@first") == golden.first_items()
    assert reader.dataset("clone") == golden.cloned_items()
    assert reader.dataset("empty") == {}


def test_volumes_read_as_documented(reader: Reader) -> None:
    content = reader.dataset("disk@clean")[b"\0"].ljust(golden.VOLUME_SIZE, b"\0")
    assert content == golden.volume_bytes(golden.VOLUME_WRITES)


def test_files_read_as_documented(reader: Reader) -> None:
    items = reader.dataset("files@before")
    expected = golden.first_files()
    found = {}
    todo = [(b"", 1)]
    while todo:
        path, number = todo.pop()
        prefix = number.to_bytes(8, "big")
        for key in [key for key in items if key.startswith(prefix + b"\2")]:
            child = ENTRY.get(items[key], "inode")
            own = items[child.to_bytes(8, "big") + b"\0"]
            name = path + b"/" + key[9:]
            found[name] = (
                INODE.get(own, "mode"),
                INODE.get(own, "nlink"),
                int.from_bytes(INODE.raw(own, "mtime_ns"), "little", signed=True),
                items.get(child.to_bytes(8, "big") + b"\3", b""),
            )
            way_back = child.to_bytes(8, "big") + b"\4" + prefix + key[9:]
            assert items[way_back] == b""
            if ENTRY.get(items[key], "kind") == 4:
                todo.append((name, child))
    assert found == {
        path: (file.mode, file.links, file.mtime_ns, file.content)
        for path, file in expected.items()
    }
