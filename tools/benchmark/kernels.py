"""Fixed pieces of work whose instructions `guard` counts: small, the same in every run.

Run as a program under valgrind, with a directory for scratch files. What surrounds a kernel (making
what it works on) is not counted, only what is called by way of `Counted`. Stores are in memory, so
that no disk has a say.
"""

import gc
import random
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import cowfs
from cowfs.device import MemoryDevice

ITEMS = 5_000
GETS = 5_000
RANGES = 100
RANGE = 100
COMMITS = 100
BATCHES = 20
BATCH = 100
SNAPSHOTS = 50
CHANGED = 10
FILES = 300
OPENED = 20

Kernel = Callable[[], object]


class Counted:
    """Calls a kernel from `PyNumber_MatrixMultiply`: a function of the interpreter that valgrind
    can tell apart, and that nothing else here makes use of."""

    def __matmul__(self, kernel: Kernel) -> object:
        return kernel()


class Setting:
    """What the kernels work on: a store with a filled map and a tree of files on the host."""

    def __init__(self, directory: Path) -> None:
        source = random.Random(ITEMS)
        self.device = MemoryDevice()
        self.store = cowfs.open_device(self.device, parameters=cowfs.Parameters())
        self.pairs = [(source.randbytes(16), source.randbytes(100)) for _ in range(ITEMS)]
        self.fresh = iter([(source.randbytes(16), source.randbytes(100)) for _ in range(ITEMS)])
        self.wanted = [key for key, _ in source.choices(self.pairs, k=GETS)]
        with self.store.transaction() as tx:
            tx.create("full").update(self.pairs)
        self.full = self.store["full"]
        self.view = self.store.at("full")
        self.tree = directory / "tree"
        self.tree.mkdir()
        for number in range(FILES):
            (self.tree / f"file{number:03}").write_bytes(source.randbytes(number * 10))


def sorted_load(setting: Setting) -> Kernel:
    ascending = sorted(setting.pairs)
    tx = setting.store.transaction()
    loaded = tx.create("sorted")

    def run() -> None:
        loaded.load_sorted(ascending)
        tx.commit()

    return run


def random_load(setting: Setting) -> Kernel:
    tx = setting.store.transaction()
    loaded = tx.create("random")

    def run() -> None:
        for key, value in setting.pairs:
            loaded[key] = value
        tx.commit()

    return run


def random_get(setting: Setting) -> Kernel:
    def run() -> None:
        get = setting.view.get
        for key in setting.wanted:
            get(key)

    return run


def many_gets(setting: Setting) -> Kernel:
    return lambda: setting.view.get_many(setting.wanted)


def scan(setting: Setting) -> Kernel:
    def run() -> None:
        for _key, _value in setting.view.items():
            pass

    return run


def ranges(setting: Setting) -> Kernel:
    def run() -> None:
        for start in setting.wanted[:RANGES]:
            for _key, _value in islice(setting.view.items(start), RANGE):
                pass

    return run


def single_puts(setting: Setting) -> Kernel:
    def run() -> None:
        for key, value in islice(setting.fresh, COMMITS):
            setting.full[key] = value

    return run


def batches(setting: Setting) -> Kernel:
    def run() -> None:
        for _ in range(BATCHES):
            with setting.store.transaction() as tx:
                full = tx["full"]
                for key, value in islice(setting.fresh, BATCH):
                    full[key] = value

    return run


def snapshots(setting: Setting) -> Kernel:
    def run() -> None:
        for number in range(SNAPSHOTS):
            setting.store.snapshot(f"full@{number}")

    return run


def diff(setting: Setting) -> Kernel:
    setting.store.snapshot("full@before")
    with setting.store.transaction() as tx:
        for key in setting.wanted[:CHANGED]:
            tx["full"][key] = b"changed"
    next(setting.store.diff("full@before", "full"))  # the first one imports what it needs
    return lambda: list(setting.store.diff("full@before", "full"))


def destroy(setting: Setting) -> Kernel:
    setting.store.clone("full", "doomed")
    with setting.store.transaction() as tx:
        tx["doomed"].update((key, b"changed") for key in setting.wanted)
    setting.store.snapshot("full@stored")  # with all that was in the log only
    return lambda: setting.store.destroy("doomed")


def copy_in(setting: Setting) -> Kernel:
    tx = setting.store.transaction()
    files = tx.create("files", kind="fs")
    files.copy_in(setting.tree / "file000", "first")  # imports what it needs

    def run() -> None:
        files.copy_in(setting.tree, "tree")
        tx.commit()

    return run


def opening(setting: Setting) -> Kernel:
    def run() -> None:
        for _ in range(OPENED):
            cowfs.open_device(setting.device, readonly=True).close()

    return run


# Title, kernel and operations, in the order in which they run.
KERNELS: tuple[tuple[str, Callable[[Setting], Kernel], int], ...] = (
    ("sorted load, an item", sorted_load, ITEMS),
    ("random load, an item", random_load, ITEMS),
    ("get", random_get, GETS),
    ("get_many, a key", many_gets, GETS),
    ("scan, an item", scan, ITEMS),
    (f"range of {RANGE}", ranges, RANGES),
    ("single put", single_puts, COMMITS),
    (f"batch of {BATCH}", batches, BATCHES),
    ("snapshot", snapshots, SNAPSHOTS),
    (f"diff of {CHANGED} keys", diff, 1),
    ("destroy", destroy, 1),
    ("copy in, a file", copy_in, FILES),
    ("open", opening, OPENED),
)


def run_all(directory: Path, call: Callable[[Kernel], object]) -> None:
    """Prepare each kernel, and have `call` run it."""
    setting = Setting(directory)
    gc.disable()  # when it runs depends on what ran before
    for _, prepare, _ in KERNELS:
        call(prepare(setting))
    gc.enable()
    setting.store.close()


def main() -> None:
    run_all(Path(sys.argv[1]), lambda kernel: Counted() @ kernel)


if __name__ == "__main__":
    main()
