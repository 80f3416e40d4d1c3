"""Finding what a command is about: datasets that exist, of the right kind, and keys in them."""

from __future__ import annotations

from typing import Any

from cowfs import Store
from cowfs.control import RemoteStore
from cowfs.errors import KindError, NotFoundError, ReadOnlyError
from cowfs.fs import FS
from cowfs.kv import KV
from cowfs.volume import Volume


def need_datasets(store: Store | RemoteStore, *names: str) -> None:
    """NotFoundError with the nearest names, where one of the datasets is not there."""
    for name in names:
        dataset = name.partition("@")[0]
        if dataset not in store:
            raise NotFoundError(f"{store.path}: no dataset {dataset!r}; {nearest(store, dataset)}")


def nearest(store: Store | RemoteStore, name: str) -> str:
    """What the user may have meant."""
    import difflib

    close = difflib.get_close_matches(name, list(store), n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    return f"'cowfs list {store.path}' shows what there is"


def need_head(name: str) -> None:
    """ReadOnlyError where a snapshot is named."""
    if "@" in name:
        raise ReadOnlyError(f"{name} is a snapshot and cannot be changed; clone it instead")


def need_kv(dataset: Any, name: str) -> KV:
    """The dataset, or KindError where it is none of keys and values."""
    if not isinstance(dataset, KV):
        raise KindError(f"{name} is no dataset of keys and values (kind kv); see 'cowfs list'")
    return dataset


def need_fs(dataset: Any, name: str) -> FS:
    """The dataset, or KindError where it is none of files."""
    if not isinstance(dataset, FS):
        raise KindError(f"{name} is no dataset of files (kind fs); see 'cowfs list'")
    return dataset


def need_volume(dataset: Any, name: str) -> Volume:
    """The dataset, or KindError where it is no volume."""
    if not isinstance(dataset, Volume):
        raise KindError(f"{name} is no volume (kind volume); see 'cowfs list'")
    return dataset


def need_key(kv: KV, key: bytes, name: str, given: str) -> None:
    """NotFoundError, in the words of the command line, where the key is not there."""
    if key not in kv:
        raise NotFoundError(f"{name} has no key {given!r}")
