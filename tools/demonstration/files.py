"""The first act: a real tree of files goes in, is changed, and comes out as it was."""

from __future__ import annotations

import errno
import os
import stat
import sysconfig
import zipfile

import cowfs
from cowfs.fs import FS
from cowfs.sizes import show_size

from .steps import Step, Steps

NOT_STANDARD = {"site-packages", "dist-packages"}
"""What others put into the library's directory."""
CHUNK = 1 << 20

Expected = set[tuple[str, bytes, bytes | None]]
"""Changes as a diff gives them: op, path, new path."""


def demonstrate(store: cowfs.Store, steps: Steps, out: str) -> None:
    """All steps on files. `out` is a directory on the host that is not there yet."""
    library = sysconfig.get_path("stdlib")
    names = sorted(set(os.listdir(library)) - NOT_STANDARD)
    steps.heading(f"Files: the standard library in {library}")

    with steps("copy it in") as step, store.transaction() as tx:
        fs = tx.create("stdlib", kind="fs")
        for name in names:
            fs.copy_in(os.path.join(library, name), name)
        step.result = count(fs)
    with steps("snapshot stdlib@original"):
        store.snapshot("stdlib@original")

    with steps("change it, in one transaction") as step, store.transaction() as tx:
        changes = Changes(tx["stdlib"])
        change(changes, step)
    with steps("diff by path, stdlib@original and now") as step:
        step.result = compare_diff(store, changes.expected, step, "stdlib@original", "stdlib")

    with steps("clone stdlib@original as work"):
        store.clone("stdlib@original", "work")
    with steps("remove a half of the clone") as step:
        remove_half(store, step)
    with steps("nobody else noticed") as step:
        compare_diff(store, changes.expected, step, "stdlib@original", "stdlib")

    with steps("roll back to stdlib@original, keep what there was as stdlib@changed") as step:
        store.rollback("stdlib@original", keep="changed")
    with steps("diff once more: nothing to the original, the same to stdlib@changed") as step:
        compare_diff(store, set(), step, "stdlib@original", "stdlib")
        compare_diff(store, changes.expected, step, "stdlib@original", "stdlib@changed")

    with steps("copy it out") as step, store.at("stdlib") as view:
        view.copy_out("/", out)
    with steps("compare with the original: every byte, mode and time") as step:
        step.result = compare_trees(library, out, names, step)
    with steps("destroy the clone, then stdlib@changed"):
        store.destroy("work")
        store.destroy("stdlib@changed")


# --- the changes --------------------------------------------------------------------------------


