"""Which signals end a program in order: known here to all that runs long or must tidy up."""

from __future__ import annotations

import signal


def ending_signals() -> list[signal.Signals]:
    """SIGTERM, SIGINT, and SIGHUP unless this was started to go on without its terminal (nohup)."""
    heeds_hangup = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if heeds_hangup else [])]
