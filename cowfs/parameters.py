"""What mkfs decides about an image, checked before anything is written."""

from __future__ import annotations

from dataclasses import dataclass

from . import limits
from .codec import COMPRESSION_NAMES
from .errors import UsageError
from .format import check_label
from .sizes import show_size


@dataclass(frozen=True, slots=True)
class Parameters:
    """What mkfs decides. Sizes are in bytes; `size` None lets the image grow as needed."""

    size: int | None = None
    block_size: int = limits.DEFAULT_BLOCK_SIZE
    node_size: int = limits.DEFAULT_NODE_SIZE
    compression: str = "lz4"
    label: str = ""
    metadata_copies: int = 1
    """2 keeps a second copy of all metadata far from the first, from which it is repaired."""

    def check(self) -> None:
        """Raise UsageError where a value is not allowed."""
        if self.block_size not in limits.BLOCK_SIZES:
            raise UsageError(f"block size {self.block_size}: allowed are {limits.BLOCK_SIZES}")
        if self.node_size not in limits.NODE_SIZES:
            raise UsageError(f"node size {self.node_size}: allowed are {limits.NODE_SIZES}")
        if self.compression not in COMPRESSION_NAMES:
            raise UsageError(f"compression {self.compression!r}: allowed are lz4 and none")
        if self.metadata_copies not in (1, 2):
            raise UsageError(f"{self.metadata_copies!r} copies of metadata: allowed are 1 and 2")
        smallest = limits.MIN_IMAGE_BLOCKS * self.block_size
        if self.size is not None and not (
            isinstance(self.size, int) and smallest <= self.size <= limits.MAX_VALUE
        ):
            raise UsageError(
                f"size {self.size!r}: an image with such blocks has {show_size(smallest)} to "
                f"{show_size(limits.MAX_VALUE)}"
            )
        check_label(self.label)
