"""The NBD server and a client that says exactly what a test wants: answers, limits, lies."""

from __future__ import annotations

import asyncio
import errno
import random
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cowfs
from cowfs.device import MemoryDevice
from cowfs.serve import protocol
from cowfs.serve.exports import _FULL, Exports
from cowfs.serve.protocol import Command, Flag, Option, Reply
from cowfs.writeback import WriteBack

from ..nbd import FLAGS, Client, Served, info_data, request
from ..plain import noise

SIZE = 8 << 20


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two volumes and a snapshot."""
    image = tmp_path_factory.mktemp("nbd") / "t.cow"
    with cowfs.open(image, "c") as store:
        disk = store.create("vm/disk", "volume", SIZE, 4096)
        disk.pwrite(b"snapshot", 0)
        store.snapshot("vm/disk@old")
        store.create("other", "volume", 1000)
    served = Served(image, "vm/disk", "other", "vm/disk@old")
    yield served
    served.end()


# --- handshake ----------------------------------------------------------------------------------


def test_exports_are_listed_and_described(served: Served) -> None:
    with Client(served) as client:
        client.send(FLAGS)
        *names, (last, _) = client.ask(Option.LIST)
        assert last == Reply.ACK
        assert [data[4:].decode() for _, data in names] == ["vm/disk", "other", "vm/disk@old"]
        infos = client.ask(Option.INFO, info_data("other", 1))
        assert infos[-1][0] == Reply.ACK
        found = {struct.unpack(">H", data[:2])[0]: data[2:] for _, data in infos[:-1]}
        size, flags = struct.unpack(">QH", found[0])
        assert size == 1000
        assert not flags & protocol.Export.READ_ONLY
        assert found[1] == b"other"
        assert struct.unpack(">III", found[3]) == (1, 16_384, 32 << 20)
        (_, data), *_ = client.ask(Option.INFO, info_data("vm/disk@old"))
        assert struct.unpack(">HQH", data)[2] & protocol.Export.READ_ONLY


@pytest.mark.parametrize(
    ("option", "data", "kind"),
    [
        (Option.LIST, b"x", Reply.ERR_INVALID),
        (Option.INFO, b"", Reply.ERR_INVALID),
        (Option.INFO, info_data("nothing"), Reply.ERR_UNKNOWN),
        (Option.INFO, info_data(""), Reply.ERR_UNKNOWN),  # there are several
        (Option.GO, info_data("nothing"), Reply.ERR_UNKNOWN),
        (Option.GO, struct.pack(">I", 1 << 31) + b"other\0\0", Reply.ERR_INVALID),
        (Option.GO, info_data("other") + b"x", Reply.ERR_INVALID),
        (Option.GO, struct.pack(">I1sH", 1, b"\xff", 0), Reply.ERR_INVALID),
        (Option.STRUCTURED_REPLY, b"x", Reply.ERR_INVALID),
        (Option.SET_META_CONTEXT, b"", Reply.ERR_INVALID),
        (Option.STARTTLS, b"", Reply.ERR_POLICY),
        (11, b"", Reply.ERR_UNSUP),
        (4711, b"anything", Reply.ERR_UNSUP),
    ],
)
def test_an_option_that_cannot_be_is_refused_and_the_next_one_answered(
    served: Served, option: int, data: bytes, kind: int
) -> None:
    with Client(served) as client:
        client.send(FLAGS)
        assert [found for found, _ in client.ask(option, data)] == [kind]
        assert client.ask(Option.LIST)[-1][0] == Reply.ACK
        assert client.ask(Option.ABORT)[-1][0] == Reply.ACK
        assert client.is_hung_up


def test_old_clients_name_their_export(served: Served) -> None:
    for flags, padding in ((1, 124), (3, 0)):
        with Client(served) as client:
            client.send(struct.pack(">I", flags))
            client.send(struct.pack(">QII", protocol.OPTION_MAGIC, Option.EXPORT_NAME, 5), b"other")
            assert struct.unpack(">QH", client.receive(10))[0] == 1000
            assert client.receive(padding) == bytes(padding)
            assert client.read(0, 10) == bytes(10)


def test_contexts_are_agreed_on(served: Served) -> None:
    def queries(*texts: bytes) -> bytes:
        head = struct.pack(">I5sI", 5, b"other", len(texts))
        return head + b"".join(struct.pack(">I", len(text)) + text for text in texts)

    with Client(served) as client:
        client.send(FLAGS)
        assert client.ask(Option.LIST_META_CONTEXT, queries())[0][0] == Reply.ERR_INVALID
        client.ask(Option.STRUCTURED_REPLY)
        for asked in (queries(), queries(b"base:"), queries(b"x:y", b"base:allocation")):
            (kind, data), (last, _) = client.ask(Option.LIST_META_CONTEXT, asked)
            assert (kind, data[4:], last) == (Reply.META_CONTEXT, b"base:allocation", Reply.ACK)
        for asked in (queries(), queries(b"base:"), queries(b"x:y")):
            assert client.ask(Option.SET_META_CONTEXT, asked) == [(Reply.ACK, b"")]
        lie = queries()[:-4] + struct.pack(">I", 1 << 30)
        assert client.ask(Option.SET_META_CONTEXT, lie)[0][0] == Reply.ERR_INVALID


# --- transmission -------------------------------------------------------------------------------


def test_what_is_written_is_read_by_every_client(served: Served) -> None:
    with Client(served).go("vm/disk") as one, Client(served).go("vm/disk") as other:
        assert one.request(Command.WRITE, 5000, data=noise(100_000)) == 0
        assert other.read(5000, 100_000) == noise(100_000)
        assert other.request(Command.FLUSH) == 0
        assert one.request(Command.TRIM, 8192, 8192) == 0
        assert other.read(8190, 8196)[2:-2] == bytes(8192)
        assert one.request(Command.WRITE_ZEROES, 5000, 10, flags=Flag.FUA | Flag.NO_HOLE) == 0
        assert other.read(5000, 10) == bytes(10)


@pytest.mark.parametrize(("flags", "parts"), [(0, 3), (protocol.Flag.DF, 1)])
def test_zeros_are_told_of_and_not_sent(served: Served, flags: int, parts: int) -> None:
    """To those that asked for structured replies, and unless they want one piece."""
    data = bytes(64 << 10) + noise(32 << 10) + bytes(64 << 10)
    with Client(served) as client:
        client.send(FLAGS)
        client.ask(Option.STRUCTURED_REPLY)
        client.ask(Option.GO, info_data("vm/disk"))
        client.send(request(Command.WRITE, 1 << 20, len(data)), data)
        client.receive(16)
        client.send(request(Command.READ, 1 << 20, len(data), flags))
        found = bytearray(b"?" * len(data))
        ends: list[int] = []
        while not any(ends):
            _, end, kind, _, length = struct.unpack(">IHHQI", client.receive(20))
            ends.append(end)
            at = struct.unpack(">Q", client.receive(8))[0] - (1 << 20)
            if kind == protocol.Chunk.OFFSET_HOLE:
                (zeros,) = struct.unpack(">I", client.receive(4))
                assert length == 12
                found[at : at + zeros] = bytes(zeros)
            else:
                found[at : at + length - 8] = client.receive(length - 8)
                assert length - 8 == (len(data) if flags else 32 << 10)
        assert found == data
        assert len(ends) == parts


def test_long_requests_and_many_at_once(served: Served) -> None:
    data = noise(4 << 20)
    with Client(served).go("vm/disk") as client:
        assert client.request(Command.WRITE, 1 << 20, data=data, flags=Flag.FUA) == 0
        assert client.read(1 << 20, 4 << 20) == data
        chance = random.Random(1)
        places = [chance.randrange(0, (4 << 20) - 4096) for _ in range(300)]
        client.send(*(request(Command.READ, (1 << 20) + at, 4096, cookie=at) for at in places))
        for _ in places:
            _, error, at = struct.unpack(">IIQ", client.receive(16))
            assert error == 0
            assert client.receive(4096) == data[at : at + 4096]


def test_writes_of_any_length_arrive_as_they_were_sent(served: Served) -> None:
    """Short ones share a buffer, long ones have one of their own."""
    kib = 1024
    lengths = [1, 100_000, 255 * kib, 256 * kib, 256 * kib + 1, 512 * kib, kib * kib, 3 * kib * kib]
    chance = random.Random(3)
    with Client(served).go("vm/disk") as client:
        for step in range(4):
            chance.shuffle(lengths)
            at, model = 0, bytearray()
            for length in lengths:
                data = noise(length, step)
                client.send(request(Command.WRITE, at, length), data)
                at += length
                model += data
            for _ in lengths:
                assert struct.unpack(">IIQ", client.receive(16))[1] == 0
            assert client.read(0, at) == model


@pytest.mark.parametrize(
    ("export", "words", "error"),
    [
        ("other", (Command.READ, 999, 2), errno.EINVAL),
        ("other", (Command.READ, 0, 0), errno.EINVAL),
        ("other", (Command.READ, (1 << 64) - 1, 2), errno.EINVAL),
        ("vm/disk", (Command.READ, 0, (32 << 20) + 1), errno.EINVAL),
        ("vm/disk", (Command.READ, 0, (1 << 32) - 1), errno.EINVAL),
        ("other", (Command.WRITE, 995, 0, b"too long"), errno.EINVAL),
        ("other", (Command.WRITE, 1 << 63, 0, noise(100_000)), errno.EINVAL),
        ("other", (Command.TRIM, 0, 1001), errno.EINVAL),
        ("other", (Command.WRITE_ZEROES, 1000, 1), errno.EINVAL),
        ("other", (Command.BLOCK_STATUS, 0, 10), errno.EINVAL),
        ("other", (5, 0, 10), errno.EINVAL),
        ("other", (77, 0, 10), errno.EINVAL),
        ("other", (Command.READ, 0, 10, b"", 1 << 9), errno.EINVAL),
        ("vm/disk@old", (Command.WRITE, 0, 0, b"x"), errno.EPERM),
        ("vm/disk@old", (Command.WRITE, 0, 0, noise(100_000)), errno.EPERM),
        ("vm/disk@old", (Command.TRIM, 0, 4096), errno.EPERM),
    ],
)
def test_a_request_that_cannot_be_is_refused_and_the_next_one_answered(
    served: Served, export: str, words: tuple[int, int], error: int
) -> None:
    with Client(served).go(export) as client:
        assert client.request(*words) == error
        assert client.request(Command.FLUSH) == 0
        assert len(client.read(0, 8)) == 8


def test_a_snapshot_stays_as_it_was(served: Served) -> None:
    with Client(served).go("vm/disk") as disk, Client(served).go("vm/disk@old") as old:
        assert disk.request(Command.WRITE, 0, data=b"changed!") == 0
        assert old.read(0, 8) == b"snapshot"
        assert old.request(Command.FLUSH) == 0


# --- lies ---------------------------------------------------------------------------------------

HEAD = struct.Struct(">QII")


@pytest.mark.parametrize(
    ("lie", "line"),
    [
        (b"\0\0\0\0", "without fixed newstyle"),
        (b"\xff\xff\xff\xff", "handshake flags 0xffffffff"),
        (FLAGS + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "an option that begins with 0x4745"),
        (FLAGS + HEAD.pack(protocol.OPTION_MAGIC, 7, 1 << 31), "option 7 with 2147483648 bytes"),
        (FLAGS + HEAD.pack(protocol.OPTION_MAGIC, 1, 4) + b"none", "wants an export b'none'"),
    ],
)
def test_a_lie_in_the_handshake_ends_the_connection_with_a_line_in_the_log(
    served: Served, lie: bytes, line: str
) -> None:
    with Client(served) as client:
        client.send(lie)
        assert client.is_hung_up
    assert line in served.log
    assert served.log.count("Traceback") == 0


@pytest.mark.parametrize(
    ("lie", "line"),
    [
        (bytes(28), "a request that begins with 0x00000000"),
        (noise(28), "a request that begins with"),
        (request(Command.WRITE, 0, (32 << 20) + 1), "a write of 33554433 bytes"),
        (request(Command.WRITE, 0, (1 << 32) - 1), "a write of 4294967295 bytes"),
        (request(Command.WRITE, 0, 5) + b"12345" + b"x" * 28, "begins with 0x78787878"),
    ],
)
def test_a_lie_in_the_transmission_ends_the_one_connection(
    served: Served, lie: bytes, line: str
) -> None:
    with Client(served).go("vm/disk") as other, Client(served).go("vm/disk") as client:
        client.send(lie)
        client.receive(16 if lie[4:8] == b"\0\0\0\1" and len(lie) > 28 else 0)
        assert client.is_hung_up
        assert len(other.read(0, 100)) == 100
    assert line in served.log


def test_hanging_up_in_the_middle_of_a_message_is_noticed(served: Served) -> None:
    with Client(served).go("vm/disk") as client:
        client.send(request(Command.WRITE, 0, 100_000), b"not all of it")
        client.socket.shutdown(1)
        assert client.is_hung_up
    assert "hung up in the middle of a message" in served.log


def mutated(message: bytes, chance: random.Random) -> bytes:
    data = bytearray(message)
    for _ in range(chance.randrange(1, 6)):
        match chance.randrange(4):
            case 0 if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
            case 1 if data:
                del data[chance.randrange(len(data)) :]
            case 2:
                at = chance.randrange(len(data) + 1)
                data[at:at] = chance.randbytes(chance.randrange(40))
            case _ if data:
                at = chance.randrange(len(data))
                data[at : at + 4] = chance.choice((bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff"))
    return bytes(data)


def option(number: int, data: bytes = b"") -> bytes:
    return HEAD.pack(protocol.OPTION_MAGIC, number, len(data)) + data


MESSAGES = (
    FLAGS,
    option(Option.LIST),
    option(Option.STRUCTURED_REPLY),
    option(Option.INFO, info_data("other", 1, 2, 3)),
    option(
        Option.SET_META_CONTEXT, struct.pack(">I5sII15s", 5, b"other", 1, 15, b"base:allocation")
    ),
    option(Option.GO, info_data("other")),
    request(Command.READ, 0, 100),
    request(Command.WRITE, 10, 20) + bytes(20),
    request(Command.TRIM, 0, 500),
    request(Command.BLOCK_STATUS, 0, 500),
    request(Command.FLUSH),
    request(Command.DISCONNECT),
)


def test_noise_never_ends_the_server_or_another_connection(served: Served) -> None:
    """Whatever comes: an answer or a hang-up, for this client alone."""
    chance = random.Random(5)
    with Client(served).go("vm/disk") as other:
        assert other.request(Command.WRITE, 0, data=b"in spite of all") == 0
        for _ in range(300):
            wrong = chance.randrange(len(MESSAGES))
            messages = [
                mutated(message, chance) if i == wrong or chance.random() < 0.1 else message
                for i, message in enumerate(MESSAGES)
            ]
            with Client(served) as client:
                try:
                    client.send(*messages)
                    client.socket.shutdown(1)
                except OSError:
                    continue
                while client.receive(65_536):
                    pass
        assert other.read(0, 15) == b"in spite of all"
    assert "Traceback" not in served.log
    assert served.process.poll() is None


# --- beginning and end --------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "t.cow"
    with cowfs.open(path, "c") as store:
        store.create("v", "volume", SIZE, 4096)
    return path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_clean_end_loses_nothing(image: Path, number: int) -> None:
    served = Served(image)
    with Client(served).go() as client:
        assert client.request(Command.WRITE, 100, data=noise(5000)) == 0
        assert served.end(number) == 0
        assert client.is_hung_up
    assert not Path(served.path).exists()
    with cowfs.open(image) as store:
        assert store["v"].pread(5000, 100) == noise(5000)
        assert store.check().ok


@pytest.mark.parametrize("how", ["flush", "fua"])
def test_what_was_flushed_survives_a_kill(image: Path, how: str) -> None:
    served = Served(image)
    with Client(served).go("v") as client:
        flags = Flag.FUA if how == "fua" else 0
        assert client.request(Command.WRITE, 100, data=noise(5000), flags=flags) == 0
        if how == "flush":
            assert client.request(Command.FLUSH) == 0
        served.end(signal.SIGKILL)
    with cowfs.open(image) as store:
        assert store["v"].pread(5000, 100) == noise(5000)
    served = Served(image)  # over the socket that is left
    with Client(served).go("v") as client:
        assert client.read(100, 5000) == noise(5000)
    assert served.end() == 0


def test_a_port_of_this_machine(image: Path) -> None:
    served = Served(image, "--port", "0")
    assert served.uri.startswith("nbd://127.0.0.1:")
    with Client(served).go("v") as client:
        assert client.read(0, 5) == bytes(5)
    assert served.end() == 0


def test_snapshots_alone_leave_the_image_to_other_readers(image: Path) -> None:
    with cowfs.open(image, "w") as store:
        store["v"].pwrite(b"old", 0)
        store.snapshot("v@x")
    served = Served(image, "v@x")
    with Client(served).go() as client, cowfs.open(image) as store:
        assert client.read(0, 3) == b"old"
        assert list(store) == ["v"]
    assert served.end() == 0


def small_image(directory: Path) -> Path:
    """One of 8 MiB, with a volume that is larger."""
    image = directory / "t.cow"
    with cowfs.open(image, "c", size=8 << 20) as store:
        store.create("v", "volume", 64 << 20, 4096)
    return image


def test_a_full_image_refuses_writes_and_takes_discards(tmp_path: Path) -> None:
    served = Served(small_image(tmp_path))
    with Client(served).go() as client:
        at = 0
        while (error := client.request(Command.WRITE, at, data=noise(1 << 20, at), flags=1)) == 0:
            at += 1 << 20
        assert error == errno.ENOSPC
        assert client.request(Command.WRITE, 0, data=b"x") == errno.ENOSPC
        assert client.request(Command.TRIM, 1 << 20, 63 << 20) == 0
        assert client.request(Command.FLUSH) == 0
        assert client.request(Command.WRITE, 0, data=b"x", flags=Flag.FUA) == 0
        assert client.read(0, 2) == b"x" + noise(1 << 20)[1:2]
    assert served.end() == 0
    assert "the image is full" in served.log


def test_a_full_image_refuses_writes_that_nobody_flushes(tmp_path: Path) -> None:
    """Who wrote more than may wait in memory is told that it cannot be stored."""
    served = Served(small_image(tmp_path))
    with Client(served).go() as client:
        answers = [
            client.request(Command.WRITE, at, data=noise(64 << 10, at))
            for at in range(0, 16 << 20, 64 << 10)
        ]
        assert answers[0] == 0
        assert answers[-1] == errno.ENOSPC
        assert client.request(Command.TRIM, 0, 16 << 20) == 0
        assert client.request(Command.FLUSH) == 0
        assert client.request(Command.WRITE, 0, data=b"x") == 0
    assert served.end() == 0


def test_little_waits_in_memory_whatever_is_written(store: cowfs.Store) -> None:
    """Bytes here and there cost whole records, of any volume; the sum is what counts."""

    async def write() -> int:
        names = [f"v{i}" for i in range(8)]
        for name in names:
            store.create(name, "volume", 64 << 20, 128 << 10)
        exports = Exports(store, names)
        at_most = 0
        for at in range(0, 64 << 20, 128 << 10):
            for volume in exports.volumes.values():
                volume.pwrite(b"x", at)
                exports.written(volume, 1)
                at_most = max(at_most, exports.writeback.pending)
                if exports.is_full:
                    await exports.flush()
        await exports.close()
        return at_most

    assert asyncio.run(write()) < 4 << 20


def test_a_commit_of_what_clients_may_gather_needs_no_flush_of_its_own(
    store: cowfs.Store,
) -> None:
    """Records all over a volume have a leaf each: as many bytes again."""
    records, chance = 60_000, random.Random(1)
    store.create("v", "volume", records * 4096, 4096).pwrite(noise(4096) * records, 0)
    cache = WriteBack(store)
    volume = cache.open("v")
    durable = store.durable_txid
    for step in range(8):
        while cache.gathered < _FULL + (128 << 10):  # some more arrives in time
            volume.pwrite(noise(4096, step), chance.randrange(records) * 4096)
        cache.commit(durable=False)
        assert store.durable_txid == durable


def test_an_end_that_cannot_store_everything_says_so(tmp_path: Path) -> None:
    served = Served(small_image(tmp_path))
    with Client(served).go() as client:
        at = 0
        while client.request(Command.WRITE, at, data=noise(1 << 20, at), flags=1) == 0:
            at += 1 << 20
        assert served.end() == 1
    assert served.log.splitlines()[-1].startswith("cowfs: the image is full")
    with cowfs.open(tmp_path / "t.cow") as store:
        assert store["v"].pread(1 << 20, 0) == noise(1 << 20)


class ShortOfMemory(MemoryDevice):
    """There is no memory for the next write."""

    short = False

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        if self.short:
            self.short = False
            raise MemoryError
        super().write(offset, data)


def test_who_waits_for_a_flush_is_told_that_there_was_no_memory() -> None:
    device = ShortOfMemory()
    store = cowfs.open_device(device, parameters=cowfs.Parameters())
    store.create("disk", "volume", SIZE)
    data = noise(1 << 19, 1)

    async def use() -> None:
        exports = Exports(store, ["disk"])
        exports.volumes["disk"].pwrite(data, 0)
        device.short = True
        with pytest.raises(MemoryError):
            await exports.flush()
        await exports.flush()
        await exports.close()

    asyncio.run(use())
    assert store["disk"].pread(len(data), 0) == data


def test_what_is_served_is_in_use(store: cowfs.Store) -> None:
    for name in ("v", "w", "free"):
        store.create(name, "volume", 1000)
    store.snapshot("v@x", "w@x")
    exports = Exports(store, ["v", "w@x"])
    for name in ("v", "w", "w@x"):
        with pytest.raises(cowfs.BusyError, match="is being served"):
            exports.check_unused(name)
    for name in ("free", "v@x"):
        exports.check_unused(name)
    exports.volumes["v"].pwrite(b"new", 0)
    assert store["v"].pread(3, 0) == bytes(3)
    exports.settle()
    assert store["v"].pread(3, 0) == b"new"


def test_damage_is_an_error_of_the_one_read(image: Path) -> None:
    with cowfs.open(image, "w") as store:
        store["v"].pwrite(noise(100_000), 0)
    with image.open("r+b") as file:
        file.seek(file.read().index(noise(100_000)[8192:8292]))
        file.write(b"damage")
    served = Served(image)
    with Client(served).go() as client:
        assert client.request(Command.READ, 8192, 10) == errno.EIO
        assert client.read(0, 8192) == noise(100_000)[:8192]
    assert served.end() == 0
    assert "the checksum does not match" in served.log


Arguments = Callable[[Path], list[str]]


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["files"], 1, "files is of kind fs; only volumes can be served"),
        (["nothing"], 1, "no dataset 'nothing'"),
        (["v@nothing"], 1, "no snapshot 'nothing'"),
        (["v", "--socket", "x", "--port", "1"], 2, "choose one"),
        (["v", "--socket", "t.cow"], 2, "t.cow: exists and is no socket"),
        (["v", "--socket", "no/where"], 1, "no/where: No such file or directory"),
        (["v", "--socket", "x" * 120], 2, "too long for the path of a socket"),
        (["v", "--tls-cert", "x"], 2, "TLS needs both"),
        (["v", "--tls-cert", "x", "--tls-key", "y"], 1, "x: No such file"),
        (["v", "--tls-cert", "t.cow", "--tls-key", "t.cow"], 2, "no certificate and key"),
        (["v", "--port", "70000"], 2, "70000"),
    ],
)
def test_what_cannot_be_served_is_one_clear_line(
    image: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: list[str], code: int, line: str,
) -> None:  # fmt: skip
    from cowfs.cli import run

    monkeypatch.chdir(image.parent)
    with cowfs.open("t.cow", "w") as store:
        store.create("files", "fs")
    assert run(["serve", "t.cow", *words]) == code
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_an_image_or_socket_in_use_is_one_clear_line(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cowfs.cli import run

    served = Served(image)
    assert run(["serve", str(image)]) == 1
    assert f"process {served.process.pid} holds the image" in capsys.readouterr().err
    other = image.with_name("other.cow")
    with cowfs.open(other, "c") as store:
        store.create("v", "volume", SIZE)
    assert run(["serve", str(other), "--socket", served.path]) == 1
    assert "another server listens there" in capsys.readouterr().err
    with Client(served).go() as client:
        assert client.read(0, 1) == b"\0"
    assert served.end() == 0
