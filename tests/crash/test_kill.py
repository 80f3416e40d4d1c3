"""SIGKILL while a real process commits to a real file: no acknowledged commit is lost."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import cowfs

from ..plain import assert_sound, noise

KILLS = 20
SLOTS = 40

WRITER = """
import sys
import cowfs
from crashfuzzer.model import noise

with cowfs.open(sys.argv[1], "w", cache=1 << 20) as store:
    number = int(store["data"][b"count"])
    while True:
        number += 1
        with store.transaction() as tx:
            data = tx["data"]
            data[b"count"] = b"%d" % number
            data[b"slot %d" % (number % SLOTS)] = noise(number * 37 % 9000, number)
            if number % 10 == 0:
                tx.snapshot(f"data@{number}")
            if number % 10 == 5 and number > 30:
                tx.destroy(f"data@{number // 10 * 10 - 20}")
        sys.stdout.buffer.write(b"%d\\n" % number)
        sys.stdout.buffer.flush()
""".replace("SLOTS", str(SLOTS))


def expected(number: int) -> dict[bytes, bytes]:
    """What the dataset holds after so many commits."""
    items = {b"count": b"%d" % number}
    for slot in range(max(1, number - SLOTS + 1), number + 1):
        items[b"slot %d" % (slot % SLOTS)] = noise(slot * 37 % 9000, slot)
    return items


def test_kill_loses_no_acknowledged_commit(tmp_path: Path) -> None:
    image = tmp_path / "kill.cow"
    with cowfs.open(image, "n") as store:
        store.create("data")[b"count"] = b"0"
    chance = random.Random(2)
    number = 0
    for _ in range(KILLS):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(image)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2] / "tools",
        ) as writer:
            assert writer.stdout is not None
            said = [writer.stdout.readline() for _ in range(chance.randrange(1, 60))]
            writer.kill()
            said += writer.stdout.read().splitlines()  # between the last look and the kill
        with cowfs.open(image, "r") as store:
            found = int(store["data"][b"count"])
            assert number < int(said[-1]) <= found <= int(said[-1]) + 1
            number = found
            assert dict(store["data"].items()) == expected(number)
            for entry in store.list():
                if entry.is_snapshot:
                    with store.at(entry.name) as view:
                        assert dict(view.items()) == expected(int(entry.name.partition("@")[2]))
            assert_sound(store)
