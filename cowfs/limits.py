"""Constants and limits, each with its unit and its reason. None may change a stored image."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

BLOCK_SIZES = (4 * KIB, 8 * KIB, 16 * KIB, 32 * KIB, 64 * KIB)
"""Allowed block sizes in bytes; 4 KiB is what disks and page caches write without reading first."""
DEFAULT_BLOCK_SIZE = 4 * KIB

NODE_SIZES = (4 * KIB, 8 * KIB, 16 * KIB, 32 * KIB)
"""Allowed node sizes in bytes; cell offsets are 16 bits."""
DEFAULT_NODE_SIZE = 8 * KIB

MAX_KEY = 1024
"""Longest key in bytes: an inner node of the smallest size still holds three."""

RECORD_SIZE = 128 * KIB
"""Bytes of a large value or file in one extent: one checksum, one compression unit."""
MAX_RECORD = 1 * MIB
"""Most bytes in one extent: what a reader of one byte has to take in and verify."""
VOLUME_RECORD_SIZES = tuple(4 * KIB << shift for shift in range(9))
"""Record sizes that a volume may have, in bytes: from a page to MAX_RECORD."""
VOLUME_RECORD_SIZE = 16 * KIB
"""Bytes of a volume's record where nothing else is asked for: a small write rewrites one, and four
blocks are enough for compression to save some."""

MAX_VALUE = 1 << 62
"""Longest value in bytes; far above any device, so that sums stay within 64 bits."""

MAX_NUMBER = 1 << 62
"""Largest number of a transaction, block, dataset: more than any store reaches, and room to add."""

MAX_COUNT = 1 << 31
"""Most references to one block: one more still fits its 32 bits."""

MAX_GROWTH = 1 << 16
"""Blocks that an image may have beyond the end of its file: growth that a crash undid."""

WHOLE = 256 * MIB
"""Bytes of a value that is read in one piece although most of it is holes."""

MIN_IMAGE_BLOCKS = 512
"""Smallest image: both superblock places, and room to work."""

GROUP_BLOCKS = 8192
"""Blocks of an allocation group: its bitmap is 1 KiB and fits a leaf."""

MAX_TWIN = (1 << 31) - 1
"""Blocks that a node's second copy is away from the first, at most: 32 bits of the pointer."""

SUPERBLOCK_SLOTS = 8
"""Slots in each of the two superblock places."""
SECOND_PLACE_BLOCK = 256
"""First block of the second superblock place: another erase block than the first on any disk."""
RECORD_COPIES_BLOCK = SECOND_PLACE_BLOCK + SUPERBLOCK_SLOTS
"""First block of the copies of checkpoint records, one for each slot, where metadata has copies."""

DEFAULT_CACHE = 64 * MIB
MIN_CACHE = 1 * MIB

ONE_FLUSH_LIMIT = 4 * MIB
"""A transaction that wrote more than this is flushed before its commit record is written: the
second flush is lost in the noise, and opening need not verify the blocks."""

LOG_SHARE = 256 * KIB
"""What places more than so many bytes at once leaves the run that is kept for the log."""

BULK = 2 * MIB
"""Records that come in so many bytes together, as those of a large value do, are written behind
(`Device.write_behind`): past the host's page cache, which is of more use to everything else."""

THROUGH = 64 * KIB
"""A record of so many bytes is written from where it lies; to copy it behind others takes longer
than another write."""

LOG_RECORDS = 1024
LOG_BYTES = 6 * MIB
"""A checkpoint is due after so many commit records or bytes of them: bounds the time to open."""

UNSTORED_RECORDS = 128
UNSTORED_OPERATIONS = 16384
UNSTORED_BYTES = 2 * MIB
"""Trees are stored after so many commits, operations, or bytes of them, that only the log holds.
The first bounds how long single puts wait when that happens (some 6 µs for each), the others the
memory that it takes, and the time of an opening, which does them again (3 to 5 µs for each)."""

REAP_BLOCKS = 1024
"""Blocks that one step of destroying may visit: bounds how long a writer waits for it, which
should stay below a millisecond."""
REAP_READ = 16
"""Blocks that a node counts for which a step has to read: it takes as long as that."""
REAP_FLUSH = 8
"""Steps of destroying of which one is durable: what the others freed can be used again only then,
and a flush takes longer than a step."""
