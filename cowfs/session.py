"""How a dataset object reaches its tree: fixed for views and transactions, per call for live ones.

The kinds of dataset (kv, fs, volume) are written once against `Session` and so work the same on a
snapshot, inside a transaction, and on a store directly.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType, TracebackType
from typing import Any, Protocol

from ._tree import Tree
from .blockio import BlockIO
from .errors import ReadOnlyError


class Session(Protocol):
    """What a dataset object needs: its name, and a tree to read or to write."""

    name: str
    readonly: bool
    io: BlockIO

    def reading(self) -> AbstractContextManager[Tree]:
        """A tree that does not change under the caller's hands."""

    def writing(self) -> AbstractContextManager[Tree]:
        """A tree that may be changed; ReadOnlyError where there is none."""

    def change(self, act: Callable[..., Any], *arguments: Any) -> Any:
        """Call `act` with the tree, which it changes, and the arguments; its result. It may be
        called twice, in any thread, so it should change nothing else."""

    def view(self) -> FixedSession:
        """The version of now, for what reads on between calls; to be closed."""

    def close(self) -> None:
        """Let go of the version; a second time does nothing."""


class Pin:
    """Keeps a version in place until it is released, or nobody refers to it any more."""

    _on_release: Callable[[], object] | None = None

    def __init__(self, on_release: Callable[[], object]) -> None:
        self._on_release = on_release

    def release(self) -> None:
        """Let go of the version; a second time does nothing."""
        if self._on_release is not None:
            on_release, self._on_release = self._on_release, None
            on_release()

    __del__ = release


class FixedSession:
    """One tree for the whole time: a view's (read-only), or a transaction's working copy."""

    def __init__(
        self,
        name: str,
        io: BlockIO,
        tree: Tree,
        *,
        readonly: bool,
        on_close: Callable[[], object] | None = None,
    ) -> None:
        self.name = name
        self.io = io
        self.readonly = readonly
        self.tree = tree
        self._pin = Pin(on_close) if on_close is not None else None
        if self._pin is not None:
            # On the tree: a scan outlives a view that nobody refers to, as `store.at(…).items()`.
            tree.pin = self._pin

    def reading(self) -> FixedSession:
        """The tree, in a `with` statement."""
        return self

    def writing(self) -> FixedSession:
        """The tree, in a `with` statement."""
        if self.readonly:
            raise ReadOnlyError(f"{self.name} is open for reading only")
        return self

    def change(self, act: Callable[..., Any], *arguments: Any) -> Any:
        """Have `act` change the tree; its result."""
        if self.readonly:
            raise ReadOnlyError(f"{self.name} is open for reading only")
        return act(self.tree, *arguments)

    def view(self) -> FixedSession:
        """Another session on the same tree, which closing does not end."""
        return FixedSession(self.name, self.io, self.tree, readonly=self.readonly)

    def __enter__(self) -> Tree:
        return self.tree

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def close(self) -> None:
        """End a view; what a transaction handed out lives until the transaction ends."""
        if self._pin is not None:
            self.tree.close()
            self._pin.release()


class Opener(Protocol):
    """What a live session needs of the store."""

    io: BlockIO
    readonly: bool

    def open_view(self, name: str) -> FixedSession:
        """A session on the newest version of a dataset."""

    def open_change(self, name: str) -> AbstractContextManager[Tree]:
        """The dataset's tree within a durable transaction of its own."""

    def change(self, name: str, act: Callable[..., Any], *arguments: Any) -> Any:
        """Have `act` change the dataset's tree, durably; its result."""


_Block = tuple[Tree, FrameType]
"""What a `with` block works on, and the call that it is in."""


class _Open(threading.local):
    """The outermost `with` block of each thread that is in one."""

    block: _Block | None = None


def _owner(frame: FrameType) -> FrameType:
    """Whose `with` a generator serves: the first call above it that does not end before the block
    does, or pause."""
    while frame.f_back is not None and (
        frame.f_code.co_flags & inspect.CO_GENERATOR or frame.f_code.co_name == "__enter__"
    ):
        frame = frame.f_back
    return frame


class LiveSession:
    """A dataset as it is now: each outermost read pins the newest version, each write commits."""

    def __init__(self, name: str, store: Opener) -> None:
        self.name = name
        self.io = store.io
        self.readonly = store.readonly
        self._store = store
        self._open = _Open()

    def _outer(self) -> Tree | None:
        """The tree of the `with` block that this call is in, if there is one.

        An interrupt at the first step of its exit leaves a block as it is, until nobody refers to
        the interrupt any more. Who handles it must not go on in there: nothing would be committed.
        """
        block = self._open.block
        if block is None:
            return None
        tree, owner = block
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame is not owner:
            frame = frame.f_back
        return tree if frame is not None else None

    @contextmanager
    def reading(self) -> Iterator[Tree]:
        """The newest version, pinned until the outermost `with` ends."""
        outer = self._outer()
        if outer is not None:
            yield outer
            return
        session = self._store.open_view(self.name)
        block = session.tree, _owner(sys._getframe())
        try:
            self._open.block = block
            yield session.tree
        finally:
            if self._open.block is block:  # calls nothing, so that no interrupt comes
                self._open.block = None
            session.close()

    @contextmanager
    def writing(self) -> Iterator[Tree]:
        """A transaction that commits, durably, when the outermost `with` ends well."""
        outer = self._outer()
        if outer is not None and outer.ledger is not None:
            yield outer
            return
        before = self._open.block
        with self._store.open_change(self.name) as tree:
            block = tree, _owner(sys._getframe())
            try:
                self._open.block = block
                yield tree
            finally:
                if self._open.block is block:
                    self._open.block = before

    def change(self, act: Callable[..., Any], *arguments: Any) -> Any:
        """Have `act` change the tree, durably, or in the `with` around this; its result."""
        outer = self._outer()
        if outer is not None and outer.ledger is not None:
            return act(outer, *arguments)
        return self._store.change(self.name, act, *arguments)

    def view(self) -> FixedSession:
        """The newest version, pinned until it is closed: for what lasts longer than one call."""
        return self._store.open_view(self.name)

    def close(self) -> None:
        """Nothing is held between calls."""
