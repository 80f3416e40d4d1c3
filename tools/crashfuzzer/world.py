"""The conditions of a workload: parameters of the image, limits so small that everything happens
often in a small image, and time and ids that are the same each time it is run.
"""

from __future__ import annotations

import os
import random
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import cowfs
from cowfs import limits
from cowfs.device import Device

from . import threads

KIB = 1024
_BULK = 100 * KIB
"""Bytes of large values from which on they are written behind."""
_THROUGH = 8 * KIB
"""Bytes of a record from which on it is written from where it lies, in a large transaction."""
_NOW_NS = 1_700_000_000_000_000_000
"""The time stands still: what is done twice has the same bytes."""


@dataclass(frozen=True, slots=True)
class World:
    """See `cowfs.Parameters` for the first line, `cowfs.limits` for the others. Sizes in bytes."""

    size: int | None = None
    node_size: int = 8 * KIB
    compression: str = "lz4"
    metadata_copies: int = 1
    cache: int = 64 * KIB
    """Half of it may be dirty: larger transactions spill."""
    one_flush_limit: int = 100 * KIB
    log_records: int = 6
    unstored_records: int = 3
    group_blocks: int = 8192
    reap_blocks: int = 5
    min_image_blocks: int = 300
    waits: bool = False
    """Whether a flush takes long: then a thread makes those that nobody asks for."""
    seed: int = 0
    """Of the image's id, and of when that thread goes on."""

    @classmethod
    def random(cls, seed: int) -> World:
        """Other conditions for each seed."""
        chance = random.Random(seed)
        waits = chance.choice((False, True))
        return cls(
            size=chance.choice((None, None, 1280 * KIB, 1600 * KIB, 2048 * KIB)),
            node_size=chance.choice((4 * KIB, 8 * KIB)),
            compression=chance.choice(("lz4", "lz4", "none")),
            cache=chance.choice((64 * KIB, 64 * KIB, 1024 * KIB)),
            one_flush_limit=chance.choice((40 * KIB, 150 * KIB, 4096 * KIB)),
            # The thread begins where a checkpoint is due before the last one is durable.
            log_records=chance.choice((1, 2, 3) if waits else (3, 6, 12)),
            unstored_records=chance.choice((2, 5, 100)),
            group_blocks=chance.choice((64, 64, 8192)),
            reap_blocks=chance.choice((3, 10)),
            metadata_copies=chance.choice((1, 2)),
            waits=waits,
            seed=seed,
        )

    @contextmanager
    def entered(self, *, on_host: bool = False) -> Iterator[None]:
        """These limits are in force, and nothing depends on when and where it runs.

        Where the device is a file `on_host`, threads are real, and processes differ.
        """
        ids = random.Random(self.seed)
        with (
            mock.patch.multiple(
                limits,
                MIN_CACHE=self.cache,
                ONE_FLUSH_LIMIT=self.one_flush_limit,
                LOG_RECORDS=self.log_records,
                UNSTORED_RECORDS=self.unstored_records,
                GROUP_BLOCKS=self.group_blocks,
                REAP_BLOCKS=self.reap_blocks,
                MIN_IMAGE_BLOCKS=self.min_image_blocks,
                BULK=_BULK,
                THROUGH=_THROUGH,
            ),
            mock.patch("uuid.uuid4", lambda: uuid.UUID(int=ids.getrandbits(128))),
            mock.patch("os.urandom", os.urandom if on_host else ids.randbytes),
            mock.patch("time.time_ns", lambda: _NOW_NS),
            mock.patch("cowfs.durability.threading", threading if on_host else threads),
        ):
            yield

    @property
    def durable(self) -> float:
        """The part of a workload's transactions that should be durable: of many, none is left for
        the thread to flush."""
        return 0.1 if self.waits else 0.5

    def turns(self) -> threads.Turns | None:
        """For a device: who goes on when; None where there is no thread."""
        return threads.Turns(self.seed) if self.waits else None

    def make(self, device: Device) -> cowfs.Store:
        """A new store."""
        parameters = cowfs.Parameters(
            size=self.size,
            node_size=self.node_size,
            compression=self.compression,
            metadata_copies=self.metadata_copies,
        )
        return cowfs.open_device(device, parameters=parameters, cache=self.cache)

    def open(self, device: Device, *, readonly: bool = False) -> cowfs.Store:
        """The store that is there."""
        return cowfs.open_device(device, readonly=readonly, cache=self.cache)
