"""Changes of several threads in one transaction: each is made once, and acknowledged when durable,
whatever fails, and whoever is interrupted.

Each test has one thread wait in a flush, lets others hand over their changes meanwhile, and then
lets the flush go on: the first of them leads, and makes the changes of all.
"""

from __future__ import annotations

import errno
import gc
import linecache
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import cowfs
from cowfs import group
from cowfs._tree import Tree
from cowfs.device import MemoryDevice
from faultfuzzer.bytecodes import Stepper
from faultfuzzer.explore import in_time
from faultfuzzer.lines import Tracer

from ..devices import device_of
from ..plain import assert_sound, reopened
from .test_threads import Runner

FOLLOWERS = 8


class SlowDevice(MemoryDevice):
    """A device whose next flush takes until it is told to go on; it keeps what each made durable.

    What comes next can fail: `faults` has an error, or None, for each write and flush, in order.
    """

    def __init__(self) -> None:
        super().__init__(name="<slow>")
        self.durable: list[bytes] = []
        """The image as of each flush that succeeded."""
        self.hold = False
        """Whether the next flush waits."""
        self.flushing, self.go_on = threading.Event(), threading.Event()
        self.faults: list[BaseException | None] = []

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._fail()
        super().write(offset, data)

    def flush(self) -> None:
        image = self.read(0, self.size())
        if self.hold:
            self.hold = False
            self.flushing.set()
            assert self.go_on.wait(60)
        self._fail()
        self.durable.append(image)

    def _fail(self) -> None:
        error = self.faults.pop(0) if self.faults else None
        if error is not None:
            raise error


class Put(Runner):
    """A thread that makes one change, and notes at which flush it was acknowledged."""

    flushes: int | None = None
    result: Any = None

    def __init__(self, device: SlowDevice, change: Callable[[], Any]) -> None:
        def work() -> None:
            self.result = change()
            self.flushes = len(device.durable)

        super().__init__(work)


class Scene:
    """A store with a dataset `a`, and a thread that waits in a flush of it."""

    def __init__(self) -> None:
        self.device = SlowDevice()
        self.store = cowfs.open_device(self.device, parameters=cowfs.Parameters())
        self.data = self.store.create("a")
        self.data[b"there"] = b"before"
        self.device.hold = True
        self.first = self.hand_over(partial(self.data.__setitem__, b"first", b"1"))
        assert self.device.flushing.wait(60)
        self.txid, self.flushes = self.store.txid, len(self.device.durable)

    def hand_over(self, change: Callable[[], Any]) -> Put:
        """A thread that makes a change, once it is in the queue, or has failed before."""
        before = len(self.store._group._queue)
        put = Put(self.device, change)
        self.until(lambda: len(self.store._group._queue) > before or not put.is_alive())
        return put

    @staticmethod
    def until(reached: Callable[[], bool]) -> None:
        """Wait for what another thread is about to do."""
        while not reached():
            pass

    def put_all(self) -> list[Put]:
        """Threads that have each handed over a put of their own."""
        return [
            self.hand_over(partial(self.data.__setitem__, b"%d" % number, b"value"))
            for number in range(FOLLOWERS)
        ]

    def go_on(self) -> None:
        """Let the flush of the first thread end."""
        self.device.go_on.set()
        self.first.finish()

    def keys_at(self, flush: int) -> set[bytes]:
        """What a flush made durable."""
        with reopened(device_of(self.device.durable[flush])) as store:
            assert_sound(store)
            return set(store["a"])


@pytest.fixture
def scene() -> Iterator[Scene]:
    """Sound at the end, unless the store failed; nobody waits any more."""
    scene = Scene()
    yield scene
    assert scene.store._group._queue == []
    if scene.store.failure is None:
        scene.data[b"afterwards"] = b"works"
        assert_sound(scene.store)
    scene.store.close()


PUTS = {b"%d" % number for number in range(FOLLOWERS)}
BEFORE = {b"there", b"first"}


def test_what_waits_becomes_one_transaction_and_is_acknowledged_after_its_flush(
    scene: Scene,
) -> None:
    puts = scene.put_all()
    scene.go_on()
    for put in puts:
        put.finish()
    assert scene.store.txid == scene.txid + 1
    assert len(scene.device.durable) == scene.flushes + 2
    assert {put.flushes for put in puts} == {scene.flushes + 2}
    assert scene.keys_at(scene.flushes) == BEFORE
    assert scene.keys_at(scene.flushes + 1) == BEFORE | PUTS


