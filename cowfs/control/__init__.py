"""Live control: commands for an image that a running program holds, as a mount or a server does.

One process at a time has an image open for writing. So who holds it listens on a socket next to
the image, of the image's owner alone, and carries out what other processes ask of it: `listen` is
for who holds, a mount as well as a server, and `open_store` for who asks. The one who asks gets the
same answers and errors as from the image itself.

Read in this order: `wire.py` (what goes over the socket), `holder.py` (what is done), `server.py`,
`client.py`.
"""

from __future__ import annotations

from .client import RemoteStore, open_store
from .holder import Holder
from .server import Server, listen

__all__ = ["Holder", "RemoteStore", "Server", "listen", "open_store"]
