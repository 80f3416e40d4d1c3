"""Forged images: a seed gives a sample, damage to what it means, and checksums that are right."""

from __future__ import annotations

import functools
import random
import re
import tempfile
from pathlib import Path

from .damage import KINDS
from .images import NAMES, Sample, make
from .judge import Wrong, judge
from .seal import Forgery

_CUTS = re.compile(r"\b(record|operations|log_loop|copies)")
"""Kinds of damage that may cut off the log."""


@functools.cache
def sample(name: str) -> Sample:
    return make(name)


def forged(seed: int) -> tuple[str, bytes]:
    """(names of the damage, image) of a seed. Times and ids aside, the same for the same seed."""
    chance = random.Random(seed)
    name = chance.choice(NAMES)
    damages = [chance.choice(KINDS)]
    forgery = Forgery(sample(name).data)
    damages[0](forgery, chance)
    if chance.random() < 0.1:
        damages.append(chance.choice(KINDS))
        damages[1](forgery, chance)
    image = forgery.seal()
    return f"{' and '.join(damage.__name__ for damage in damages)} on {name}", image


def attack(seed: int) -> tuple[str, str]:
    """Judge the image of a seed. (Damage, verdict in a word.) Raises Wrong."""
    damage, image = forged(seed)
    with tempfile.TemporaryDirectory(prefix="cowfs-hostile-") as directory:
        path = Path(directory) / "hostile.cow"
        path.write_bytes(image)
        try:
            return damage, judge(path, cut=bool(_CUTS.search(damage))).kind
        except Wrong as wrong:
            raise Wrong(f"{damage}: {wrong}") from wrong
