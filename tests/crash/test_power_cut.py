"""A store opens as of the last acknowledged commit, or of the one in flight, whole.

The model, in a few lines: a device keeps what was flushed, and a list of sectors written since. A
power cut keeps the flushed state and any choice of those sectors. The program makes random
transactions against a dict; at a random write the power fails; the image is opened again, and must
hold the dict of an acknowledged commit that nothing durable came after, or of the commit that was
under way; `check` finds nothing; and the program goes on from there, so that one image lives
through many cuts.
"""

from __future__ import annotations

import random

import pytest

import cowfs
from cowfs.device import MemoryDevice

SECTOR = 512


class PowerCut(Exception):
    """The machine stopped."""


class VolatileDevice(MemoryDevice):
    """Writes are volatile until `flush`; after `writes_left` more of them the power fails."""

    def __init__(self, content: bytes = b"") -> None:
        super().__init__()
        self._bytes[:] = content
        self.flushed = bytearray(content)
        self.volatile: list[tuple[int, bytes]] = []
        self.writes_left = 1 << 60

    def resize(self, size: int) -> None:
        super().resize(size)
        # A file's size is metadata; fdatasync makes it durable where data depends on it.
        if size < len(self.flushed):
            del self.flushed[size:]
            self.volatile = [write for write in self.volatile if write[0] < size]
        else:
            self.flushed.extend(bytes(size - len(self.flushed)))

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._count_down()
        data = bytes(data)
        for at in range(0, len(data), SECTOR):
            self.volatile.append((offset + at, data[at : at + SECTOR]))
        super().write(offset, data)

    def flush(self) -> None:
        self._count_down()
        for offset, data in self.volatile:
            self.flushed[offset : offset + len(data)] = data
        self.volatile.clear()

    def _count_down(self) -> None:
        self.writes_left -= 1
        if self.writes_left < 0:
            raise PowerCut

    def after_power_cut(self, rng: random.Random, share: float) -> VolatileDevice:
        """What a new machine finds: what was flushed, and a share of the sectors written since."""
        content = bytearray(self.flushed)
        for offset, data in self.volatile:
            if rng.random() < share and offset + len(data) <= len(content):
                content[offset : offset + len(data)] = data
        return VolatileDevice(bytes(content))


def change(rng: random.Random, tx: cowfs.Transaction, model: dict[bytes, bytes]) -> None:
    """A few random changes, to the dataset and to the dict."""
    data = tx["data"]
    for _ in range(rng.choice([1, 1, 3, 20])):
        key = b"%03d" % rng.randrange(150)
        kind = rng.random()
        if kind < 0.2:
            data.discard(key)
            model.pop(key, None)
        else:
            size = rng.choice([0, 10, 100, 1500, 5000, 60_000] if kind < 0.9 else [400_000])
            value = rng.randbytes(size // 2) + bytes(size - size // 2)
            data[key] = value
            model[key] = value


def contents(store: cowfs.Store) -> dict[bytes, bytes]:
    with store.at("data") as view:
        return dict(view.items())


@pytest.mark.parametrize("seed", range(30))
def test_every_power_cut_leaves_an_acknowledged_commit_or_the_one_in_flight(seed: int) -> None:
    rng = random.Random(seed)
    device = VolatileDevice()
    store = cowfs.open_device(device, parameters=cowfs.Parameters())
    store.create("data")
    model: dict[bytes, bytes] = {}
    number = 0
    for _ in range(12):
        # What may be found after a cut: the last durable state and all that came after it.
        possible = [dict(model)]
        under_way = dict(model)
        device.writes_left = rng.randrange(30)
        try:
            while True:
                number += 1
                under_way = dict(model)
                durable = rng.random() < 0.6
                with store.transaction(durable=durable) as tx:
                    change(rng, tx, under_way)
                    if rng.random() < 0.1:
                        tx.checkpoint = True
                        durable = True
                model = under_way
                possible = [dict(model)] if durable else [*possible, dict(model)]
                if rng.random() < 0.1:
                    store.sync()
                    possible = [dict(model)]
                if rng.random() < 0.05:
                    store.close()
                    possible = [dict(model)]
                    store = cowfs.open_device(device)
        except (PowerCut, cowfs.FailedError):
            pass
        share = rng.choice([0.0, 0.5, 0.9, 1.0])
        device = device.after_power_cut(rng, share)
        store = cowfs.open_device(device)
        found = contents(store)
        assert found in [*possible, under_way], f"transaction {number}"
        faults = store.check().faults
        assert not faults, faults
        model = found
