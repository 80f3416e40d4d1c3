"""The interface between suites and stores.

An adapter calls its store the way a program that cares for speed would, and no more cleverly:
every call here is one that users of that store can make.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

Pair = tuple[bytes, bytes]


@dataclass(frozen=True)
class Reader:
    """A consistent view, by the store's fastest calls: for a key, for several, for all in order,
    for so many from a key on."""

    get: Callable[[bytes], bytes | None]
    get_many: Callable[[Sequence[bytes]], Sequence[bytes | None]]
    items: Callable[[], Iterable[Pair]]
    range: Callable[[bytes, int], Iterable[Pair]]


class Engine(ABC):
    """A store of byte strings by byte strings, made empty in a directory of its own.

    A store that can be held to a size is, where `capacity` (bytes) is given.
    """

    name: ClassVar[str]

    @abstractmethod
    def __init__(self, directory: Path, capacity: int | None = None) -> None: ...

    @classmethod
    @abstractmethod
    def describe(cls) -> str:
        """The store's version and the settings that matter for its speed."""

    @abstractmethod
    def load_sorted(self, pairs: Iterable[Pair]) -> None:
        """Put ascending pairs into the empty store, in one durable transaction."""

    @abstractmethod
    def put_many(self, pairs: Sequence[Pair]) -> None:
        """Put the pairs one by one, in one durable transaction."""

    @abstractmethod
    def put(self, key: bytes, value: bytes) -> None:
        """Put one pair, as a durable transaction of its own; from any thread."""

    @abstractmethod
    def reader(self) -> AbstractContextManager[Reader]:
        """Read what is committed now."""

    @abstractmethod
    def close(self) -> None: ...
