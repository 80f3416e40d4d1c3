"""Ctrl-C at any moment of any command: it ends at once in one line, and the image stays sound."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

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


def test_ctrl_c_at_any_moment_leaves_a_sound_image(
    cowfs: Cowfs, image: str, tmp_path: Path
) -> None:
    """Real processes, each interrupted at a random moment unless it is done before."""
    rng = random.Random()
    (tmp_path / "blob").write_bytes(rng.randbytes(SIZE))
    cowfs("create", image, "home")
    cowfs("create", image, "map", "--kind", "kv")
    cowfs("snapshot", image, "home@0", "map@0")
    last = 0
    for number in range(1, 31):
        command = rng.choice(COMMANDS).replace("NUMBER", str(number)).replace("LAST", str(last))
        words = [word.replace("I", image, 1) for word in command.split()]
        process = subprocess.Popen(
            [sys.executable, "-m", "cowfs", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(timeout=rng.uniform(0.05, 0.25))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            process.wait()
        if command.startswith("snapshot") and process.returncode == 0:
            last = number
        checked = cowfs.result("check", image)
        assert checked.code == 0, f"after {command!r} (number {number}): {checked}"
