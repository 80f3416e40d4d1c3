"""`make demo` works, and it would fail on any difference."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from demonstration.files import compare_trees
from demonstration.steps import Difference, Step

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_demo_runs_to_its_end(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "demo"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Everything came out as it went in." in done.stdout
    assert os.listdir(tmp_path) == []


def touch(path: Path) -> None:
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))


def write(path: Path) -> None:
    status = path.stat()
    path.write_bytes(b"Content")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def unshare(path: Path) -> None:
    shutil.copy2(path, path.with_name("new"))
    path.with_name("new").rename(path)


def lead_elsewhere(path: Path) -> None:
    status = path.lstat()
    path.unlink()
    path.symlink_to("elsewhere")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


@pytest.mark.parametrize(
    ("name", "spoil", "complaint"),
    [
        ("top/file", touch, "st_mtime_ns"),
        ("top/file", lambda path: path.chmod(0o600), "st_mode"),
        ("top/file", write, "its content"),
        ("top/file", Path.unlink, "other names|st_mtime_ns"),
        ("top/second", unshare, "hard link|st_mtime_ns"),
        ("top/link", lead_elsewhere, "leads elsewhere|st_mtime_ns"),
        ("top/extra", Path.touch, "other names|st_mtime_ns"),
        ("extra", Path.touch, "something else"),
    ],
)
def test_the_demo_finds_a_difference(
    tmp_path: Path, name: str, spoil: Callable[[Path], None], complaint: str
) -> None:
    top = tmp_path / "original" / "top"
    top.mkdir(parents=True)
    (top / "file").write_bytes(b"content")
    os.link(top / "file", top / "second")
    (top / "link").symlink_to("file")
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", tmp_path / "original", copy], check=True)
    compare_trees(str(tmp_path / "original"), str(copy), ["top"], Step("compare"))
    spoil(copy / name)
    with pytest.raises(Difference, match=complaint):
        compare_trees(str(tmp_path / "original"), str(copy), ["top"], Step("compare"))
