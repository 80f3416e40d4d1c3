"""What is right: an image is used in every way there is, and must behave whatever its bytes are.

Allowed are results, `CorruptionError` and `FormatError` (one line, with place and reason), and, for
who writes to an image whose limits are forged, a full image. Everything else is `Wrong`: another
exception; an error where `check` found nothing to complain of; two ways to the same data that do
not agree. Crashes, hangs and too much memory end the process, which `limits.py` watches.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import cowfs
from cowfs.device import FileDevice
from cowfs.salvage import Salvage

_MANY = 100_000
"""Items after which a range of a tiny image would be endless."""
_PIECE = 1 << 20
REFUSED = (cowfs.CorruptionError, cowfs.FormatError)


class Wrong(Exception):
    """An image was taken for what it is not, or handled in a way that is not allowed."""


@dataclass(slots=True)
class Verdict:
    """How an image behaved, which was right."""

    refused: bool = False
    """It did not open."""
    faults: int = 0
    """Lines of check's report."""
    errors: list[str] = field(default_factory=list)
    """What operations raised, all of it allowed."""

    @property
    def kind(self) -> str:
        """In a word."""
        if self.refused:
            return "refused"
        return "found" if self.faults else "sound"


def judge(path: Path, *, cut: bool = False) -> Verdict:
    """Use the image at `path`, and change it. Raises Wrong.

    `cut` says that the log may have been cut off: then the store is an older one, sound in itself,
    and records of its lost future may turn up when it is opened again.
    """
    verdict = Verdict()
    try:
        with _expected():
            store = cowfs.open(path, "r", cache=1 << 20)
    except REFUSED as error:
        _check_error(error)
        verdict.refused = True
    else:
        with store:
            _read_everything(store, verdict)
    _salvage(path, verdict)
    writing = Verdict(faults=verdict.faults)
    _write_everything(path, writing, cut)
    for errors in (verdict.errors, writing.errors):
        if errors and not verdict.refused and not verdict.faults:
            raise Wrong(f"check found nothing, but: {errors[0]}")
    verdict.errors += writing.errors
    return verdict


@contextmanager
def _expected() -> Iterator[None]:
    """Anything but an error of cowfs that says something is wrong."""
    try:
        yield
    except (*REFUSED, cowfs.OutOfSpaceError, cowfs.TooLargeError, cowfs.ReadOnlyError, Wrong):
        raise
    except Exception as error:
        raise Wrong(f"{type(error).__name__}: {error}") from error


def _check_error(error: Exception) -> None:
    if "\n" in str(error) or not str(error):
        raise Wrong(f"an error without its one line: {error!r}")
    if isinstance(error, cowfs.CorruptionError) and not error.reason:
        raise Wrong(f"a CorruptionError without a reason: {error}")


class _Attempts:
    """Runs operations and gathers what they are allowed to raise."""

    def __init__(self, verdict: Verdict) -> None:
        self._verdict = verdict

    def __call__(
        self, operation: Callable[..., Any], *arguments: Any, unchecked: bool = False
    ) -> Any:
        """What the operation gives; None where it raised. `unchecked` says that `check` cannot
        know of errors that name no block."""
        try:
            with _expected():
                return operation(*arguments)
        except cowfs.TooLargeError:
            return None
        except (*REFUSED, cowfs.OutOfSpaceError) as error:
            _check_error(error)
            if not (unchecked and getattr(error, "block", 0) is None):
                self._verdict.errors.append(f"{operation.__name__}: {error}")
            return None


def _salvage(path: Path, verdict: Verdict) -> None:
    """Copy out what verifies: all of what is sound, but for what no host can have."""
    out = path.with_name("salvaged")
    device = FileDevice(str(path), writable=False)
    try:
        with _expected():
            for number, loss in enumerate(Salvage(device, out)):
                if not loss.reason or "\n" in loss.reason:
                    raise Wrong(f"a loss without its one line: {loss}")
                if number == _MANY:
                    raise Wrong("losses without end")
                if loss.block is not None and not verdict.refused and not verdict.faults:
                    raise Wrong(f"check found nothing, and salvage: {loss}")
    except REFUSED as error:
        _check_error(error)
        if not verdict.refused and not verdict.faults:
            raise Wrong(f"what is sound cannot be salvaged: {error}") from error
    finally:
        device.close()
        shutil.rmtree(out, ignore_errors=True)


# --- reading ------------------------------------------------------------------------------------


def _read_everything(store: cowfs.Store, verdict: Verdict) -> None:
    attempt = _Attempts(verdict)
    with _expected():
        try:
            report = store.check()
            store.scrub()
        except cowfs.CorruptionError as error:
            raise Wrong(f"check or scrub raised {error}") from error
    verdict.faults = len(report.faults)
    if any(not fault.reason or "\n" in str(fault) for fault in report.faults):
        raise Wrong("a fault without its one line")
    entries = attempt(store.list) or []
    attempt(store.space)
    for entry in entries:
        # Whether files fit each other, check looks at in the newest version only.
        unchecked = entry.kind == "fs" and entry.is_snapshot
        attempt(_read, store, entry, unchecked=unchecked)
        if entry.is_snapshot:
            attempt(_diff, store, entry.name, entry.dataset, unchecked=unchecked)


def _diff(store: cowfs.Store, old: str, new: str) -> None:
    if len(list(islice(store.diff(old, new), _MANY))) == _MANY:
        raise Wrong("a diff without end")


