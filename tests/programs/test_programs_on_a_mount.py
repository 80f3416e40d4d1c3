"""Real programs on a mount: what they do to files, they do to these."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path

import pytest

from .conftest import ROOT, Image, need, run

IDENTITY = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "gc.auto=0")


def make_tree(directory: Path) -> None:
    """Files of every kind that programs copy."""
    (directory / "deep" / "er").mkdir(parents=True)
    (directory / "deep" / "text").write_text("text\n" * 1_000)
    (directory / "deep" / "er" / "noise").write_bytes(os.urandom(700_000))
    os.link(directory / "deep" / "text", directory / "hard link")
    (directory / "symlink").symlink_to("deep/er/noise")
    os.mkfifo(directory / "fifo")
    os.setxattr(directory / "deep" / "text", "user.attribute", b"value")
    with open(directory / "sparse", "wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(b"data")
    (directory / "private").write_text("private")
    (directory / "private").chmod(0o600)
    (directory / "empty").mkdir(mode=0o711)
    os.utime(directory / "private", ns=(1_111_111_111, 2_222_222_222))
    os.utime(directory / "deep", ns=(3_333_333_333, 4_444_444_444))


def test_git_clones_collects_and_finds_nothing_wrong(mnt: Path, tmp_path: Path) -> None:
    git = need("git", "git")
    source = tmp_path / "source"
    run(git, "init", "-q", source)
    for number in range(30):
        (source / f"file{number % 7}").write_text(f"{number}\n" * 300)
        run(git, *IDENTITY, "add", "-A", cwd=source)
        run(git, *IDENTITY, "commit", "-qm", f"change {number}", cwd=source)
    clone = mnt / "clone"
    run(git, "clone", "-q", "--no-local", source, clone)
    run(git, *IDENTITY, "gc", "-q", "--aggressive", "--prune=now", cwd=clone)
    assert run(git, "fsck", "--full", "--strict", cwd=clone) == ""
    assert run(git, "status", "--porcelain", cwd=clone) == ""
    assert run(git, "rev-list", "--count", "HEAD", cwd=clone) == "30\n"


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_sqlite_keeps_its_integrity_and_is_whole_in_a_snapshot(
    image: Image, mnt: Path, mode: str
) -> None:
    path = mnt / "test.db"
    with sqlite3.connect(path) as database:
        assert database.execute(f"PRAGMA journal_mode={mode}").fetchone() == (mode,)
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)")
        database.commit()
        for number in range(60):
            rows = [(os.urandom(300),) for _ in range(20)]
            database.executemany("INSERT INTO t (data) VALUES (?)", rows)
            database.commit()
            if number == 30:
                image.cowfs("snapshot", "files@middle")
    database.close()
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert database.execute("SELECT count(*) FROM t").fetchone() == (1_200,)
    database.close()
    image.cowfs("clone", "files@middle", "clone")
    other = image.directory / "clone"
    other.mkdir()
    image.cowfs("mount", "-d", "clone", other)
    database = sqlite3.connect(other / "test.db")
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert database.execute("SELECT count(*) FROM t").fetchone() == (31 * 20,)
    database.close()
    run("fusermount3", "-u", other)


def test_the_sqlite_program_works(mnt: Path) -> None:
    sqlite = need("sqlite3", "sqlite3")
    script = "CREATE TABLE t (a); INSERT INTO t VALUES (1), (2); PRAGMA integrity_check;"
    assert run(sqlite, mnt / "test.db", script) == "ok\n"
    assert run(sqlite, mnt / "test.db", "SELECT sum(a) FROM t") == "3\n"


def test_a_python_environment_is_made_and_used(mnt: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", mnt / "environment")
    python = mnt / "environment" / "bin" / "python"
    assert run(python, "-c", "import sys; print(sys.prefix)") == f"{mnt / 'environment'}\n"
    (library,) = (mnt / "environment" / "lib").iterdir()
    package = library / "site-packages" / "package"
    package.mkdir()
    (package / "__init__.py").write_text("answer = 42\n")
    command = ("env", "-u", "PYTHONDONTWRITEBYTECODE", python, "-c")
    assert run(*command, "import package; print(package.answer)") == "42\n"
    assert (package / "__pycache__").exists()


def test_tar_takes_everything_and_gives_it_back(mnt: Path, tmp_path: Path) -> None:
    tar = need("tar", "tar")
    source, back = tmp_path / "source", tmp_path / "back"
    source.mkdir()
    make_tree(source)
    options = ("--xattrs", "--xattrs-include=*", "--sparse")
    (mnt / "tree").mkdir()
    run(tar, *options, "-cf", mnt / "one.tar", "-C", source, ".")
    run(tar, *options, "-xpf", mnt / "one.tar", "-C", mnt / "tree")
    assert run(tar, *options, "-df", mnt / "one.tar", "-C", mnt / "tree") == ""
    run(tar, *options, "-cf", mnt / "two.tar", "-C", mnt / "tree", ".")
    back.mkdir()
    run(tar, *options, "-xpf", mnt / "two.tar", "-C", back)
    assert run(tar, *options, "-df", mnt / "one.tar", "-C", back) == ""


def test_rsync_finds_no_difference_both_ways(image: Image, mnt: Path, tmp_path: Path) -> None:
    rsync = need("rsync", "rsync")
    source, back = tmp_path / "source", tmp_path / "back"
    source.mkdir()
    make_tree(source)
    run(rsync, "-aHAXS", "--checksum", f"{source}/", f"{mnt}/tree/")
    compare = ("-aHAX", "--checksum", "--dry-run", "--itemize-changes", "--delete")
    assert run(rsync, *compare, f"{source}/", f"{mnt}/tree/") == ""
    image.unmount(mnt)
    image.mount()
    assert run(rsync, *compare, f"{source}/", f"{mnt}/tree/") == ""
    run(rsync, "-aHAXS", "--checksum", f"{mnt}/tree/", f"{back}/")
    assert run(rsync, *compare, f"{source}/", f"{back}/") == ""


def test_a_c_program_is_built_and_runs(mnt: Path) -> None:
    make, gcc = need("make", "make"), need("gcc", "gcc")
    for number in range(8):
        (mnt / f"part{number}.c").write_text(f"int part{number}(void) {{ return {number}; }}\n")
    names = [f"part{number}" for number in range(8)]
    declarations = "".join(f"int {name}(void);\n" for name in names)
    calls = " + ".join(f"{name}()" for name in names)
    main = f'#include <stdio.h>\n{declarations}int main(void) {{ printf("%d\\n", {calls}); }}\n'
    (mnt / "main.c").write_text(main)
    objects = " ".join(f"{name}.o" for name in [*names, "main"])
    (mnt / "Makefile").write_text(f"program: {objects}\n\t{gcc} -o $@ $^\n")
    run(make, "-j2", f"CC={gcc}", cwd=mnt)
    assert run(mnt / "program") == "28\n"
    assert "up to date" in run(make, f"CC={gcc}", cwd=mnt)


def test_the_sources_of_cowfs_are_the_same_there_and_back(mnt: Path, tmp_path: Path) -> None:
    run("cp", "-a", ROOT / "cowfs", mnt / "cowfs")
    assert run("diff", "-r", ROOT / "cowfs", mnt / "cowfs") == ""
    run("cp", "-a", mnt / "cowfs", tmp_path / "back")
    assert run("diff", "-r", ROOT / "cowfs", tmp_path / "back") == ""
