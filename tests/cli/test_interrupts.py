"""Ctrl-C at any moment of any command: it ends at once in one line, and the image stays sound."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Cowfs

SIZE = 8 << 20
"""Bytes of a value: more than a commit with a single flush may have."""

COMMANDS = [
    "cp blob I:home/b1",
    "cp blob I:home/b2",
    "cp I:home/b1 I:home/b3",
    "cp I:home/b1 out",
    "rm I:home/b1",
    "put I map a --file blob",
    "put I map b --file blob",
    "put I map small text",
    "del I map a",
    "get I map b",
    "snapshot I home@NUMBER map@NUMBER",
    "rollback I map@LAST",
    "clone I home@LAST home2",
    "destroy I -r home2",
    "check I",
    "list I",
]


@pytest.fixture
def alarm() -> Iterator[None]:
    """An alarm is as Ctrl-C."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("seed", range(3))
def test_ctrl_c_at_any_moment_leaves_a_sound_image(
    cowfs: Cowfs, image: str, alarm: None, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    (tmp_path / "blob").write_bytes(rng.randbytes(SIZE))
    cowfs("create", image, "home")
    cowfs("create", image, "map", "--kind", "kv")
    cowfs("snapshot", image, "home@0", "map@0")
    last = 0
    interrupted = 0
    for number in range(1, 60):
        command = rng.choice(COMMANDS).replace("NUMBER", str(number)).replace("LAST", str(last))
        words = [word.replace("I", image, 1) for word in command.split()]
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.0001, 0.02))
        result = cowfs.result(*words)
        late = signal.setitimer(signal.ITIMER_REAL, 0)[0]
        if result.code == 130:
            interrupted += 1
            assert result.err == "cowfs: interrupted\n"
        else:
            assert late or result.code == 0, result
        if command.startswith("snapshot") and result.code == 0:
            last = number
        checked = cowfs.result("check", image)
        assert checked.code == 0, f"after {command!r} (number {number}): {checked}"
    assert interrupted
