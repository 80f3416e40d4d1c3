class Entry:
    cost: int
    block: int

class Record(Entry):
    data: bytes
    checksum: bytes
    def __init__(self, block: int, checksum: bytes, data: bytes) -> None: ...

class Meter:
    bytes: int

class Cache:
    dirty: Meter
    limit: int
    used: int
    def __init__(self, limit: int) -> None: ...
    def record(self, block: int, checksum: bytes) -> bytes | None: ...
    def add_record(self, block: int, checksum: bytes, data: bytes) -> None: ...
    def evict(self, room: int) -> None: ...

class Node(Entry):
    n: int
    level: int
    birth: int
    def used(self) -> int: ...
    def summarize(self, block_size: int, copies: int) -> dict[str, int]: ...
