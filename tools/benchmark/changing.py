"""Rewrite a map while a snapshot of it is taken: NAME DIRECTORY ITEMS; prints what came of it.

Run as a process of its own by `pause`, since the memory that it takes is one of the results.
"""

import gc
import json
import random
import sys
import threading
import time
from array import array
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmark.maps import map_class
from benchmark.maps.base import ChangingMap

VALUE_BYTES = 1_000
VALUES = 997
"""Different values; a key gets another one each time, as this is prime."""
BEFORE = 0.05
"""Part of the keys that are rewritten before the snapshot is asked for."""


@dataclass(frozen=True)
class Outcome:
    """What one map did. Times in seconds, sizes in bytes."""

    load: float
    rate_before: float
    """Puts a second, with no snapshot."""
    rate_during: float
    longest_before: float
    longest_during: float
    """The longest put while the snapshot is there."""
    snapshot: float
    memory: int
    disk: int
    predicted_disk: int


class Writer:
    """Puts keys in random order, one after the other, and times each."""

    def __init__(self, changing: ChangingMap, items: int) -> None:
        source = random.Random(items)
        self.map = changing
        self.keys = [b"key:%010d" % number for number in range(items)]
        self.values = [source.randbytes(VALUE_BYTES) for _ in range(VALUES)]
        source.shuffle(self.keys)
        self.spent = array("d", bytes(8 * items * 3))
        self.done = 0

    def pairs(self) -> list[tuple[bytes, bytes]]:
        return [(key, self.values[at % VALUES]) for at, key in enumerate(self.keys)]

    def put_next(self) -> None:
        key = self.keys[self.done % len(self.keys)]
        value = self.values[self.done % VALUES]
        start = time.perf_counter()
        self.map.put(key, value)
        self.spent[self.done] = time.perf_counter() - start
        self.done += 1


def measure(changing: ChangingMap, items: int) -> Outcome:
    writer = Writer(changing, items)
    start = time.perf_counter()
    changing.load(writer.pairs())
    load = time.perf_counter() - start
    # What this program itself holds should not cost pauses.
    gc.collect()
    gc.freeze()
    for _ in range(round(BEFORE * items)):
        writer.put_next()
    before = writer.done
    changing.prepare()

    taken = threading.Event()
    took: list[float] = []

    def take() -> None:
        asked = time.perf_counter()
        changing.snapshot()
        took.append(time.perf_counter() - asked)
        taken.set()

    other = threading.Thread(target=take)
    other.start()
    # While the snapshot is being made, and then until every key was written since.
    while not taken.is_set() and writer.done < before + items:
        writer.put_next()
    taken.wait()
    for _ in range(items):
        writer.put_next()
    other.join()
    usage = changing.usage()
    during = writer.spent[before : writer.done]
    return Outcome(
        load=load,
        rate_before=before / sum(writer.spent[:before]),
        rate_during=len(during) / sum(during),
        longest_before=max(writer.spent[:before]),
        longest_during=max(during),
        snapshot=took[0],
        memory=usage.memory,
        disk=usage.disk,
        predicted_disk=usage.predicted_disk,
    )


def main() -> None:
    name, directory, items = sys.argv[1:]
    with closing(map_class(name)(Path(directory))) as changing:
        print(json.dumps(asdict(measure(changing, int(items)))))


if __name__ == "__main__":
    main()
