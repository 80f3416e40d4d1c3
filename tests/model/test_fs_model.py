"""A dataset of files beside a directory on the host.

The model is the host: each rule does the same to both, by `os` and by `FS`. Both do it, or both
refuse it with the same errno. What can be read of the two is compared after each rule: names,
types, modes, links (which names are one file), sizes, contents, attributes; times that were set.
Snapshots are copies of the host's directory; rolling back and diff are checked against these.
At the end the store is checked, counts and all, and so are the file system's own invariants.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

import cowfs
from cowfs.device import MemoryDevice
from cowfs.fs import FS
from cowfs.fs.verify import faults

from ..trees import ATTRIBUTES, Tree, cowfs_tree, host_tree

NAMES = st.sampled_from([b"a", b"b", b"c", b"\xff\xfe", b"l" * 200])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)


@dataclass(frozen=True)
class Pick:
    """A path that is chosen once it is known which there are."""

    choice: str
    number: int
    name: bytes
    form: str

    def path(self, paths: list[bytes], directories: list[bytes]) -> bytes:
        """One of `paths`, or a name in one of `directories`, or what may lead nowhere."""
        path = self.name
        if self.choice == "old" and paths:
            path = paths[self.number % len(paths)]
        elif self.choice == "new":
            path = os.path.join(directories[self.number % len(directories)], path)
        elif self.choice == "below" and paths:
            path = os.path.join(paths[self.number % len(paths)], path)
        elif self.choice == "root":
            return b"."
        if self.form == "slash":
            return path + b"/"
        return b"./" + path.replace(b"/", b"//") + b"/." if self.form == "dots" else path


def picks(choices: str, forms: str = "plain plain plain plain slash dots") -> Any:
    """Picks of the given kinds, the first of them the simplest."""
    return st.builds(
        Pick,
        st.sampled_from(choices.split()),
        st.integers(0, 1000),
        NAMES,
        st.sampled_from(forms.split()),
    )


OLD = picks("old old old old old new below root")
NEW = picks("new new new old below root")
ANY = picks("old new old new below root")
FILE = picks("old new old new below", "plain")
CONTENT = st.one_of(
    st.binary(max_size=64),
    st.integers(1, 300_000).map(lambda n: bytes(range(251)) * (n // 251 + 1)),
    st.integers(1, 300_000).map(bytes),
)
OFFSETS = st.one_of(st.integers(0, 5000), st.integers(0, 600_000), st.just(131_072))
MODES = st.sampled_from([0o700, 0o755, 0o4711, 0o2770, 0o1777])
TIMES = st.integers(0, 2**33 * 10**9)


def outcome(operation: Callable[[], Any]) -> Any:
    """What an operation returns, or the number of its error."""
    try:
        return operation()
    except OSError as error:
        assert isinstance(error.errno, int), error
        return error.errno


@dataclass
class PlainFile:
    """What diff compares of a file."""

    kind: int
    state: tuple[Any, ...]
    names: dict[tuple[int, bytes], bytes] = field(default_factory=dict)
    """Paths by (inode number of the directory, name)."""


def plain_files(fs: FS) -> dict[tuple[int, int], PlainFile]:
    """All files by inode number and time of birth, found by walking through everything."""
    files: dict[tuple[int, int], PlainFile] = {}
    todo = [(0, b"", b"")]
    while todo:
        parent, name, path = todo.pop()
        info = fs.lstat(path or b"/")
        kind = stat.S_IFMT(info.st_mode)
        content: Any = None
        if kind == stat.S_IFDIR:
            entries = list(fs.scandir(path or b"/"))
            content = [(entry.name, entry.inode()) for entry in entries]
            todo += [(info.st_ino, entry.name, path + b"/" + entry.name) for entry in entries]
        elif kind == stat.S_IFREG:
            content = fs.read_bytes(path)
        names = fs.listxattr(path or b"/", follow_symlinks=False)
        attributes = [fs.getxattr(path or b"/", n, follow_symlinks=False) for n in names]
        state = (info.st_mode, info.st_mtime_ns, info.st_size, content, names, attributes)
        born = info.st_birthtime_ns if path else 0
        file = files.setdefault((info.st_ino, born), PlainFile(kind, state))
        if path:
            file.names[parent, name] = path
    return files


def plain_diff(old: FS, new: FS) -> list[cowfs.Change]:
    """What diff is to find, from everything there is."""
    before, after = plain_files(old), plain_files(new)
    changes = []
    removed: dict[bytes, int] = {}
    added: dict[bytes, int] = {}
    nothing = PlainFile(0, ())
    for identity in before.keys() | after.keys():
        first, last = before.get(identity, nothing), after.get(identity, nothing)
        gone = [first.names[name] for name in sorted(first.names.keys() - last.names.keys())]
        come = [last.names[name] for name in sorted(last.names.keys() - first.names.keys())]
        both = min(len(gone), len(come))
        changes += [cowfs.Change("R", a, b) for a, b in zip(gone, come, strict=False)]
        removed.update((path, first.kind) for path in gone[both:])
        added.update((path, last.kind) for path in come[both:])
        if first is not nothing and last is not nothing and first.state != last.state:
            paths = last.names.values() if identity != (1, 0) else [b"/"]
            changes += [cowfs.Change("M", path) for path in paths if path not in come[both:]]
    for path, kind in added.items():
        if removed.get(path) == kind:
            del removed[path]
            changes.append(cowfs.Change("M", path))
        else:
            changes.append(cowfs.Change("+", path))
    changes += [cowfs.Change("-", path) for path in removed]
    return sorted(changes, key=lambda change: (change.path, "-R+M".index(change.op)))


class FilesModel(RuleBasedStateMachine):
    """`self.both` does the same to the host and to cowfs."""

    snapshots: Bundle[tuple[str, Tree]] = Bundle("snapshots")

    def __init__(self) -> None:
        super().__init__()
        self.place = os.fsencode(tempfile.mkdtemp(prefix="cowfs-model-"))
        self.root = os.path.join(self.place, b"root")
        os.mkdir(self.root, 0o755)
        os.chmod(self.root, 0o755)
        self.tx: cowfs.Transaction | None = None
        self.taken = 0
        self.umask = os.umask(0)

    @initialize(copies=st.sampled_from([1, 2]))
    def start(self, copies: int) -> None:
        parameters = cowfs.Parameters(metadata_copies=copies)
        self.store = cowfs.open_device(MemoryDevice(), parameters=parameters)
        self.live: FS = self.store.create("files", kind="fs")
        for path in (b"a", b"a/b", b"c"):
            self.both(
                partial(os.mkdir, self.host(path), 0o755), partial(self.fs.mkdir, path, 0o755)
            )
        for path in (b"b", b"a/a", b"a/b/c"):
            makers: list[Callable[[], Any]]
            makers = [partial(open, self.host(path), "wb"), partial(self.fs.open, path, "wb")]
            for make in makers:
                with make() as file:
                    file.write(path * 1000)
            os.chmod(self.host(path), 0o644)

    def teardown(self) -> None:
        os.umask(self.umask)
        try:
            if self.tx is not None:
                self.tx.commit()
                self.tx = None
            self.compare()
            with self.live.reading() as nodes:
                assert list(faults(nodes.io, nodes.tree)) == []
            report = self.store.check()
            assert report.ok, report.faults
            self.store.close()
        finally:
            shutil.rmtree(self.place)

    @property
    def fs(self) -> FS:
        files: FS = self.live if self.tx is None else self.tx["files"]
        return files

    def host(self, path: bytes) -> bytes:
        return os.path.join(self.root, path)

    def find(self, pick: Pick) -> bytes:
        paths = sorted(host_tree(self.root))[1:]
        return pick.path(paths, [b"", *filter(lambda p: os.path.isdir(self.host(p)), paths)])

    def is_fifo(self, path: bytes) -> bool:
        return outcome(lambda: stat.S_ISFIFO(os.stat(self.host(path)).st_mode)) is True

    def both(self, host: Callable[[], Any], ours: Callable[[], Any]) -> None:
        expected, found = outcome(host), outcome(ours)
        assert found == expected, f"host: {expected!r}, cowfs: {found!r}"

    # --- transactions and snapshots -------------------------------------------------------------

    @precondition(lambda self: self.tx is None)
    @rule()
    def begin(self) -> None:
        self.tx = self.store.transaction()

    @precondition(lambda self: self.tx is not None)
    @rule()
    def commit(self) -> None:
        assert self.tx is not None
        self.tx.commit()
        self.tx = None

    @precondition(lambda self: self.tx is None)
    @rule(target=snapshots)
    def snapshot(self) -> tuple[str, Tree]:
        self.taken += 1
        name = f"files@{self.taken}"
        self.store.snapshot(name)
        copy = os.path.join(self.place, str(self.taken).encode())
        subprocess.run(["cp", "-a", self.root, copy], check=True)
        return name, host_tree(self.root)

    @precondition(lambda self: self.tx is None)
    @rule(snapshot=snapshots)
    def look_back(self, snapshot: tuple[str, Tree]) -> None:
        name, expected = snapshot
        with self.store.at(name) as view:
            assert cowfs_tree(view) == expected

    @precondition(lambda self: self.tx is None)
    @rule(snapshot=consumes(snapshots))
    def roll_back(self, snapshot: tuple[str, Tree]) -> None:
        name, _ = snapshot
        self.store.rollback(name)
        self.store.destroy(name)
        shutil.rmtree(self.root)
        os.rename(os.path.join(self.place, name.partition("@")[2].encode()), self.root)

    @precondition(lambda self: self.tx is None)
    @rule(snapshot=snapshots)
    def differences(self, snapshot: tuple[str, Tree]) -> None:
        name, _ = snapshot
        with self.store.at(name) as old, self.store.at("files") as new:
            for before, after in ((old, new), (new, old)):
                found = list(self.store.diff(before.name, after.name))
                assert found == plain_diff(before, after)

    # --- names ----------------------------------------------------------------------------------

    @rule(pick=NEW, mode=MODES)
    def mkdir(self, pick: Pick, mode: int) -> None:
        path = self.find(pick)
        # Linux leaves these bits to chmod.
        mode &= 0o1777
        self.both(lambda: os.mkdir(self.host(path), mode), lambda: self.fs.mkdir(path, mode))

    @rule(pick=OLD)
    def rmdir(self, pick: Pick) -> None:
        path = self.find(pick)
        if path == b".":
            return
        self.both(lambda: os.rmdir(self.host(path)), lambda: self.fs.rmdir(path))

    @rule(pick=OLD)
    def unlink(self, pick: Pick) -> None:
        path = self.find(pick)
        self.both(lambda: os.unlink(self.host(path)), lambda: self.fs.unlink(path))

    @rule(pick=OLD, pick_to=ANY)
    def rename(self, pick: Pick, pick_to: Pick) -> None:
        source, to = self.find(pick), self.find(pick_to)
        self.both(
            lambda: os.rename(self.host(source), self.host(to)),
            lambda: self.fs.rename(source, to),
        )

    @rule(pick=OLD, pick_to=ANY)
    def link(self, pick: Pick, pick_to: Pick) -> None:
        source, to = self.find(pick), self.find(pick_to)
        self.both(
            lambda: os.link(self.host(source), self.host(to), follow_symlinks=False),
            lambda: self.fs.link(source, to),
        )

    @rule(to=st.one_of(PATHS, st.sampled_from([b".", b"./a", b"a/."])), pick=NEW)
    def symlink(self, to: bytes, pick: Pick) -> None:
        path = self.find(pick)
        self.both(lambda: os.symlink(to, self.host(path)), lambda: self.fs.symlink(to, path))

    @rule(pick=NEW)
    def mkfifo(self, pick: Pick) -> None:
        path = self.find(pick)
        self.both(lambda: os.mkfifo(self.host(path), 0o600), lambda: self.fs.mkfifo(path, 0o600))

    @rule(pick=FILE)
    def remove_tree(self, pick: Pick) -> None:
        path = self.find(pick)

        def host() -> None:
            if os.path.islink(self.host(path)):
                os.rmdir(self.host(path))
            os.scandir(self.host(path)).close()
            shutil.rmtree(self.host(path))

        self.both(host, lambda: self.fs.remove_tree(path))

    # --- content --------------------------------------------------------------------------------

    @rule(pick=FILE, mode=st.sampled_from(["wb", "xb", "ab", "r+b", "w+b"]), data=CONTENT)
    def write(self, pick: Pick, mode: str, data: bytes) -> None:
        path = self.find(pick)

        def act(make: Callable[[], Any]) -> None:
            with make() as file:
                file.write(data)

        if not self.is_fifo(path):
            self.both(
                lambda: act(partial(open, self.host(path), mode, opener=opener)),
                lambda: act(partial(self.fs.open, path, mode)),
            )

    @rule(pick=FILE, offset=OFFSETS, data=CONTENT)
    def write_at(self, pick: Pick, offset: int, data: bytes) -> None:
        path = self.find(pick)

        def act(make: Callable[[], Any]) -> int:
            with make() as file:
                file.seek(offset)
                file.write(data)
                file.seek(0)
                return len(file.read())

        if not self.is_fifo(path):
            self.both(
                lambda: act(partial(open, self.host(path), "r+b")),
                lambda: act(partial(self.fs.open, path, "r+b")),
            )

    @rule(pick=FILE, size=OFFSETS)
    def truncate(self, pick: Pick, size: int) -> None:
        path = self.find(pick)
        if not self.is_fifo(path):
            self.both(
                lambda: os.truncate(self.host(path), size), lambda: self.fs.truncate(path, size)
            )

    # --- state ----------------------------------------------------------------------------------

    @rule(pick=OLD, mode=MODES)
    def chmod(self, pick: Pick, mode: int) -> None:
        path = self.find(pick)
        self.both(lambda: os.chmod(self.host(path), mode), lambda: self.fs.chmod(path, mode))

    @rule(pick=OLD, follow=st.booleans(), times=st.tuples(TIMES, TIMES))
    def utime(self, pick: Pick, follow: bool, times: tuple[int, int]) -> None:
        path = self.find(pick)

        # The host changes times of access when it follows a link.
        def host() -> int:
            os.utime(self.host(path), ns=times, follow_symlinks=follow)
            return os.stat(self.host(path), follow_symlinks=follow).st_mtime_ns

        def ours() -> int:
            self.fs.utime(path, ns=times, follow_symlinks=follow)
            return self.fs.stat(path, follow_symlinks=follow).st_mtime_ns

        self.both(host, ours)

    @precondition(lambda _: ATTRIBUTES)
    @rule(
        pick=FILE,
        name=st.sampled_from([b"user.a", b"user.b"]),
        value=st.binary(max_size=50),
        flags=st.sampled_from([0, os.XATTR_CREATE, os.XATTR_REPLACE]),
    )
    def setxattr(self, pick: Pick, name: bytes, value: bytes, flags: int) -> None:
        path = self.find(pick)
        if not self.is_fifo(path):
            self.both(
                lambda: os.setxattr(self.host(path), name, value, flags),
                lambda: self.fs.setxattr(path, name, value, flags),
            )

    @precondition(lambda _: ATTRIBUTES)
    @rule(pick=FILE, name=st.sampled_from([b"user.a", b"user.b"]))
    def removexattr(self, pick: Pick, name: bytes) -> None:
        path = self.find(pick)
        if not self.is_fifo(path):
            self.both(
                lambda: os.removexattr(self.host(path), name),
                lambda: self.fs.removexattr(path, name),
            )

    # --- looking --------------------------------------------------------------------------------

    @rule(pick=ANY)
    def look(self, pick: Pick) -> None:
        path = self.find(pick)
        host = self.host(path)
        self.both(lambda: sorted(os.listdir(host)), lambda: self.fs.listdir(path))
        self.both(lambda: os.readlink(host), lambda: self.fs.readlink(path))
        self.both(lambda: os.stat(host).st_mode, lambda: self.fs.stat(path).st_mode)
        assert os.path.exists(host) == self.fs.exists(path)
        assert os.path.lexists(host) == self.fs.lexists(path)
        assert os.path.isdir(host) == self.fs.isdir(path)
        assert os.path.isfile(host) == self.fs.isfile(path)

    @invariant()
    def compare(self) -> None:
        assert cowfs_tree(self.fs) == host_tree(self.root)


def opener(path: Any, flags: int) -> int:
    return os.open(path, flags, 0o644)


TestFiles = FilesModel.TestCase
