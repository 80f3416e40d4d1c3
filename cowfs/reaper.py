"""Releasing whole subtrees: counts go down from the top, and on only where one reaches zero.

A subtree may be larger than one transaction should be, so the work has a position: a stack of
(reference, children done). A node stays allocated until its last child is done, which keeps the
stack as short as the tree is high. The caller stores what is left and comes back.

Invariant: everything on the stack but its top item has a count of one and belongs to the reaper.
"""

from __future__ import annotations

from . import limits
from ._ledger import Ledger
from ._view import EXTENT, INLINE, node_items
from .blockio import BlockIO
from .errors import CorruptionError
from .format import NO_REF, POINTER_SIZE, REF_SIZE, is_plain_leaf, unpack_pointer

Stack = list[tuple[bytes, int]]


def release(io: BlockIO, ledger: Ledger, stack: Stack, budget: int) -> int:
    """Go on with `stack` (changed in place, empty when done) for about `budget` blocks, of which
    each node that is read counts as several: `limits.REAP_READ`.

    Returns the budget that is left, which is negative after a step that took a little more.
    """
    freed: set[int] = set()

    def let_go(pointer: bytes) -> None:
        """Take one reference away. Counts that are too low would have the same blocks freed again
        and again, and those of others with them."""
        fields = unpack_pointer(pointer)
        block = fields.block
        if ledger.count(block) == 1:
            again = block in freed or not io.space.in_use(block)
            freed.add(block)
            if fields.twin:
                second = block + fields.twin
                again = again or second in freed or not io.space.in_use(second)
                freed.add(second)
            if again:
                raise CorruptionError(
                    "(being destroyed)", block, "more references than its count tells"
                )
        ledger.release(pointer)

    loaded: dict[bytes, tuple[int, list[tuple[bytes, int, bytes]]]] = {}
    while stack and budget > 0:
        ref, done = stack.pop()
        if done == 0 and (is_plain_leaf(ref) or ledger.count(unpack_pointer(ref).block) > 1):
            let_go(ref)
            budget -= 1
            continue
        cost = 0
        if ref not in loaded:
            loaded[ref] = node_items(io, io.node_size, ref, "(being destroyed)")
            cost = limits.REAP_READ
        level, items = loaded[ref]
        descend = None
        while done < len(items) and descend is None and budget > 0:
            _, kind, value = items[done]
            if level:
                if level == 1 and is_plain_leaf(value):
                    let_go(value)
                else:
                    descend = value
            elif kind == EXTENT:
                let_go(value)
            elif kind != INLINE:
                root = value[:REF_SIZE]
                descend = root if root != NO_REF else None
            budget -= 1
            done += 1
        budget -= cost
        if done < len(items) or descend is not None:
            stack.append((ref, done))
            if descend is not None:
                stack.append((descend, 0))
        else:
            let_go(ref[:POINTER_SIZE])
            del loaded[ref]
            budget -= 1
    return budget
