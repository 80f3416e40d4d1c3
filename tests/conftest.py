"""What all tests share: how hypothesis runs, and stores in memory."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import cowfs
from cowfs.device import Device, MemoryDevice

settings.register_profile(
    "default",
    deadline=None,
    print_blob=True,
    max_examples=60,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("long", settings.get_profile("default"), max_examples=2000)
settings.load_profile(os.environ.get("COWFS_HYPOTHESIS", "default"))

# Where the tests run in the background of a script, or under nohup, these are ignored, and all that
# they start would ignore them, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

MakeStore = Callable[..., cowfs.Store]


@pytest.fixture
def make_store() -> Iterator[MakeStore]:
    """`make_store(device=None, cache=…, **parameters)`: a new store in memory."""
    made: list[cowfs.Store] = []

    def make(device: Device | None = None, cache: int = 1 << 24, **parameters: Any) -> cowfs.Store:
        made.append(
            cowfs.open_device(
                device or MemoryDevice(), parameters=cowfs.Parameters(**parameters), cache=cache
            )
        )
        return made[-1]

    yield make
    for store in made:
        if store.failure is None:
            store.close()


@pytest.fixture
def store(make_store: MakeStore) -> cowfs.Store:
    """A new store in memory, with parameters as by default."""
    return make_store()
