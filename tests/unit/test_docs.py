"""The examples in the documents do what the documents say.

Each document is run from top to bottom in one fresh directory. All its ```python blocks share a
namespace, all its ```console blocks a shell. In a console block, `$ ` starts a command (`> `
continues it) and the lines below are its output, in which `...` stands for any text and a line of
only `...` for any lines. A command with no output shown must succeed; where output is shown, that
decides. Blocks of another language are not run.
"""

import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = ["README.md", "docs/library.md", "docs/cli.md", "docs/mount.md"]

BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS_PER_COMMAND = 60


@dataclass
class Command:
    """One `$ ` line of a console block and the output shown for it."""

    line: int
    text: str
    output: list[str] = field(default_factory=list)

    def matches(self, printed: str) -> bool:
        pattern = "".join(
            r"(?:.*\n)*?"
            if line.strip() == "..."
            else ".*".join(map(re.escape, line.rstrip().split("..."))) + "\n"
            for line in self.output
        )
        return (
            re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in printed.splitlines()))
            is not None
        )


def commands(block: str, line: int) -> Iterator[Command]:
    """The commands of a console block that starts at `line` of its document."""
    command: Command | None = None
    for number, text in enumerate(block.splitlines(), line):
        if text.startswith("$ "):
            if command:
                yield command
            command = Command(number, text[2:])
        elif command is None:
            raise ValueError(f"line {number}: a console block starts with a `$ ` line")
        elif text.startswith("> ") and not command.output:
            command.text += "\n" + text[2:]
        else:
            command.output.append(text)
    if command:
        yield command


class Shell:
    """A bash that keeps directory, variables and background jobs from command to command."""

    END = "\x1eend of output "

    def __init__(self, directory: Path) -> None:
        scripts = Path(sys.executable).parent
        self.status = 0
        self.bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=directory,
            env={
                "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
                "HOME": str(directory),
                "LC_ALL": "C.UTF-8",
                "TZ": "UTC",
                "COLUMNS": "100",
                "NO_COLOR": "1",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, text: str) -> str:
        """What the command prints; its exit code is left in `status` and, for the next, in `$?`."""
        assert self.bash.stdin and self.bash.stdout
        script = f"(exit {self.status})\n{{ {text}\n}} </dev/null\nprintf '{self.END}%d\\n' $?\n"
        self.bash.stdin.write(script.encode())
        self.bash.stdin.flush()
        printed = b""
        deadline = time.monotonic() + SECONDS_PER_COMMAND
        while (end := re.search(f"{self.END}(\\d+)\n".encode(), printed)) is None:
            ready, _, _ = select.select(
                [self.bash.stdout], [], [], max(0, deadline - time.monotonic())
            )
            chunk = os.read(self.bash.stdout.fileno(), 1 << 16) if ready else b""
            if not chunk:
                reason = "ended the shell" if ready else f"took more than {SECONDS_PER_COMMAND} s"
                pytest.fail(f"$ {text}\n{printed.decode(errors='replace')}\n{reason}")
            printed += chunk
        self.status = int(end[1])
        return printed[: end.start()].decode(errors="replace")

    def close(self) -> None:
        self.bash.kill()
        self.bash.communicate()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    shell.close()


def check_console(shell: Shell, document: str, block: str, line: int) -> None:
    for command in commands(block, line):
        printed = shell.run(command.text)
        where = f"{document}:{command.line}: $ {command.text}\n"
        if command.output:
            expected = "\n".join(command.output)
            assert command.matches(printed), f"{where}printed:\n{printed}\nexpected:\n{expected}"
        else:
            assert shell.status == 0, f"{where}exit code {shell.status}, printed:\n{printed}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_examples_run_as_written(
    document: str, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if document == "docs/mount.md":
        if shutil.which("fusermount3") is None:
            pytest.skip("fuse3 is not installed")
        if not os.path.exists("/dev/fuse"):
            pytest.skip("the kernel has no FUSE")
    text = (ROOT / document).read_text()
    blocks = list(BLOCK.finditer(text))
    assert blocks, f"{document} has no example that can be run"
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        language, content = block.groups()
        lines_before = text.count("\n", 0, block.start(2))
        if language == "console":
            check_console(shell, document, content, lines_before + 1)
        else:  # the empty lines give a traceback the document's own line numbers
            exec(compile("\n" * lines_before + content, ROOT / document, "exec"), namespace)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a 12 B", "a 12 B\n", True),
        ("a ... B", "a 4711 B  \n", True),
        ("a ... B", "a 4711\nB\n", False),
        ("first\n...\nlast", "first\nlast\n", True),
        ("first\n...\nlast", "first\n1\n2\nlast\n", True),
        ("first\n...", "second\n", False),
        ("a.c", "abc\n", False),
    ],
)
def test_three_dots_stand_for_what_varies(shown: str, printed: str, same: bool) -> None:
    assert Command(1, "", shown.splitlines()).matches(printed) is same


def test_a_shell_keeps_its_directory_and_exit_code(shell: Shell) -> None:
    check_console(
        shell, "this", "$ cd / && (exit 3)\n...\n$ echo $? $PWD \\\n> and more\n3 / and more\n", 1
    )


def test_a_wrong_example_fails_and_is_named(shell: Shell) -> None:
    with pytest.raises(AssertionError, match="this:2: "):
        check_console(shell, "this", "$ true\n$ echo a\nb\n", 1)
    with pytest.raises(AssertionError, match="exit code 3"):
        check_console(shell, "this", "$ (exit 3)\n", 1)
