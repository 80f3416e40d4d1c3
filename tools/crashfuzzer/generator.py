"""Draws random steps that fit what the store holds, with a liking for what meets: few names, few
keys, much that is shared and destroyed.
"""

from __future__ import annotations

import random

from .changes import (
    KINDS,
    VOLUME_SIZE,
    Change,
    Clone,
    CopyFile,
    Create,
    Delete,
    DeleteRange,
    Destroy,
    DiscardVolume,
    Fill,
    MakeDirectory,
    MoveFile,
    PatchFile,
    Put,
    Remove,
    Rename,
    Rollback,
    Snapshot,
    TruncateFile,
    WriteFile,
    WriteVolume,
)
from .model import PlainStore
from .steps import (
    Abandon,
    Commit,
    Cut,
    Hold,
    Kill,
    LetGo,
    Reclaim,
    Reopen,
    Rot,
    Scribble,
    Step,
    Sync,
)

_PATHS = (b"/d", b"/x", b"/y", b"/d/x", b"/d/y", b"/d/e")
_SIZES = (0, 10, 100, 100, 1000, 3000, 9000, 30_000)
_LARGE = 300_001
"""Bytes of a value of several records; odd seeds make it compress."""
_BALLAST = b"ballast"
"""Key of a value that is large for the image and often replaced: blocks are soon used again."""
_SNAPSHOTS = 3
"""Snapshots that a dataset has at most."""


def random_step(chance: random.Random, model: PlainStore, durable: float = 0.5) -> Step:
    """The next step of a workload, of which that part of the transactions is durable."""
    if not model.heads:
        return Commit(
            (
                Create("a"),
                Create("f"),
                Fill("a", 0, chance.choice((10, 80)), 800),
                Put("a", _BALLAST, chance.choice((0, 200_000, 400_000))),
            )
        )
    draw = chance.random()
    if draw < 0.04:
        return Sync()
    if draw < 0.07:
        return Reopen()
    if draw < 0.09:
        return Kill()
    if draw < 0.13:
        return Abandon(_changes(chance, model))
    if draw < 0.18:
        return Reclaim()
    if draw < 0.21:
        return Cut(_changes(chance, model), chance.random() < durable, chance.randrange(1000))
    if draw < 0.29:
        return Hold(chance.choice(sorted(model.everything())))
    if draw < 0.32:
        return LetGo()
    if draw < 0.4:
        return Scribble()
    if draw < 0.44:
        return Rot(chance.randrange(1000))
    return random_commit(chance, model, durable)


def random_commit(chance: random.Random, model: PlainStore, durable: float = 0.5) -> Commit:
    """A transaction."""
    return Commit(_changes(chance, model), chance.random() < durable)


def _changes(chance: random.Random, model: PlainStore) -> tuple[Change, ...]:
    return tuple(_change(chance, model) for _ in range(chance.choice((1, 1, 2, 3, 6))))


def _change(chance: random.Random, model: PlainStore) -> Change:
    """One change; some earlier one of the same transaction may have made it impossible."""
    maps = [name for name in sorted(model.heads) if KINDS[name] == "kv"]
    if maps and chance.random() < 0.15:
        size = chance.choice((50_000, 150_000, 250_000))
        return Put(chance.choice(maps), _BALLAST, size, chance.randrange(50))
    name = chance.choice(list(KINDS))
    if model.heads and chance.random() < 0.85:
        name = chance.choice(sorted(model.heads))
    if name not in model.heads:
        same_kind = [
            snapshot for snapshot in sorted(model.snapshots) if KINDS[snapshot[0]] == KINDS[name]
        ]
        if same_kind and chance.random() < 0.6:
            return Clone(chance.choice(same_kind), name)
        return Create(name)
    snapshots = model.of(name)
    draw = chance.random()
    if draw < 0.14 and len(snapshots) < _SNAPSHOTS:
        return Snapshot(f"{name}@{chance.randrange(10)}")
    if draw < 0.24 and snapshots:
        return Destroy(chance.choice(snapshots))
    if draw < 0.26:
        return Destroy(name)
    if draw < 0.33 and snapshots:
        keep = f"{chance.randrange(10)}" if chance.random() < 0.3 else None
        return Rollback(chance.choice(snapshots), keep)
    if draw < 0.35:
        return Rename(name, chance.choice([n for n, kind in KINDS.items() if kind == KINDS[name]]))
    return {"kv": _map_change, "fs": _file_change, "volume": _volume_change}[KINDS[name]](
        chance, name
    )


def _map_change(chance: random.Random, name: str) -> Change:
    draw = chance.random()
    seed = chance.randrange(50)
    if draw < 0.15:
        return DeleteRange(name, _key(chance), _key(chance))
    if draw < 0.25:
        return Delete(name, _key(chance))
    if draw < 0.5:
        size, count = chance.choice(((100, 60), (500, 40), (1500, 30), (1500, 80)))
        return Fill(name, chance.randrange(100), count, size, seed)
    if draw < 0.55:
        return Put(name, _key(chance), _LARGE, seed | 1)
    return Put(name, _key(chance), chance.choice(_SIZES), seed)


def _key(chance: random.Random) -> bytes:
    return b"%03d" % chance.randrange(120)


def _file_change(chance: random.Random, name: str) -> Change:
    draw = chance.random()
    seed = chance.randrange(50)
    path, other = chance.choice(_PATHS), chance.choice(_PATHS)
    if draw < 0.2:
        return MakeDirectory(name, chance.choice((b"/d", b"/d/e")))
    if draw < 0.5:
        return WriteFile(name, path, chance.choice((*_SIZES, 60_000)), seed)
    if draw < 0.65:
        return PatchFile(name, path, chance.choice((0, 500, 20_000)), chance.choice(_SIZES), seed)
    if draw < 0.72:
        return TruncateFile(name, path, chance.choice((0, 700, 50_000)))
    if draw < 0.82:
        return CopyFile(name, path, other)
    if draw < 0.9:
        return MoveFile(name, path, other)
    return Remove(name, path)


def _volume_change(chance: random.Random, name: str) -> Change:
    size = chance.choice((512, 4096, 20_000))
    offset = chance.randrange(VOLUME_SIZE - size)
    if chance.random() < 0.25:
        return DiscardVolume(name, offset, size)
    return WriteVolume(name, offset, size, chance.randrange(50))
