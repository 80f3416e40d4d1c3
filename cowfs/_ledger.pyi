from __future__ import annotations

from collections.abc import Callable

class Operations:
    data: bytearray
    size: int
    count: int
    whole: bool
    def give_up(self) -> None: ...

class Ledger:
    operations: Operations
    below: Ledger | None
    txid: int
    durable: int
    block_size: int
    shared: dict[int, int]
    counts: dict[int, int]
    freed: bytearray
    freed_blocks: int
    reuse_own: bool
    own_freed: bytearray
    dropped: list[bytes]
    grows: bool
    replaced: int
    removed: int
    keep_old: bool
    dirty_limit: int
    spill: Callable[[], None] | None
    compress: Callable[[bytes], bytes] | None
    unfinished: int
    def __init__(
        self,
        txid: int,
        durable: int,
        shared: dict[int, int],
        block_size: int,
        below: Ledger | None = None,
    ) -> None: ...
    def count(self, block: int) -> int: ...
    def share(self, block: int) -> None: ...
    def release(self, pointer: bytes) -> bool: ...
    def freed_between(self, above: int, upto: int) -> bytes: ...
