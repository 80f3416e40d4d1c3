"""Files: into images, between them, out again, and every byte, mode, time and hole as it was."""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import pty
import re
import signal
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Cowfs, Start

MIB = 1 << 20


@pytest.fixture
def fs(cowfs: Cowfs, image: str) -> str:
    cowfs("create", image, "home")
    return image


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A bit of everything that a file tree can hold."""
    top = tmp_path / "tree"
    (top / "sub" / "deep").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "small").write_text("small")
    (top / "large").write_bytes(os.urandom(MIB + 1))
    (top / "nothing").touch()
    (top / "sub" / "script").write_text("#!/bin/sh\n")
    (top / "sub" / "deep" / os.fsdecode(b"odd \xff\nname")).write_text("odd")
    with (top / "sparse").open("wb") as file:
        file.truncate(8 * MIB)
        file.seek(4 * MIB)
        file.write(b"in the middle")
    os.link(top / "small", top / "sub" / "hard")
    (top / "link").symlink_to("sub/script")
    (top / "dangling").symlink_to("/no/where")
    os.mkfifo(top / "pipe")
    os.chmod(top / "sub" / "script", 0o4751)
    os.chmod(top / "sub", 0o1700)
    with contextlib.suppress(OSError):  # a file system without them
        os.setxattr(top / "small", "user.color", b"red\0")
    for number, path in enumerate(sorted(top.rglob("*"), reverse=True)):
        ns = 1_000_000_000_123_456_789 + number * 10**15
        os.utime(path, ns=(ns, ns + 1), follow_symlinks=False)
    os.utime(top, ns=(5, 7))
    return top


def facts(top: Path) -> dict[str, tuple[Any, ...]]:
    """All that matters of each file of a tree."""
    found = {}
    names: dict[int, str] = {}
    for path in [top, *sorted(top.rglob("*"))]:
        status = path.lstat()
        content: Any = None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif path.is_symlink():
            content = os.readlink(path)
        name = os.fsencode(path.relative_to(top)).decode("latin-1")
        attributes = {
            key: os.getxattr(path, key, follow_symlinks=False)
            for key in os.listxattr(path, follow_symlinks=False)
        }
        same_as = names.setdefault(status.st_ino, name)
        links = status.st_nlink if not path.is_dir() else 0
        times = status.st_mtime_ns
        owner = (status.st_uid, status.st_gid)
        found[name] = (status.st_mode, owner, times, links, same_as, attributes, content)
    return found


def test_a_tree_comes_out_as_it_went_in(cowfs: Cowfs, fs: str, tree: Path, tmp_path: Path) -> None:
    cowfs("cp", "-r", tree, f"{fs}:home")
    cowfs("cp", "-r", f"{fs}:home/tree", tmp_path / "out")
    assert facts(tmp_path / "out") == facts(tree)
    assert (tmp_path / "out" / "sparse").stat().st_blocks * 512 < MIB
    cowfs("check", fs)


def test_a_tree_stays_the_same_within_and_between_images(
    cowfs: Cowfs, fs: str, tree: Path, tmp_path: Path
) -> None:
    cowfs("mkfs", "other.cow")
    cowfs("create", "other.cow", "a")
    cowfs("create", fs, "second")
    cowfs("cp", "-r", tree, f"{fs}:home")
    cowfs("snapshot", fs, "home@x")
    cowfs("cp", "-r", f"{fs}:home/tree", f"{fs}:home/copy")
    cowfs("cp", "-r", f"{fs}:home@x/tree", f"{fs}:second")
    cowfs("cp", "-r", f"{fs}:home@x/tree", "other.cow:a/sub")
    for number, place in enumerate(
        [f"{fs}:home/copy", f"{fs}:second/tree", "other.cow:a/sub", f"{fs}:home@x/tree"]
    ):
        cowfs("cp", "-r", place, tmp_path / f"out{number}")
        assert facts(tmp_path / f"out{number}") == facts(tree), place
    for image in (fs, "other.cow"):
        cowfs("check", image)


def test_copies_within_an_image_share_their_space(cowfs: Cowfs, fs: str, tmp_path: Path) -> None:
    def live() -> Any:
        return json.loads(cowfs("df", fs, "--json").out)["live"]

    (tmp_path / "big").write_bytes(os.urandom(4 * MIB))
    cowfs("cp", "big", f"{fs}:home")
    before = live()
    cowfs("cp", f"{fs}:home/big", f"{fs}:home/big2")
    assert live() - before < MIB
    assert cowfs("cat", f"{fs}:home/big2").raw == (tmp_path / "big").read_bytes()


def test_where_a_copy_goes_is_as_with_cp(cowfs: Cowfs, fs: str, tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    for name in ("f", "g", "d/h"):
        (tmp_path / name).write_text(name)

    def names(place: str) -> list[str]:
        return cowfs("ls", place).lines

    cowfs("cp", "f", f"{fs}:home/new")
    assert names(f"{fs}:home") == ["new"]
    cowfs("cp", "f", "g", f"{fs}:home")
    assert names(f"{fs}:home") == ["f", "g", "new"]
    cowfs("cp", "-r", "d", f"{fs}:home/made")
    assert names(f"{fs}:home/made") == ["e", "h"]
    cowfs("cp", "-r", "d", f"{fs}:home/made")
    assert names(f"{fs}:home/made") == ["d", "e", "h"]
    cowfs("rm", "-r", f"{fs}:home/made/d")
    cowfs("cp", "-r", "d/.", f"{fs}:home/made/")
    assert names(f"{fs}:home/made") == ["e", "h"]
    cowfs("cp", "g", f"{fs}:home/f")
    assert cowfs("cat", f"{fs}:home/f").out == "g"
    cowfs("cp", "-r", f"{fs}:home", "whole")
    assert sorted(os.listdir("whole")) == ["f", "g", "made", "new"]
    cowfs("cp", "-r", f"{fs}:home", "whole")
    assert sorted(os.listdir("whole")) == ["f", "g", "home", "made", "new"]
    cowfs("cp", f"{fs}:home/f", f"{fs}:home/g", ".")
    assert (tmp_path / "f").read_text() == "g"


def test_links_are_followed_without_r_and_kept_with_it(
    cowfs: Cowfs, fs: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("content")
    (tmp_path / "link").symlink_to("file")
    cowfs("cp", "link", f"{fs}:home/followed")
    cowfs("cp", "-r", "link", f"{fs}:home/kept")
    lines = cowfs("ls", "-l", f"{fs}:home").lines
    assert lines[1].startswith("-rw") and lines[2].endswith("kept -> file")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["d", "I:home"], "d: is a directory; cp -r copies it with all in it"),
        (["I:home/d", "."], "I:home/d: is a directory; cp -r copies it with all in it"),
        (["nothing", "I:home"], "nothing: No such file or directory"),
        (["I:home/nothing", "."], "I:home/nothing: No such file or directory"),
        (["f", "I:home/no/where"], "I:home/no/where: No such file or directory"),
        (["f", "I:home/f/x"], "I:home/f/x: Not a directory"),
        (["f", "I:home/new/"], "I:home/new/: is not a directory"),
        (["f", "g", "I:home/f"], "I:home/f: is not a directory"),
        (["I:home/f", "no/where"], "no/where: No such file or directory"),
        (["I:home/f", "I:home/g", "f"], "f: is not a directory"),
        (["-r", "d", "I:home/f"], "I:home/f: Not a directory"),
        (["I:home/f", "I:home/f"], "I:home/f: source and target are the same file"),
        (["-r", "I:home/d", "I:home/d/e"], "I:home/d/e/d: a directory cannot be"),
        (["f", "I:home@x/f"], "home@x is a snapshot and cannot be changed; clone it instead"),
        (["f", "I:map/f"], "map is no dataset of files (kind fs); see 'cowfs list'"),
        (["I:map/f", "."], "map is no dataset of files (kind fs); see 'cowfs list'"),
    ],
)  # fmt: skip
def test_what_cp_cannot_do_is_said_in_one_line_and_leaves_nothing(
    cowfs: Cowfs, fs: str, tmp_path: Path, arguments: list[str], line: str
) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    for name in ("f", "g"):
        (tmp_path / name).write_text(name)
    cowfs("cp", "-r", "d", "f", "g", f"{fs}:home")
    cowfs("create", fs, "map", "--kind", "kv")
    cowfs("snapshot", fs, "home@x")
    said = cowfs.fails("cp", *(word.replace("I:", f"{fs}:") for word in arguments))
    assert said.startswith(line.replace("I:", f"{fs}:"))
    cowfs("diff", fs, "home@x")


def test_wrong_usage_of_cp(cowfs: Cowfs, fs: str, tmp_path: Path) -> None:
    for name in ("f", "d/f"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert "IMAGE:DATASET/path" in cowfs.fails("cp", "f", "g", code=2)
    assert "same place" in cowfs.fails("cp", "f", "d/f", f"{fs}:home", code=2)
    assert f"{fs}:DATASET/path" in cowfs.fails("cp", "f", f"{fs}:", code=2)
    cowfs.fails("cp", "f", code=2)
    assert cowfs("ls", f"{fs}:home").out == ""


def test_several_sources_are_copied_all_or_not_at_all(
    cowfs: Cowfs, fs: str, tmp_path: Path
) -> None:
    (tmp_path / "f").touch()
    cowfs.fails("cp", "f", "nothing", f"{fs}:home")
    assert cowfs("ls", f"{fs}:home").out == ""


def test_an_image_is_neither_overwritten_nor_copied_into_itself(
    cowfs: Cowfs, fs: str, tmp_path: Path
) -> None:
    image = Path(fs).name
    (tmp_path / "d" / "sub").mkdir(parents=True)
    (tmp_path / "d" / image).write_text("a file of the same name")
    cowfs("create", fs, "disk", "--kind", "volume", "--size", "1M")
    cowfs("cp", "-r", "d/.", f"{fs}:home")
    for arguments in ([f"{fs}:home/{image}", "."], ["-r", f"{fs}:home/.", "."], [f"{fs}:disk", fs]):
        assert "is the image itself" in cowfs.fails("cp", *arguments, code=2)
    assert "is the image itself" in cowfs.fails("cp", fs, f"{fs}:home/copy", code=2)
    cowfs("check", fs)
    assert cowfs("ls", f"{fs}:home").lines == ["sub", image]
    os.rename(fs, tmp_path / "d" / image)
    inner = f"{tmp_path}/d/{image}"
    result = cowfs.result("cp", "-r", "d", f"{inner}:home")
    assert (result.code, result.err) == (0, f"cowfs: {image}: the image itself, left out\n")
    assert cowfs("ls", f"{inner}:home/d").lines == ["sub"]


def test_an_error_of_the_host_names_the_file(cowfs: Cowfs, fs: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("text")
    cowfs("create", fs, "disk", "--kind", "volume", "--size", "1M")
    cowfs("cp", "f", f"{fs}:home")
    for source in (f"{fs}:home/f", f"{fs}:disk"):
        assert cowfs.fails("cp", source, "/dev/full") == "/dev/full: No space left on device"


def test_names_that_are_no_text_are_places_too(cowfs: Cowfs, fs: str, tmp_path: Path) -> None:
    name = os.fsdecode(b"odd \xff")
    (tmp_path / name).write_text("odd")
    cowfs("cp", name, f"{fs}:home")
    assert cowfs("cat", f"{fs}:home/{name}").out == "odd"
    cowfs("mkdir", "-p", f"{fs}:home/{name}2/x")
    cowfs("cp", f"{fs}:home/{name}", f"{fs}:home/{name}2/x")
    cowfs("rm", f"{fs}:home/{name}")
    assert cowfs("ls", f"{fs}:home").lines == [r"odd \xff2"]
    assert "no dataset" in cowfs.fails("ls", f"{fs}:{name}")


def test_what_a_pipe_brings_is_copied(cowfs: Cowfs, fs: str, start: Start) -> None:
    process = start("cp", "/dev/stdin", f"{fs}:home/f", stdin=subprocess.PIPE)
    assert process.communicate(b"from a pipe") == (b"", b"") and process.returncode == 0
    assert cowfs("cat", f"{fs}:home/f").out == "from a pipe"


def test_a_copy_that_does_not_fit_leaves_no_trace(cowfs: Cowfs, tmp_path: Path) -> None:
    image = tmp_path / "small.cow"
    (tmp_path / "big").write_bytes(os.urandom(16 * MIB))
    (tmp_path / "fits").write_bytes(os.urandom(MIB))
    cowfs("mkfs", image, "--size", "8M")
    cowfs("create", image, "home")
    assert "full" in cowfs.fails("cp", tmp_path / "fits", tmp_path / "big", f"{image}:home")
    assert cowfs("ls", f"{image}:home").out == ""
    cowfs("cp", tmp_path / "fits", f"{image}:home")
    cowfs("rm", f"{image}:home/fits")
    cowfs("check", image)


# --- ls, cat, rm, mkdir -------------------------------------------------------------------------


def test_ls_shows_one_name_a_line_and_all_about_it_with_l(
    cowfs: Cowfs, fs: str, tree: Path
) -> None:
    cowfs("cp", "-r", f"{tree}/.", f"{fs}:home")
    assert cowfs("ls", f"{fs}:home").lines == sorted(os.listdir(tree))
    assert cowfs("ls", f"{fs}:home/sub/deep").out == r"odd \xff\x0aname" + "\n"
    assert cowfs("ls", f"{fs}:home/small").out == "small\n"
    head, *lines = cowfs("ls", "-l", f"{fs}:home").lines
    rows = {line.split()[7]: line.split() for line in lines}
    assert head.split() == ["MODE", "LINKS", "USER", "GROUP", "SIZE", "TIME", "NAME"]
    assert rows["small"][:2] == ["-rw-r--r--", "2"] and rows["small"][4] == "5B"
    assert rows["sparse"][4] == "8M" and rows["sub"][0] == "drwx-----T"
    assert rows["large"][4] == "1M"
    exact = cowfs("ls", "-l", "--bytes", f"{fs}:home/large").lines[1].split()
    assert exact[4] == str(MIB + 1) and exact[7] == "large"
    both = cowfs("ls", f"{fs}:home/sub", f"{fs}:home/empty").lines
    assert both == [f"{fs}:home/sub:", "deep", "hard", "script", "", f"{fs}:home/empty:"]


def test_cat_writes_one_file_after_the_other(cowfs: Cowfs, fs: str, tree: Path) -> None:
    cowfs("cp", "-r", tree, f"{fs}:home")
    cowfs("snapshot", fs, "home@x")
    cowfs("rm", f"{fs}:home/tree/large")
    places = [f"{fs}:home@x/tree/large", f"{fs}:home/tree/link", f"{fs}:home/tree/nothing"]
    expected = (tree / "large").read_bytes() + b"#!/bin/sh\n"
    assert cowfs("cat", *places).raw == expected
    assert cowfs.fails("cat", f"{fs}:home/tree") == f"{fs}:home/tree: Is a directory"


def test_rm_removes_all_that_is_named_or_nothing(cowfs: Cowfs, fs: str, tree: Path) -> None:
    cowfs("cp", "-r", f"{tree}/.", f"{fs}:home")
    names = cowfs("ls", f"{fs}:home").lines
    assert "rm -r" in cowfs.fails("rm", f"{fs}:home/small", f"{fs}:home/sub")
    cowfs.fails("rm", "-r", f"{fs}:home/small", f"{fs}:home/no")
    assert "cowfs destroy" in cowfs.fails("rm", "-r", f"{fs}:home")
    assert cowfs("ls", f"{fs}:home").lines == names
    cowfs("rm", f"{fs}:home/link", f"{fs}:home/pipe")
    cowfs("rm", "-r", f"{fs}:home/sub", f"{fs}:home/small")
    gone = {"link", "pipe", "sub", "small"}
    assert cowfs("ls", f"{fs}:home").lines == [name for name in names if name not in gone]


def test_mkdir_makes_parents_only_when_asked(cowfs: Cowfs, fs: str) -> None:
    assert cowfs.fails("mkdir", f"{fs}:home/a/b") == f"{fs}:home/a/b: No such file or directory"
    cowfs("mkdir", "-p", f"{fs}:home/a/b")
    cowfs("mkdir", "-p", f"{fs}:home/a/b")
    assert cowfs.fails("mkdir", f"{fs}:home/a") == f"{fs}:home/a: File exists"
    cowfs("mkdir", f"{fs}:home/c", f"{fs}:home/c/d")
    assert cowfs("ls", f"{fs}:home").lines == ["a", "c"]


def test_a_place_is_the_longest_name_of_a_dataset(cowfs: Cowfs, fs: str, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "mail@host:1").touch()
    cowfs("mkdir", f"{fs}:home/sub")
    cowfs("create", fs, "home/sub")
    cowfs("cp", "f", f"{fs}:home/sub/inner")
    cowfs("cp", "f", f"{fs}:home//sub/outer")
    cowfs("cp", "mail@host:1", f"{fs}:home")
    assert cowfs("ls", f"{fs}:home/sub").lines == ["inner"]
    assert cowfs("ls", f"{fs}:home//sub").lines == ["outer"]
    assert cowfs("ls", f"{fs}:home/mail@host:1").lines == ["mail@host:1"]
    cowfs("snapshot", fs, "home/sub@x")
    assert cowfs("ls", f"{fs}:home/sub@x/inner").lines == ["inner"]


@pytest.mark.parametrize("command", ["ls", "cat", "rm", "mkdir"])
def test_commands_on_files_need_a_place_in_an_image(cowfs: Cowfs, fs: str, command: str) -> None:
    assert "IMAGE:DATASET/path" in cowfs.fails(command, fs, code=2)
    assert "IMAGE:DATASET/path" in cowfs.fails(command, "/etc", code=2)
    cowfs("create", fs, "map", "--kind", "kv")
    assert "kind fs" in cowfs.fails(command, f"{fs}:map/x")


# --- diff ---------------------------------------------------------------------------------------


def test_diff_lists_paths(cowfs: Cowfs, fs: str, tree: Path) -> None:
    cowfs("cp", "-r", f"{tree}/.", f"{fs}:home")
    cowfs("snapshot", fs, "home@x")
    cowfs("rm", f"{fs}:home/nothing")
    cowfs("cp", "/dev/null", f"{fs}:home/sub/new\tname")
    lines = cowfs("diff", fs, "home@x", code=1).lines
    assert {"- /nothing", r"+ /sub/new\x09name"} <= set(lines)
    records = json.loads(cowfs("diff", fs, "home@x", "--json", code=1).out)
    assert {"op": "-", "path": "/nothing"} in records


# --- Ctrl-C and progress ------------------------------------------------------------------------


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A file that takes a while to copy, and no time to make."""
    path = tmp_path / "big"
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for number in range(400):
            file.write(block[number:] + block[:number])
    return path


