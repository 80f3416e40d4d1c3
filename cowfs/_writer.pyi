from collections.abc import Callable

from ._node import Cache, Node
from .device import Device
from .space import Space

class Stream:
    cursor: int
    end: int
    buffered: int
    head: int
    fill: int
    segment: int
    in_log: bool
    buffer: bytearray
    def seal(self, writer: RunWriter) -> None: ...
    def end_segment(self, writer: RunWriter) -> None: ...
    def drain(self, writer: RunWriter) -> None: ...
    def leave_run(self, writer: RunWriter) -> None: ...

class RunWriter:
    first: Stream
    streams: list[Stream]
    device: Device
    space: Space
    block_size: int
    compression: int
    checksum: Callable[[bytes | memoryview], bytes]
    txid: int
    record_block: int
    next_record: int
    segments: list[tuple[int, int]]
    runs: list[tuple[int, int, bytes]]
    written: int
    proving: bool
    bulk: bool
    logging: bool
    def __init__(
        self,
        device: Device,
        space: Space,
        cache: Cache,
        compression: int,
        compress: Callable[[bytes], bytes],
        checksum: Callable[[bytes | memoryview], bytes],
        copies: int = 1,
    ) -> None: ...
    def restart(self) -> None: ...
    def proves(self) -> bool: ...
    def held(self, block: int, length: int) -> bytes | None: ...
    def take(self, blocks: int) -> None: ...
    def write(self, data: bytes | memoryview) -> int: ...
    def write_node(self, node: Node) -> bool: ...
