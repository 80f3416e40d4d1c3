"""What the unit tests of files share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import cowfs
from cowfs.fs import FS
from cowfs.fs.verify import faults


def assert_sound(store: cowfs.Store, name: str = "files") -> None:
    """The store's counts are right, and the file system in a dataset is one."""
    report = store.check()
    assert report.ok, report.faults
    with store.at(name) as view, view.reading() as nodes:
        assert list(faults(nodes.io, nodes.tree)) == []


@pytest.fixture(params=["live", "transaction"])
def fs(request: pytest.FixtureRequest, store: cowfs.Store) -> Iterator[FS]:
    """An empty file system, on a store directly and in a transaction; sound at the end."""
    live = store.create("files", kind="fs")
    if request.param == "live":
        yield live
    else:
        with store.transaction() as tx:
            yield tx["files"]
    assert_sound(store)


@pytest.fixture
def live(store: cowfs.Store) -> Iterator[FS]:
    """An empty file system on a store directly; sound at the end."""
    yield store.create("files", kind="fs")
    assert_sound(store)
