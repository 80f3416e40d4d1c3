"""Other people's NBD clients, from Debian, against `cowfs serve`. Each test says which packages it
needs, and is skipped where one is missing."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cowfs

from ..nbd import Served
from ..plain import noise

MIB = 1 << 20
SIZE = 64 * MIB

PACKAGES = {
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "nbdinfo": "libnbd-bin",
    "nbdcopy": "libnbd-bin",
    "fio": "fio",
    "nbdkit": "nbdkit",
    "mkfs.ext4": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "openssl": "openssl",
}
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
"""Where Debian puts programs, those for root too."""


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = {PACKAGES[name] for name in programs if shutil.which(name, path=PATH) is None}
    return pytest.mark.skipif(
        bool(missing), reason=f"needs the packages {', '.join(sorted(missing))}"
    )


def run(*words: str | Path, code: int = 0) -> str:
    """What a program says; it must end with this code."""
    done = subprocess.run(
        list(map(str, words)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | {"PATH": PATH},
        check=False,
    )
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "t.cow"
    with cowfs.open(path, "c") as store:
        store.create("disk", "volume", SIZE, 4096)
    return path


@pytest.fixture
def served(image: Path) -> Iterator[Served]:
    served = Served(image, "disk")
    yield served
    assert served.end() == 0
    assert "Traceback" not in served.log
    with cowfs.open(image) as store:
        assert store.check().ok


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """An image of a disk, with holes."""
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(SIZE)
        for at in (0, 5 * MIB + 512, 20 * MIB, SIZE - 70_000):
            file.seek(at)
            file.write(noise(70_000, at))
    return path


@needs("qemu-img")
def test_qemu_img_converts_both_ways_and_compares(served: Served, raw: Path) -> None:
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", raw, served.uri)
    assert "identical" in run("qemu-img", "compare", "-f", "raw", "-F", "raw", raw, served.uri)
    mapped = json.loads(run("qemu-img", "map", "--output=json", "-f", "raw", served.uri))
    assert sum(part["length"] for part in mapped if part["data"]) < MIB
    copy = raw.with_name("copy.qcow2")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", served.uri, copy)
    assert "identical" in run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, copy)


@needs("qemu-img")
def test_qemu_img_bench_with_flushes(served: Served) -> None:
    run("qemu-img", "bench", "-f", "raw", "-c", "3000", "-d", "32", "-w", served.uri)
    flushes = ["--flush-interval", "16"]
    run("qemu-img", "bench", "-f", "raw", "-c", "2000", "-d", "16", "-w", *flushes, served.uri)
    run("qemu-img", "bench", "-f", "raw", "-c", "3000", "-d", "32", served.uri)


@needs("qemu-io")
def test_qemu_io_writes_discards_and_verifies(served: Served) -> None:
    commands = [
        "write -P 17 1M 3M", "write -P 23 1049000 5000", "discard 2M 512k", "write -z 3000k 64k",
        "write -z -u 5M 1M", "write -f -P 5 63M 1M", "read -P 17 1M 424", "read -P 23 1049000 5000",
        "read -P 0 2M 512k", "read -P 0 3000k 64k", "read -P 5 63M 1M", "flush",
        "aio_write -P 9 10M 2M", "aio_write -P 8 13M 2M", "aio_flush", "read -P 9 10M 2M",
    ]  # fmt: skip
    words = [word for command in commands for word in ("-c", command)]
    said = run("qemu-io", "-f", "raw", *words, served.uri)
    assert "failed" not in said
    assert "verification" not in said


@needs("nbdinfo")
def test_nbdinfo_sees_what_can_be_done(image: Path) -> None:
    with cowfs.open(image, "w") as store:
        store["disk"].pwrite(noise(MIB), MIB)
        store.snapshot("disk@old")
        store.create("other", "volume", 1000)
    served = Served(image, "disk", "disk@old", "other")
    uri = served.uri.replace("/disk?", "/?")
    exports = json.loads(run("nbdinfo", "--json", "--list", uri))["exports"]
    found = {export["export-name"]: export for export in exports}
    assert set(found) == {"disk", "disk@old", "other"}
    for name, size in (("disk", SIZE), ("disk@old", SIZE), ("other", 1000)):
        assert found[name]["export-size"] == size
        assert found[name]["can_multi_conn"] and found[name]["can_flush"]
        assert found[name]["is_read_only"] == ("@" in name)
        assert found[name]["can_trim"] == ("@" not in name)
        assert found[name]["contexts"] == ["base:allocation"]
    mapped = json.loads(run("nbdinfo", "--json", "--map", served.uri))
    assert [(part["offset"], part["length"], part["type"]) for part in mapped] == [
        (0, MIB, 3),
        (MIB, MIB, 0),
        (2 * MIB, SIZE - 2 * MIB, 3),
    ]
    assert served.end() == 0


@needs("nbdcopy")
def test_nbdcopy_with_many_connections(served: Served, raw: Path) -> None:
    run("nbdcopy", "--connections=4", "--requests=32", "--flush", raw, served.uri)
    copy = raw.with_name("copy.raw")
    run("nbdcopy", "--connections=4", "--requests=32", served.uri, copy)
    assert copy.read_bytes() == raw.read_bytes()
    assert copy.stat().st_blocks * 512 < MIB


@needs("fio")
@pytest.mark.parametrize("mode", ["randwrite", "write", "randtrimwrite"])
def test_fio_verifies_what_it_wrote(served: Served, tmp_path: Path, mode: str) -> None:
    words = [
        "--name=x", "--ioengine=nbd", f"--uri={served.uri}", f"--rw={mode}", "--iodepth=16",
        "--bsrange=512-64k", "--bs_unaligned=1", f"--size={SIZE}", "--io_size=48M",
        "--verify=crc32c", "--verify_state_save=0", "--verify_fatal=1", "--do_verify=1",
        "--randrepeat=1",
    ]  # fmt: skip
    if mode == "randwrite":
        words += ["--norandommap=0", "--fsync=50"]
    said = run("fio", *words)
    assert re.search(r"err= 0", said), said


@needs("nbdkit", "nbdcopy")
def test_nbdkit_in_between_checks_every_write(served: Served, raw: Path) -> None:
    """Its filters cut requests into odd pieces, and compare what a second copy writes."""
    filters = ["--filter=blocksize", "--filter=fua"]
    plugin = ["nbd", f"uri={served.uri}", "minblock=1", "maxdata=60K", "fuamode=force"]
    copy = f'nbdcopy {raw} "$uri"'
    run("nbdkit", "-U", "-", *filters, *plugin, "--run", copy)
    checked = ["nbd", f"uri={served.uri}"]
    run("nbdkit", "-U", "-", "--filter=checkwrite", *checked, "--run", copy)


@needs("openssl", "nbdinfo", "qemu-img")
@pytest.mark.parametrize("how", ["unix", "tcp"])
def test_tls_with_certificates_of_both_sides(
    image: Path, raw: Path, tmp_path: Path, how: str
) -> None:
    make_certificates(tmp_path)
    words: list[Any] = [
        "--tls-cert", tmp_path / "server-cert.pem", "--tls-key", tmp_path / "server-key.pem",
        "--tls-ca", tmp_path / "ca-cert.pem",
    ]  # fmt: skip
    served = Served(image, *words, *(["--port", "0"] if how == "tcp" else []))
    assert served.uri.startswith("nbds")
    uri = served.uri.replace("127.0.0.1", "localhost")
    mark = "&" if "?" in uri else "?"
    secure = f"{uri}{mark}tls-certificates={tmp_path}&tls-hostname=localhost"
    assert "with TLS" in run("nbdinfo", secure)
    run("nbdcopy", "--flush", raw, secure)
    copy = tmp_path / "copy.raw"
    run("nbdcopy", secure, copy)
    assert copy.read_bytes() == raw.read_bytes()
    run("nbdinfo", uri.replace("nbds", "nbd", 1), code=1)
    assert "TLS" in run("nbdinfo", uri.replace("nbds", "nbd", 1), code=1)
    for name in ("client-cert.pem", "client-key.pem"):
        (tmp_path / name).unlink()
    run("nbdinfo", secure, code=1)
    assert served.end() == 0
    assert "Traceback" not in served.log
    assert "connection closed" in served.log


def make_certificates(directory: Path) -> None:
    """A CA, and a certificate of it for a server and for a client."""
    subject = "/CN=localhost"
    new: list[str | Path] = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", subject]
    ca: list[str | Path] = ["-keyout", directory / "ca-key.pem", "-out", directory / "ca-cert.pem"]
    run(*new, "-x509", *ca)
    names = directory / "names"
    names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    for name in ("server", "client"):
        key, request = directory / f"{name}-key.pem", directory / f"{name}.csr"
        run(*new, "-keyout", key, "-out", request)
        run(
            "openssl", "x509", "-req", "-in", request, "-CA", directory / "ca-cert.pem",
            "-CAkey", directory / "ca-key.pem", "-CAcreateserial", "-extfile", names,
            "-out", directory / f"{name}-cert.pem",
        )  # fmt: skip


@needs("mkfs.ext4", "e2fsck", "nbdcopy", "fio")
@pytest.mark.parametrize("seed", range(3))
def test_ext4_is_clean_after_the_server_was_killed_at_a_random_moment(
    image: Path, tmp_path: Path, seed: int
) -> None:
    """A file system goes in; beside it, in another volume, everything is in motion; kill."""
    files = tmp_path / "files"
    files.mkdir()
    for number in range(40):
        (files / f"file-{number}").write_bytes(noise(number * 3000, number))
    formatted = tmp_path / "ext4.raw"
    run("mkfs.ext4", "-q", "-d", files, formatted, "60M")
    with cowfs.open(image, "w") as store:
        store.create("busy", "volume", SIZE, 4096)
    served = Served(image, "disk", "busy")
    run("nbdcopy", "--flush", formatted, served.uri)
    words = [
        "--name=x", "--ioengine=nbd", f"--uri={served.uri.replace('/disk', '/busy')}",
        "--rw=randwrite", "--iodepth=16", "--bs=4k", f"--size={SIZE}", "--fsync=20",
        "--time_based", "--runtime=60",
    ]  # fmt: skip
    load = subprocess.Popen(
        ["fio", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    moment = random.Random(seed).randrange(2, 40) * MIB
    while image.stat().st_blocks * 512 < moment + 4 * MIB:  # the load makes it grow
        assert load.poll() is None and served.process.poll() is None
    served.end(signal.SIGKILL)
    os.killpg(load.pid, signal.SIGKILL)
    load.wait()
    with cowfs.open(image) as store:
        assert store.check().ok
        with store.at("disk") as disk:
            disk.copy_out(tmp_path / "found.raw")
    found = tmp_path / "found.raw"
    os.truncate(found, formatted.stat().st_size)
    run("e2fsck", "-f", "-n", found)
    assert found.read_bytes() == formatted.read_bytes()
