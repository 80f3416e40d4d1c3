"""`cowfs serve`: volumes as network block devices (NBD), for virtual machines and the kernel.

In the order of reading:

- `protocol`: every structure on the wire, declared once
- `negotiation`: the handshake as a state machine without I/O
- `connection`: bytes in, requests out, replies back
- `exports`: what is served, and when it is committed
- `holder`: what other processes may do with the image meanwhile
- `server`: listening, and an orderly end

How writes are gathered and stored is `cowfs.writeback`'s business; nothing here knows of records.
"""

from .exports import Exports
from .holder import ServingHolder
from .server import listen_tcp, listen_unix, names_to_serve, serve, tls_context

__all__ = [
    "Exports",
    "ServingHolder",
    "listen_tcp",
    "listen_unix",
    "names_to_serve",
    "serve",
    "tls_context",
]