def test_threads_are_acknowledged_only_what_is_durable() -> None:
    interval = sys.getswitchinterval()
    device = SlowDevice()
    store = cowfs.open_device(device, parameters=cowfs.Parameters())
    data = store.create("a")
    made = len(device.durable)
    acknowledged: dict[bytes, int] = {}

    def work(thread: int) -> None:
        for number in range(8):
            key = b"%d %d" % (thread, number)
            data[key] = key
            acknowledged[key] = len(device.durable)

    sys.setswitchinterval(1e-6)  # threads take turns in the midst of everything
    try:
        for runner in [Runner(partial(work, thread)) for thread in range(8)]:
            runner.finish()
    finally:
        sys.setswitchinterval(interval)
    assert len(acknowledged) == len(data) == 64
    for flush, image in enumerate(device.durable[made:], made):
        with reopened(device_of(image)) as found:
            assert {key for key, at in acknowledged.items() if at == flush + 1} <= set(found["a"])
    assert_sound(store)


def test_a_change_of_one_thread_that_fails_is_not_tried_again(store: cowfs.Store) -> None:
    store.create("a")
    calls: list[Tree] = []

    def fail(tree: Tree) -> None:
        calls.append(tree)
        raise cowfs.UsageError("no")

    with pytest.raises(cowfs.UsageError, match="no"):
        store.change("a", fail)
    assert len(calls) == 1


def test_each_gets_the_result_of_its_own_change(scene: Scene) -> None:
    there = scene.hand_over(partial(scene.data.discard, b"there"))
    missing = scene.hand_over(partial(scene.data.discard, b"missing"))
    scene.go_on()
    there.finish()
    missing.finish()
    assert (there.result, missing.result) == (True, False)


def test_a_change_that_cannot_be_made_fails_alone(scene: Scene) -> None:
    wrong = scene.hand_over(partial(scene.data.__setitem__, "no bytes", b"value"))
    puts = scene.put_all()
    missing = scene.hand_over(partial(scene.data.__delitem__, b"missing"))
    scene.go_on()
    with pytest.raises(cowfs.KeyTypeError):
        wrong.finish()
    with pytest.raises(cowfs.NotFoundError):
        missing.finish()
    for put in puts:
        put.finish()
    assert set(scene.data) == BEFORE | PUTS
    assert scene.keys_at(-1) == BEFORE | PUTS


@pytest.mark.parametrize("last", ["write", "flush"])
def test_a_failing_write_or_flush_acknowledges_nothing_to_anybody(scene: Scene, last: str) -> None:
    puts = scene.put_all()
    broken = OSError(errno.EIO, "the disk is on fire")
    scene.device.faults = [None, broken] if last == "write" else [None, None, broken]
    scene.go_on()
    for put in puts:
        with pytest.raises(cowfs.FailedError, match="whether this transaction was kept"):
            put.finish()
    with pytest.raises(cowfs.FailedError, match="open it anew"):
        scene.data[b"more"] = b"value"
    with reopened(scene.device) as store:
        assert set(store["a"]) in (BEFORE, BEFORE | PUTS)
        assert_sound(store)


def test_who_follows_an_interrupted_leader_waits_for_a_flush(scene: Scene) -> None:
    leader, *followers = scene.put_all()
    scene.device.faults = [None, None, KeyboardInterrupt()]  # in the flush of the group
    scene.go_on()
    with pytest.raises(KeyboardInterrupt):
        leader.finish()
    for put in followers:
        put.finish()
        assert put.flushes == scene.flushes + 2
    assert scene.store.txid == scene.txid + 1
    assert scene.keys_at(-1) == BEFORE | PUTS


def test_what_an_interrupted_leader_could_not_commit_is_made_by_those_who_wait(
    scene: Scene,
) -> None:
    leading: list[int] = []

    def interrupted(tree: Tree) -> None:
        leading.append(threading.get_ident())
        if len(leading) == 1:
            raise KeyboardInterrupt
        tree.put(b"interrupted", b"value")

    leader, *followers = scene.put_all()
    last = scene.hand_over(partial(scene.store.change, "a", interrupted))
    scene.go_on()
    with pytest.raises(KeyboardInterrupt):
        leader.finish()
    for put in (*followers, last):
        put.finish()
    assert leading == [leader.ident, last.ident]
    assert scene.keys_at(-1) == BEFORE | PUTS - {b"0"} | {b"interrupted"}


