"""Where the program `cowfs` begins: outside the package, whose import takes a while, so that Ctrl-C
ends the program cleanly from its first moment on."""

import os
import sys


def main() -> None:
    try:
        from cowfs.cli import main as program
    except KeyboardInterrupt:
        sys.stderr.write("cowfs: interrupted\n")
        os._exit(130)
    program()
