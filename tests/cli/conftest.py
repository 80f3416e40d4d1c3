"""Running `cowfs`: in this process where only words and exit codes matter, else as a program."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from cowfs.cli import run


@dataclass
class Result:
    """How a command ended and what it printed."""

    code: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode("utf-8", "surrogateescape")

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Cowfs:
    """`cowfs(...)` runs a command that must end well; `cowfs.fails(...)` one that must not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def result(self, *arguments: str | Path, input: bytes = b"") -> Result:
        out, err = io.BytesIO(), io.BytesIO()
        streams = {
            name: io.TextIOWrapper(stream, "utf-8", "surrogateescape", write_through=True)
            for name, stream in (("stdout", out), ("stderr", err), ("stdin", io.BytesIO(input)))
        }
        with self.monkeypatch.context() as patch:
            for name, stream in streams.items():
                patch.setattr(sys, name, stream)
            code = run([str(argument) for argument in arguments])
        return Result(code, out.getvalue(), err.getvalue().decode())

    def __call__(self, *arguments: str | Path, input: bytes = b"", code: int = 0) -> Result:
        result = self.result(*arguments, input=input)
        assert (result.code, result.err) == (code, "")
        return result

    def fails(self, *arguments: str | Path, input: bytes = b"", code: int = 1) -> str:
        """The one line that it says."""
        result = self.result(*arguments, input=input)
        assert result.code == code, result
        assert result.err.startswith("cowfs: ") and result.err.count("\n") == 1, result.err
        assert result.err.endswith("\n")
        return result.err.removeprefix("cowfs: ").rstrip("\n")


@pytest.fixture
def cowfs(monkeypatch: pytest.MonkeyPatch) -> Cowfs:
    return Cowfs(monkeypatch)


@pytest.fixture
def image(tmp_path: Path, cowfs: Cowfs, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty image in the current directory."""
    monkeypatch.chdir(tmp_path)
    cowfs("mkfs", "t.cow")
    return "t.cow"


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Begin a program; it is ended with the test."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(
        *arguments: str | Path,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = subprocess.PIPE,
        stderr: int | IO[bytes] | None = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cowfs.cli", *map(str, arguments)],
            bufsize=0,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()