@pytest.mark.parametrize("place", [0, 1])
def test_who_waits_can_be_interrupted_and_keeps_nobody_waiting(scene: Scene, place: int) -> None:
    """As the one who would lead next, and as one behind."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    remove = partial(scene.data.discard, b"there")
    before = [scene.hand_over(remove) for _ in range(place)]
    puts: list[Put] = []

    def send() -> None:
        scene.until(lambda: len(scene.store._group._queue) == place + 2)
        puts.extend(scene.put_all())
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    old = signal.signal(signal.SIGUSR1, interrupt)
    try:
        sender = Runner(send)
        with pytest.raises(KeyboardInterrupt):
            scene.data[b"interrupted"] = b"value"
        sender.finish()
    finally:
        signal.signal(signal.SIGUSR1, old)
    scene.go_on()
    for put in (*before, *puts):
        put.finish()
    assert set(scene.data) == PUTS | {b"first"} | (set() if place else {b"there"})


class Interrupted:
    """A change that is interrupted while it leads, or is led, with one before it or behind it."""

    def __init__(self, place: str, tracer: Tracer | Stepper) -> None:
        self.scene, self.tracer = Scene(), tracer
        self.others = {b"0", b"1"}
        changes: list[Callable[[], None]] = [
            partial(self.scene.data.__setitem__, key, b"value") for key in sorted(self.others)
        ]
        changes.insert(0 if place == "leader" else 1, self._change)
        self.puts = [self.scene.hand_over(change) for change in changes]

    def _change(self) -> None:
        # Caught here, so that nothing keeps what the interrupt left: a transaction, perhaps.
        with suppress(self.tracer.error, cowfs.FailedError), self.tracer.watching():
            self.scene.data[b"interrupted"] = b"value"

    def look(self) -> None:
        """Only an interrupt while the record is written is final for all, as for a store in
        general: else nobody waits, and the others have what they were told."""
        scene = self.scene
        scene.go_on()
        for put in self.puts:
            with suppress(*(() if scene.store.failure is None else (cowfs.FailedError,))):
                put.finish()
        if scene.store.failure is None:
            assert scene.keys_at(-1) >= BEFORE | self.others
            assert scene.store._group._queue == []
            scene.data[b"afterwards"] = b"works"
            assert_sound(scene.store)
        if not self.tracer.injected:
            assert scene.keys_at(-1) >= {b"interrupted"}


@pytest.mark.parametrize("place", ["leader", "follower"])
def test_an_interrupt_at_any_line_keeps_nobody_waiting_and_takes_nothing_from_others(
    place: str,
) -> None:
    line, interrupted = 0, 1
    while interrupted:
        tracer = Tracer(line)
        Interrupted(place, tracer).look()
        line, interrupted = line + 1, tracer.injected
    assert line > 30


@pytest.mark.parametrize("place", ["leader", "follower"])
def test_an_interrupt_between_any_two_bytecodes_keeps_nobody_waiting(place: str) -> None:
    every = Stepper()
    Interrupted(place, every).look()
    points = [
        (point, passes)
        for point, times in every.reached.items()
        for passes in {0, times - 1}
        if point.code.co_filename == group.__file__
    ]
    assert len(points) > 20
    for point, passes in points:
        stepper = Stepper(point, passes)
        with in_time():
            Interrupted(place, stepper).look()
        assert stepper.injected


def test_who_has_a_transaction_open_does_not_wait_for_a_group_that_waits_for_it(
    store: cowfs.Store,
) -> None:
    data = store.create("a")
    with store.transaction() as tx:
        leader = Runner(partial(data.__setitem__, b"leader", b"1"))
        Scene.until(lambda: len(store._group._queue) == 1)
        with pytest.raises(cowfs.BusyError, match="this thread has a transaction open"):
            data[b"k"] = b"2"
        tx["a"][b"k"] = b"1"
    leader.finish()
    assert dict(data.items()) == {b"leader": b"1", b"k": b"1"}


def test_a_signal_handler_that_writes_at_any_line_does_not_wait_for_its_own_thread(
    store: cowfs.Store,
) -> None:
    """It is refused while the thread is in the midst of a change, and works else."""
    data = store.create("a")
    outcomes: list[str] = []

    def handler(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename != group.__file__:
            return None
        source = linecache.getline(group.__file__, frame.f_lineno)
        if event == "line" and not source.lstrip().startswith("with "):  # see `Tracer`
            try:
                data[b"%d" % len(outcomes)] = b"value"
                outcomes.append("made")
            except cowfs.BusyError:
                outcomes.append("refused")
        return handler

    sys.settrace(handler)
    try:
        data[b"k"] = b"v"
    finally:
        sys.settrace(None)
    assert {*outcomes} == {"made", "refused"}
    made = {b"%d" % line for line, outcome in enumerate(outcomes) if outcome == "made"}
    assert set(data) == made | {b"k"}
    assert_sound(store)


def test_a_store_that_nobody_refers_to_lets_go_of_its_image_at_once(tmp_path: Path) -> None:
    gc.disable()
    try:
        store = cowfs.open(tmp_path / "a.cow", "c")
        store.create("a")[b"k"] = b"v"
        del store
        with cowfs.open(tmp_path / "a.cow", "w") as again:
            assert again["a"][b"k"] == b"v"
    finally:
        gc.enable()
