"""Forged images: a seed gives a sample, damage to what it means, and checksums that are right."""

from __future__ import annotations

import functools
import random
import tempfile
from pathlib import Path

from .damage import KINDS
from .images import NAMES, Sample, make
from .judge import Wrong, judge
from .seal import Forgery


@functools.cache
def sample(name: str) -> Sample:
    return make(name)


def forged(seed: int) -> tuple[str, bytes]:
    """(name of the damage, image) of a seed. Times and ids aside, the same for the same seed."""
    chance = random.Random(seed)
    name = chance.choice(NAMES)
    damage = chance.choice(KINDS)
    forgery = Forgery(sample(name).data)
    damage(forgery, chance)
    if chance.random() < 0.1:
        chance.choice(KINDS)(forgery, chance)
    image = forgery.seal()
    return f"{damage.__name__} on {name}", image


def attack(seed: int) -> tuple[str, str]:
    """Judge the image of a seed. (Damage, verdict in a word.) Raises Wrong."""
    damage, image = forged(seed)
    with tempfile.TemporaryDirectory(prefix="cowfs-hostile-") as directory:
        path = Path(directory) / "hostile.cow"
        path.write_bytes(image)
        try:
            return damage, judge(
                path, cut=damage.startswith(("record", "operations", "log_loop"))
            ).kind
        except Wrong as wrong:
            raise Wrong(f"{damage}: {wrong}") from wrong