class Changes:
    """Changes files, and notes what a diff has to say about it."""

    def __init__(self, fs: FS) -> None:
        self.fs = fs
        self.expected: Expected = set()

    def edit(self, path: bytes) -> None:
        """Put a line in front of a file."""
        self.fs.write_bytes(path, b"# edited\n" + self.fs.read_bytes(path))
        self.expected.add(("M", path, None))

    def patch(self, path: bytes) -> None:
        """Write over a few bytes in the middle of a file."""
        with self.fs.open(path, "r+b") as file:
            file.seek(self.fs.stat(path).st_size // 2)
            file.write(b"patched")
        self.expected.add(("M", path, None))

    def chmod(self, path: bytes) -> None:
        """Make an executable file a plain one, and a plain one executable."""
        self.fs.chmod(path, stat.S_IMODE(self.fs.stat(path).st_mode) ^ 0o111)
        self.expected.add(("M", path, None))

    def remove(self, path: bytes) -> None:
        """Remove a file."""
        self.fs.unlink(path)
        self._gone(path)

    def remove_tree(self, path: bytes) -> None:
        """Remove a directory with everything in it."""
        for top, directories, files in self.fs.walk(path):
            for name in directories + files:
                self.expected.add(("-", os.path.join(top, name), None))
        self.fs.remove_tree(path)
        self._gone(path)

    def rename(self, old: bytes, new: bytes) -> None:
        """Rename a file or directory."""
        self.fs.rename(old, new)
        self.expected |= {
            ("R", old, new),
            ("M", os.path.dirname(old), None),
            ("M", os.path.dirname(new), None),
        }

    def added(self, path: bytes) -> None:
        """Note that there is something new."""
        self.expected |= {("+", path, None), ("M", os.path.dirname(path), None)}

    def _gone(self, path: bytes) -> None:
        self.expected |= {("-", path, None), ("M", os.path.dirname(path), None)}


def change(changes: Changes, step: Step) -> None:
    """Edit, add, remove, rename and chmod what is there."""
    fs = changes.fs
    packages = [
        b"/" + name for name in fs.listdir(b"/") if fs.exists(b"/" + name + b"/__init__.py")
    ]
    removed, renamed = packages[-1], packages[0]
    # Neither in the two packages, nor under a second name.
    sources = [
        path
        for path in regular_files(fs)
        if path.endswith(b".py")
        and not path.startswith((removed + b"/", renamed + b"/"))
        and fs.stat(path).st_nlink == 1
    ]
    picks = [sources[first::60] for first in range(0, 60, 15)]
    for path in picks[0]:
        changes.edit(path)
    for path in picks[1]:
        changes.remove(path)
    for path in picks[2]:
        changes.rename(path, path[:-3] + b".renamed.py")
    for path in picks[3]:
        changes.chmod(path)
    changes.remove_tree(removed)
    changes.rename(renamed, renamed + b"_renamed")
    changes.patch(max(set(sources).difference(*picks), key=lambda path: fs.stat(path).st_size))
    add(changes, picks[0])
    step.result = ", ".join(
        f"{len(pick)} {word}"
        for word, pick in zip(("edited", "removed", "renamed", "chmod"), picks, strict=True)
    )


def add(changes: Changes, sources: list[bytes]) -> None:
    """A new directory with files of all sorts."""
    fs = changes.fs
    fs.mkdir(b"/new")
    with fs.open(b"/new/note.txt", "w") as note:
        note.write("written through a text file object\n")
    with fs.open(b"/new/sources.zip", "wb") as file, zipfile.ZipFile(file, "w") as archive:
        for path in sources:
            archive.writestr(os.fsdecode(path[1:]), fs.read_bytes(path))
    fs.symlink(b"note.txt", b"/new/link")
    fs.link(sources[0], b"/new/second-name.py")
    fs.copy(sources[0], b"/new/shared-copy.py")
    with fs.open(b"/new/sparse", "wb") as file:
        file.seek(1 << 30)
        file.write(b"a gibibyte away")
    for name in fs.listdir(b"/new"):
        changes.expected.add(("+", b"/new/" + name, None))
    changes.added(b"/new")


def remove_half(store: cowfs.Store, step: Step) -> None:
    """Every other file of the clone."""
    with store.transaction() as tx:
        fs = tx["work"]
        doomed = regular_files(fs)[::2]
        for path in doomed:
            fs.unlink(path)
    step.result = f"{len(doomed):,} files"


def regular_files(fs: FS) -> list[bytes]:
    """The paths of all regular files, in the order of a walk."""
    found = []
    todo = [b"/"]
    while todo:
        directory = todo.pop()
        with fs.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    found.append(entry.path)
    return found


# --- the comparisons ----------------------------------------------------------------------------


def count(fs: FS) -> str:
    """How many files there are, and how large they are."""
    paths = regular_files(fs)
    total = sum(fs.stat(path).st_size for path in paths)
    return f"{len(paths):,} files, {show_size(total)}"


def compare_diff(store: cowfs.Store, expected: Expected, step: Step, old: str, new: str) -> str:
    """What the diff says must be what was done; how much of each kind that is."""
    found = {(item.op, item.path, item.new_path) for item in store.diff(old, new)}
    step.need(
        found == expected,
        f"not expected: {sorted(found - expected, key=str)[:5]}, "
        f"missing: {sorted(expected - found, key=str)[:5]}",
    )
    ops = [op for op, _, _ in found]
    return "   ".join(f"{op} {ops.count(op)}" for op in "+-MR" if op in ops)


def compare_trees(original: str, copy: str, names: list[str], step: Step) -> str:
    """Both trees must be the same in everything but times of access; what was compared."""
    step.need(sorted(os.listdir(copy)) == names, "there is something else in the root")
    todo = list(names)
    compared = size = 0
    inodes: dict[tuple[int, int], int] = {}
    while todo:
        name = todo.pop()
        a, b = os.path.join(original, name), os.path.join(copy, name)
        left, right = os.lstat(a), os.lstat(b)
        for what in ("st_mode", "st_mtime_ns", "st_uid", "st_gid"):
            if what in ("st_uid", "st_gid") and os.geteuid() != 0:
                continue  # only root may give files away
            before, after = getattr(left, what), getattr(right, what)
            step.need(before == after, f"{name}: {what} was {before}, is {after}")
        step.need(attributes(a) == attributes(b), f"{name}: extended attributes differ")
        if stat.S_ISDIR(left.st_mode):
            inside = sorted(os.listdir(a))
            step.need(inside == sorted(os.listdir(b)), f"{name}: other names are in it")
            todo += [os.path.join(name, entry) for entry in inside]
        elif stat.S_ISLNK(left.st_mode):
            step.need(os.readlink(a) == os.readlink(b), f"{name}: leads elsewhere")
        elif stat.S_ISREG(left.st_mode):
            same_file = inodes.setdefault((left.st_dev, left.st_ino), right.st_ino)
            step.need(same_file == right.st_ino, f"{name}: a hard link is lost")
            step.need(same_content(a, b), f"{name}: its content differs")
            size += left.st_size
        compared += 1
    return f"{compared:,} the same, {show_size(size)}"


def same_content(a: str, b: str) -> bool:
    """Whether two files have the same bytes."""
    with open(a, "rb") as left, open(b, "rb") as right:
        while True:
            data = left.read(CHUNK)
            if data != right.read(CHUNK):
                return False
            if not data:
                return True


def attributes(path: str) -> dict[str, bytes]:
    """The extended attributes of a file that a user may set."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in names
        if name.startswith("user.")
    }
