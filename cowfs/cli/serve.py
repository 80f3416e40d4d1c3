"""cowfs serve: volumes as network block devices."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import quote

import click

import cowfs
from cowfs import Store
from cowfs.control import Holder, listen
from cowfs.errors import UsageError

from .arguments import dataset_argument, image_argument
from .command import command


@command(
    "serve",
    "Serve volumes as network block devices (NBD).\n\n"
    "Without DATASET, all volumes of the image. An export has the name of its volume or snapshot; "
    "snapshots are read-only. Prints the address of each and serves until Ctrl-C or SIGTERM; all "
    "that was written is on the disk then. Other commands work meanwhile: they ask this one.",
)
@image_argument
@dataset_argument("names", "[DATASET[@NAME]...]", nargs=-1)
@click.option(
    "--socket", "path", type=click.Path(), help="Unix socket to listen on.  [default: IMAGE.nbd]"
)
@click.option(
    "--port", type=click.IntRange(0, 65535), help="TCP port of this machine instead; 0: any free."
)
@click.option("--tls-cert", type=click.Path(), help="Require TLS: the certificate, in PEM form.")
@click.option("--tls-key", type=click.Path(), help="The certificate's key.")
@click.option("--tls-ca", type=click.Path(), help="Require clients' certificates of this CA.")
def run(
    image: str,
    names: tuple[str, ...],
    path: str | None,
    port: int | None,
    tls_cert: str | None,
    tls_key: str | None,
    tls_ca: str | None,
) -> None:
    from cowfs.serve import (
        Exports,
        ServingHolder,
        listen_tcp,
        listen_unix,
        names_to_serve,
        serve,
        tls_context,
    )

    if path is not None and port is not None:
        raise UsageError("--socket and --port: choose one")
    context: ssl.SSLContext | None = None
    if tls_cert is not None and tls_key is not None:
        context = tls_context(tls_cert, tls_key, tls_ca)
    elif (tls_cert, tls_key, tls_ca) != (None, None, None):
        raise UsageError("TLS needs both --tls-cert and --tls-key")
    only_snapshots = bool(names) and all("@" in name for name in names)
    with cowfs.open(image, "r" if only_snapshots else "w") as store:
        exports = Exports(store, names_to_serve(store, names))
        if port is not None:
            listener = listen_tcp(port)
        else:
            path = f"{image}.nbd" if path is None else path
            listener = listen_unix(path)

        def ready() -> None:
            for name in exports.volumes:
                print(address(listener, name, context is not None), flush=True)

        try:
            with control(store, ServingHolder(exports)):
                serve(exports, listener, context, ready=ready)
        finally:
            listener.close()
            if path is not None:
                os.unlink(path)


@contextlib.contextmanager
def control(store: Store, holder: Holder) -> Iterator[None]:
    """Have other commands ask this process; at the end, close the store."""
    server = None if store.readonly else listen(store, holder)  # many may read
    try:
        yield
    finally:
        if server is not None:
            server.pause()
        try:
            store.close()
        finally:
            if server is not None:
                server.close()


def address(listener: socket.socket, name: str, secure: bool) -> str:
    """The NBD URI of an export."""
    scheme = "nbds" if secure else "nbd"
    if listener.family == socket.AF_UNIX:
        path = quote(os.path.abspath(listener.getsockname()))
        return f"{scheme}+unix:///{quote(name)}?socket={path}"
    host, port = listener.getsockname()
    return f"{scheme}://{host}:{port}/{quote(name)}"
