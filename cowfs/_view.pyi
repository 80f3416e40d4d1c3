from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from ._ledger import Ledger
from ._node import Cache, Node

INLINE: int
EXTENT: int
TREE: int

class Source(Protocol):
    @property
    def total_blocks(self) -> int: ...
    @property
    def block_size(self) -> int: ...
    def read(self, pointer: bytes, label: str) -> bytes: ...

Resolve = Callable[[int, bytes], bytes]

class TreeView:
    ledger: Ledger
    node_size: int
    owner: int
    version: int
    inline_limit: int
    label: str
    resolve: Resolve
    pin: object
    volume_size: int
    @property
    def ref(self) -> bytes | None: ...
    def __init__(
        self,
        source: Source,
        cache: Cache,
        node_size: int,
        owner: int,
        ref: bytes | None = None,
        ledger: Ledger | None = None,
        label: str = "",
        resolve: Resolve | None = None,
    ) -> None: ...
    def check_ref(self, ref: bytes) -> None: ...
    def close(self) -> None: ...
    def __len__(self) -> int: ...
    def __contains__(self, key: object) -> bool: ...
    @property
    def top(self) -> bytes | Node | None: ...
    def get(self, key: bytes, default: Any = None) -> Any: ...
    def get_many(self, keys: Iterable[bytes], default: Any = None) -> list[Any]: ...
    def cell(self, key: bytes) -> tuple[int, bytes] | None: ...
    def items_between(
        self,
        start: bytes | None = None,
        stop: bytes | None = None,
        reverse: bool = False,
        what: int = 0,
    ) -> Iterator[Any]: ...

def memory_items(node: Node) -> tuple[int, list[tuple[bytes, int, Any]]]: ...
def node_items(
    source: Source, node_size: int, ref: bytes, label: str
) -> tuple[int, list[tuple[bytes, int, bytes]]]: ...