def test_ctrl_c_in_the_middle_of_a_copy_leaves_the_image_as_it_was(
    cowfs: Cowfs, fs: str, big: Path, start: Start
) -> None:
    cowfs("snapshot", fs, "home@x")
    before = os.path.getsize(fs)
    process = start("cp", big, f"{fs}:home")
    while os.path.getsize(fs) < before + 8 * MIB:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.communicate() == (b"", b"cowfs: interrupted\n")
    assert process.returncode == 130
    cowfs("diff", fs, "home@x")
    cowfs("check", fs)
    cowfs("cp", big, f"{fs}:home")
    assert cowfs("ls", f"{fs}:home").lines == ["big"]


def test_ctrl_c_ends_a_copy_out_of_an_image(
    cowfs: Cowfs, fs: str, big: Path, tmp_path: Path, start: Start
) -> None:
    cowfs("cp", big, f"{fs}:home")
    process = start("cp", f"{fs}:home/big", "out")
    while not (tmp_path / "out").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.communicate() == (b"", b"cowfs: interrupted\n")
    assert process.returncode == 130
    cowfs("cp", f"{fs}:home/big", "out")
    assert filecmp.cmp(big, tmp_path / "out", shallow=False)


@pytest.mark.parametrize("quiet", [False, True])
def test_a_progress_bar_is_shown_on_a_terminal_unless_quiet(
    fs: str, big: Path, start: Start, quiet: bool
) -> None:
    ours, theirs = pty.openpty()
    options = ["--quiet"] if quiet else []
    process = start("cp", *options, big, f"{fs}:home", stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that the other side is closed
        while data := os.read(ours, 1 << 16):
            shown += data
    os.close(ours)
    assert process.wait() == 0
    assert (re.search(rb"/400\.0 MiB", shown) is not None) != quiet, shown
    assert not quiet or shown == b""


def test_no_progress_is_shown_where_nobody_watches(fs: str, big: Path, start: Start) -> None:
    process = start("cp", big, f"{fs}:home")
    assert process.communicate() == (b"", b"") and process.returncode == 0
