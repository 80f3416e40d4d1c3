"""What holds for every command: help, versions, wrong usage, and one clear line for a failure."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cowfs import __version__
from cowfs.cli import SECTIONS, Commands, cli
from cowfs.device import lock_holders

if TYPE_CHECKING:
    from tests.cli.conftest import Cowfs, Start

COMMANDS = [name for section in SECTIONS.values() for name in section]


def test_help_lists_every_command(cowfs: Cowfs) -> None:
    text = cowfs("--help").out
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", text, re.MULTILINE)
    assert cowfs("-h").out == text


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_that_begins_as_the_list_has_it(cowfs: Cowfs, name: str) -> None:
    text = cowfs(name, "--help").out
    line = next(section[name] for section in SECTIONS.values() if name in section)
    assert text.startswith(f"Usage: cowfs {name} ")
    assert line in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_a_command_is_named_as_it_is_called() -> None:
    assert isinstance(cli, Commands)
    import click

    with click.Context(cli) as context:
        for name in COMMANDS:
            command = cli.get_command(context, name)
            assert command is not None and command.name == name


def test_version_is_that_of_the_package(cowfs: Cowfs) -> None:
    assert cowfs("--version").out == f"cowfs {__version__}\n"


def test_without_a_command_there_is_help_and_exit_code_2(cowfs: Cowfs) -> None:
    result = cowfs.result()
    assert result.code == 2 and result.err.startswith("Usage: cowfs")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["lst"], "no command 'lst'; did you mean 'list' or 'ls'? (see 'cowfs --help')"),
        (["--wrong"], "no such option"),
        (["list"], "missing argument 'IMAGE' (see 'cowfs list --help')"),
        (["list", "a", "b"], "got unexpected extra argument (b) (see 'cowfs list --help')"),
        (["mkfs", "a", "--size", "-5G"], "a size cannot be negative"),
        (["mkfs", "a", "--size", "many"], "sizes are written like 4096, 128K"),
        (["mkfs", "a", "--compression", "zip"], "'zip' is not one of 'lz4', 'none'"),
        (["create", "a", "b", "--kind", "table"], "'table' is not one of 'fs', 'kv', 'volume'"),
        (["scan", "a", "b", "--limit", "-1"], "is not in the range"),
        (["dump", "a"], "Choose from: superblocks, log, tree, node (see 'cowfs dump --help')"),
        (["mkfs", "a", "--size", "1M"], "an image with such blocks has 2M to 4E"),
        (["-v"], "missing command"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    cowfs: Cowfs, arguments: list[str], line: str
) -> None:
    assert line in cowfs.fails(*arguments, code=2)


def open_images(path: Path) -> dict[str, Callable[[], object]]:
    """Ways in which what is named is no image."""
    return {
        "missing": lambda: None,
        "directory": path.mkdir,
        "text": lambda: path.write_text("hello, world\n" * 1000),
        "short text": lambda: path.write_text("x"),
        "empty": lambda: path.write_bytes(b""),
        "zeros": lambda: path.write_bytes(bytes(1 << 20)),
        "link to nothing": lambda: path.symlink_to("nowhere"),
        "link to itself": lambda: path.symlink_to(path),
        "fifo": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/null"),
    }


WORDS = {
    "missing": "no such image",
    "directory": "is a directory",
    "text": "not a cowfs image",
    "short text": "not a cowfs image",
    "empty": "is empty",
    "zeros": "not a cowfs image",
    "link to nothing": "no such image",
    "link to itself": "symbolic links",
    "fifo": "not an ordinary file",
    "device": "not an ordinary file",
}
USES = [
    ["list", "IMAGE"],
    ["info", "IMAGE"],
    ["df", "IMAGE"],
    ["check", "IMAGE"],
    ["scrub", "IMAGE"],
    ["rewind", "IMAGE"],
    ["dump", "IMAGE", "superblocks"],
    ["create", "IMAGE", "a"],
    ["snapshot", "IMAGE", "a@x"],
    ["get", "IMAGE", "a", "k"],
    ["put", "IMAGE", "a", "k", "v"],
    ["ls", "IMAGE:a/x"],
    ["rm", "IMAGE:a/x"],
    ["cp", "IMAGE:a/x", "."],
    ["cp", "/etc/passwd", "IMAGE:a/x"],
]


@pytest.mark.parametrize("use", USES, ids=lambda use: use[0])
@pytest.mark.parametrize("case", WORDS)
def test_what_is_no_image_is_named_in_one_line(
    cowfs: Cowfs, tmp_path: Path, case: str, use: list[str]
) -> None:
    path = tmp_path / "thing"
    open_images(path)[case]()
    line = cowfs.fails(*(word.replace("IMAGE", str(path)) for word in use))
    assert line.startswith(str(path)), line
    assert WORDS[case] in line


def test_a_truncated_image_is_named(cowfs: Cowfs, image: str) -> None:
    cowfs("create", image, "a", "--kind", "kv")
    cowfs("put", image, "a", "key", input=os.urandom(4 << 20))
    whole = Path(image).read_bytes()
    for size in (1, 4096, 100_000, len(whole) // 2, len(whole) - 1):
        Path(image).write_bytes(whole[:size])
        for command in ("list", "check", "info"):
            assert cowfs.fails(command, image).startswith((image, "corrupt image"))


def test_quiet_and_verbose_are_taken_before_and_after_the_command(cowfs: Cowfs, image: str) -> None:
    assert (
        cowfs.result("-v", "create", image, "a").err
        == f"cowfs: {image}: made dataset a of kind fs\n"
    )
    assert "made dataset b" in cowfs.result("create", image, "b", "-v").err
    assert cowfs.result("-q", "create", image, "c").err == ""
    assert cowfs.result("create", "-q", image, "d").err == ""


def test_debug_shows_where_an_error_comes_from(cowfs: Cowfs) -> None:
    err = cowfs.result("list", "nothing.cow", "--debug").err
    assert "Traceback" in err and err.splitlines()[-1].startswith("cowfs: nothing.cow: no such")


def test_json_is_one_document_with_the_records_of_the_table(cowfs: Cowfs, image: str) -> None:
    assert json.loads(cowfs("list", image, "--json").out) == []
    cowfs("create", image, "a", "--kind", "kv")
    cowfs("put", image, "a", "k", "v")
    (entry,) = json.loads(cowfs("list", image, "--json").out)
    assert entry["name"] == "a" and entry["kind"] == "kv" and entry["items"] == 1
    assert json.loads(cowfs("info", image, "--json").out)["datasets"] == 1
    assert json.loads(cowfs("df", image, "--json").out)["total"] > 0
    assert json.loads(cowfs("check", image, "--json").out)["faults"] == []
    assert json.loads(cowfs("scrub", image, "--json").out)["ok"] is True


def test_a_reader_that_goes_away_ends_the_command_quietly(
    cowfs: Cowfs, image: str, start: Start
) -> None:
    cowfs("create", image, "a", "--kind", "kv")
    cowfs("put", image, "a", "k", input=b"v" * (8 << 20))
    for command in (["get", image, "a", "k"], ["scan", image, "a"]):
        process = start(*command)
        assert process.stdout and process.stderr
        assert process.stdout.read(1)
        process.stdout.close()
        assert process.wait() == 141
        assert process.stderr.read() == b""


def test_a_full_standard_output_is_reported(cowfs: Cowfs, image: str, start: Start) -> None:
    cowfs("create", image, "a")
    with open("/dev/full", "wb") as full:
        process = start("list", image, stdout=full)
    assert process.wait() == 1
    assert process.stderr and process.stderr.read() == b"cowfs: No space left on device\n"


def test_an_image_that_another_process_holds_is_refused_with_its_pid(
    cowfs: Cowfs, image: str, start: Start
) -> None:
    cowfs("create", image, "a", "--kind", "kv")
    holder = start("put", image, "a", "k", stdin=subprocess.PIPE)
    while str(holder.pid) not in lock_holders(os.stat(image)):
        assert holder.poll() is None
    for command in (["put", image, "a", "k", "v"], ["mkfs", image, "--force"], ["list", image]):
        line = cowfs.fails(*command)
        assert f"process {holder.pid} holds the image" in line and image in line
    out, err = holder.communicate(b"value")
    assert (holder.returncode, out, err) == (0, b"", b"")
    assert cowfs("get", image, "a", "k").raw == b"value"


def test_any_number_of_commands_may_read_at_once(cowfs: Cowfs, image: str, start: Start) -> None:
    cowfs("create", image, "a", "--kind", "kv")
    cowfs("put", image, "a", "k", input=b"v" * (8 << 20))
    readers = [start("get", image, "a", "k") for _ in range(3)]
    for reader in readers:
        assert reader.stdout and reader.stdout.read(1) == b"v"
    assert cowfs("list", image).lines[1].startswith("a ")
    line = cowfs.fails("put", image, "a", "k", "w")
    assert all(str(reader.pid) in line for reader in readers)
    for reader in readers:
        out, err = reader.communicate()
        assert (reader.returncode, len(out), err) == (0, (8 << 20) - 1, b"")


def test_ctrl_c_ends_a_command_that_waits_for_input(cowfs: Cowfs, image: str, start: Start) -> None:
    cowfs("create", image, "a", "--kind", "kv")
    process = start("put", image, "a", "k", stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.write(bytes(64 << 20))  # more than a pipe holds: it is reading
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert process.stderr and process.stderr.read() == b"cowfs: interrupted\n"
    assert cowfs("scan", image, "a").out == ""
    assert cowfs("check", image).out == ""


def test_ctrl_c_ends_a_command_that_is_still_being_imported() -> None:
    program = """
