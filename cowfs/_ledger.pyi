from collections.abc import Callable

class Ledger:
    txid: int
    durable: int
    block_size: int
    shared: dict[int, int]
    counts: dict[int, int]
    freed_blocks: int
    reuse_own: bool
    own_freed: list[int]
    dropped: list[bytes]
    grows: bool
    keep_old: bool
    dirty: int
    dirty_limit: int
    spill: Callable[[], None] | None
    compress: Callable[[bytes], bytes] | None
    def __init__(
        self, txid: int, durable: int, shared: dict[int, int], block_size: int
    ) -> None: ...
    def count(self, block: int) -> int: ...
    def share(self, block: int) -> None: ...
    def release(self, pointer: bytes) -> bool: ...
    def freed_bytes(self, start: int = 0) -> bytes: ...
    def freed_between(self, above: int, upto: int) -> bytes: ...
    def own_freed_bytes(self) -> bytes: ...