def _read(store: cowfs.Store, entry: cowfs.Entry) -> None:
    with store.at(entry.name) as view:
        if entry.kind == "kv":
            _read_keys(view)
        elif entry.kind == "fs":
            _read_files(view)
        else:
            _read_volume(view)


def _read_keys(view: Any) -> None:
    keys = list(islice(view.keys(), _MANY))
    if len(keys) == _MANY:
        raise Wrong("a range without end")
    if any(one >= other for one, other in pairwise(keys)):
        raise Wrong("keys out of order")
    if list(islice(view.keys(reverse=True), _MANY)) != keys[::-1]:
        raise Wrong("keys differ from those of the other direction")
    if len(view) != len(keys):
        raise Wrong(f"{len(keys)} keys, and a length of {len(view)}")
    for key in keys:
        with view.open(key) as file:
            _read_file(file)
        with suppress(cowfs.TooLargeError):
            if view.get(key) is None or key not in view:
                raise Wrong(f"a range gives {key!r}, a look for it nothing")


def _read_file(file: Any) -> None:
    """Some of the start and some of the end: a hole can be of any size."""
    file.read(_PIECE)
    size = file.seek(0, 2)
    file.seek(max(0, size - _PIECE))
    file.read(_PIECE)


def _read_files(view: Any) -> None:
    def fail(error: OSError) -> None:
        raise error

    for seen, (directory, directories, others) in enumerate(view.walk(b"/", onerror=fail)):
        if seen == _MANY:
            raise Wrong("a tree of files without end")
        view.listdir(directory)
        for name in (*directories, *others):
            path = directory.rstrip(b"/") + b"/" + name
            view.lstat(path)
            if view.islink(path):
                view.readlink(path)
            elif view.isfile(path):
                with view.open(path, "rb") as file:
                    _read_file(file)
                with suppress(cowfs.TooLargeError):
                    view.read_bytes(path)
            for attribute in view.listxattr(path, follow_symlinks=False):
                view.getxattr(path, attribute, follow_symlinks=False)


def _read_volume(view: Any) -> None:
    ranges = view.data_ranges()
    for start, stop in ((0, view.size), *ranges[:100]):
        view.pread(min(_PIECE, stop - start), start)


# --- writing ------------------------------------------------------------------------------------


def _write_everything(path: Path, verdict: Verdict, cut: bool) -> None:
    attempt = _Attempts(verdict)
    try:
        with _expected():
            store = cowfs.open(path, "w", cache=1 << 20, punch=False)
    except cowfs.ReadOnlyError:  # it claims features of a later version
        return
    except REFUSED as error:
        _check_error(error)
        verdict.errors.append(f"open: {error}")
        return
    try:
        heads = [entry for entry in attempt(store.list) or [] if not entry.is_snapshot]
        for entry in heads:
            attempt(_change, store, entry)
            attempt(_branch, store, entry.name)
        for entry in heads:
            attempt(_destroy, store, entry.name)
        attempt(store.create, "brand-new")
        attempt(store.reclaim)
    finally:
        attempt(store.close)
    try:
        with _expected(), cowfs.open(path, "r") as store:
            report = store.check()
    except REFUSED as error:
        if not cut:
            verdict.errors.append(f"open again: {error}")
        return
    if report.faults and not verdict.faults and not verdict.errors:
        raise Wrong(f"sound before writing, and now: {report.faults[0]}")


def _change(store: cowfs.Store, entry: cowfs.Entry) -> None:
    live = store[entry.name]
    {"kv": _change_keys, "fs": _change_files, "volume": _change_volume}[entry.kind](live)


def _branch(store: cowfs.Store, name: str) -> None:
    store.snapshot(f"{name}@judge")
    store.clone(f"{name}@judge", "judge-clone")
    store.destroy("judge-clone")
    store.rollback(f"{name}@judge")


def _destroy(store: cowfs.Store, name: str) -> None:
    store.destroy(name, recursive=True)


def _change_keys(live: Any) -> None:
    keys = list(islice(live.keys(), 200))
    for number, key in enumerate(keys):
        if number % 3 == 0:
            live[key] = b"changed" * (number + 1)
        elif number % 3 == 1:
            del live[key]
    live[b"large"] = bytes(range(256)) * 600
    for key in keys[:1] + keys[-1:]:
        with live.open(key, "wb") as file:
            file.write(b"stream" * 50_000)
    live.delete_range(*(keys[len(keys) // 3 : len(keys) // 3 + 1]), None)
    live.clear()


def _change_files(live: Any) -> None:
    live.write_bytes("/judge", b"j" * 10_000)
    for directory, directories, others in list(islice(live.walk(b"/"), 50)):
        for name in others[:3]:
            path = directory.rstrip(b"/") + b"/" + name
            if live.isfile(path):
                with live.open(path, "ab") as file:
                    file.write(b"more")
                live.truncate(path, 3)
            live.rename(path, path + b"+")
            live.unlink(path + b"+")
        for name in directories[:1]:
            live.copy(
                directory.rstrip(b"/") + b"/" + name,
                directory.rstrip(b"/") + b"/copy of " + name,
                recursive=True,
            )
    for name in live.listdir(b"/"):
        if live.isdir(b"/" + name):
            live.remove_tree(b"/" + name)


def _change_volume(live: Any) -> None:
    size = live.size
    live.pwrite(b"j" * min(size, 5000), 0)
    live.pwrite(b"j" * min(size, 5000), size - min(size, 5000))
    live.discard(0, size)