import os, signal, sys
def interrupt(event, arguments):
    if event == "import" and arguments[0] == "cowfs.engine":
        os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(interrupt)
from _cowfs_program import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"cowfs: interrupted\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(cowfs: Cowfs, shell: str) -> None:
    assert f"_COWFS_COMPLETE={shell}_complete" in cowfs("completion", shell).out


def complete(cowfs: Cowfs, words: str) -> list[str]:
    """What bash would offer for the last word."""
    with cowfs.monkeypatch.context() as patch:
        patch.setenv("_COWFS_COMPLETE", "bash_complete")
        patch.setenv("COMP_WORDS", words)
        patch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
        return [line.removeprefix("plain,") for line in cowfs().lines if line]


def test_completion_offers_commands_options_and_datasets(cowfs: Cowfs, image: str) -> None:
    cowfs("create", image, "docs")
    cowfs("create", image, "data")
    cowfs("snapshot", image, "data@monday")
    assert complete(cowfs, "cowfs sn") == ["snapshot"]
    assert "--size" in complete(cowfs, "cowfs mkfs --")
    assert complete(cowfs, f"cowfs snapshot {image} d") == ["data", "docs"]
    assert complete(cowfs, f"cowfs rollback {image} data@") == ["data@monday"]
    assert complete(cowfs, f"cowfs ls {image}:do") == [f"{image}:docs"]
    assert complete(cowfs, "cowfs snapshot nothing.cow d") == []
    assert complete(cowfs, "cowfs list t") == ["file,t"]
