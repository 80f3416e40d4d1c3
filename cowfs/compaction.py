"""Keeping free space in long runs: a little copying with each commit, once it gets scarce.

Copy-on-write frees single nodes all over the image, and writing into such gaps costs many times
what one long write costs. So, when the allocator finds no long run, the sparsest segments are
chosen, and each commit copies some nodes out of them along with what it writes anyway (M. Rosenblum
and J. Ousterhout, The Design and Implementation of a Log-Structured File System, 1992). A segment
that is left by all its nodes is one long free run.

Nothing here is needed for correctness and nothing is stored: a sweep that a crash ends is forgotten.
Nodes that a snapshot shares, and data extents, stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ._tree import Tree
from .space import Space

_SEGMENT_SHIFT = 8
_SEGMENT = 1 << _SEGMENT_SHIFT
"""Blocks of a segment: with 4 KiB blocks 1 MiB, long enough that its place no longer matters."""
_FEW = 12
"""Blocks in use in a segment that counts as empty: records of the log, which go by themselves."""
_STEPS = (0.25, 0.4)
"""Segments at most this full are chosen: the emptiest that give enough."""
_ENOUGH = 1 / 10
"""Part of the image that should be free in whole segments."""
_LEAST = 1024
"""The same in blocks, for small images."""
_SHARE = 1.0
"""Blocks copied for each block that is written anyway."""
_LOOKS = 64
"""Looks at all segments in the time in which as much as the whole image is written."""
_WORTH = 64
"""Blocks that a step copies at least; smaller claims add up first."""


class Compaction:
    """The sweep in progress over the datasets of one store."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._doomed = bytearray()
        self._position: tuple[int, bytes] | None = None
        self._ended = 0
        self._credit = 0.0
        self._unlooked = 0

    def step(
        self,
        txid: int,
        durable: int,
        written: int,
        datasets: Callable[[int], Iterator[tuple[int, Tree]]],
    ) -> None:
        """Copy about as much as transaction `txid` writes (`written`, in blocks).

        `durable` is the newest transaction whose freed blocks are free by now; `datasets(id)` gives
        the trees of the transaction from that dataset's on.
        """
        space = self._space
        if self._ended and durable >= self._ended:
            self._ended = 0
            space.let_go()
        if self._position is None:
            self._unlooked += written
            if self._ended or not (space.short_of_runs or self._unlooked * _LOOKS > space.total):
                return
            self._unlooked = 0
            space.short_of_runs = False
            if not self._choose():
                return
        self._credit = min(self._credit + _SHARE * written, 16 * _LEAST)
        if self._credit < _WORTH or (space.limit and space.free < 4 * space.reserve):
            return
        number, key = self._position or (0, b"")
        for dataset, tree in datasets(number):
            start: bytes | None = key if dataset == number else b""
            start, moved = tree.evacuate(start, self._doomed, _SEGMENT_SHIFT, int(self._credit))
            self._credit -= moved
            if start is not None:
                self._position = (dataset, start)
                return
            if self._credit <= 0:
                self._position = (dataset + 1, b"")
                return
        # All of it has been left; it is free once this transaction is.
        self._position = None
        self._ended = txid

    def _choose(self) -> bool:
        """Choose the segments to be emptied; False where there are enough empty ones."""
        bitmap = self._space.settled()
        enough = max(_LEAST, int(_ENOUGH * bitmap.size))
        for step in _STEPS:
            self._doomed, gain, empty = bitmap.sparse_segments(
                _SEGMENT_SHIFT, _FEW, int(step * _SEGMENT)
            )
            if empty * _SEGMENT >= enough:
                return False
            if gain >= enough:
                self._position = (0, b"")
                self._space.hold(self._doomed, _SEGMENT_SHIFT)
                return True
        return False
