"""Copying everything that still verifies out of a damaged image, and naming what does not.

The image is read as it is, below the store, which opens whole or not at all. In which order to
read: `walk.py` (trees with gaps), `moment.py` (which state of the image), `output.py` (files on the
host), `files.py` (datasets of files), `versions.py` (all the rest).
"""

from .versions import Salvage

__all__ = ["Salvage"]
