"""Sizes as people write them: `10G`, `128K`, `1.5GiB`, in binary units throughout.

`K`, `KB` and `KiB` (in any case) are all 1,024 bytes; a bare number is bytes. `parse_size` takes
what `show_size` prints, and it comes out as it went in.
"""

from __future__ import annotations

import re
from fractions import Fraction

from .errors import UsageError

UNITS = "BKMGTPE"
"""Each is 1,024 times the one before."""

LARGEST = (1 << 63) - 1
"""Bytes; what a 64-bit file offset can hold."""

ALLOWED = "sizes are written like 4096, 128K, 1.5G or 10GiB (binary units: B K M G T P E)"

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([BKMGTPE]?)(?:(?<=[KMGTPE])I?B)?", re.ASCII)


def parse_size(text: str) -> int:
    """Bytes that `text` stands for, or UsageError that says what is allowed."""
    match = _SIZE.fullmatch(text.strip().upper())
    if match is None:
        if text.strip().startswith("-"):
            raise UsageError(f"{text!r}: a size cannot be negative")
        raise UsageError(f"{text!r} is no size; {ALLOWED}")
    number, unit = match.groups()
    if "." in number and unit in ("", "B"):
        raise UsageError(f"{text!r}: bytes are whole numbers; {ALLOWED}")
    # Beyond so many digits int() itself refuses.
    size = int(Fraction(number[:40]) * 1024 ** UNITS.index(unit or "B"))
    if size > LARGEST:
        raise UsageError(f"{text!r} is too large; sizes go up to 7.99E")
    return size


def show_size(size: int) -> str:
    """`size` in the unit that leaves at most four digits: 512B, 1.5K, 128K, 10G."""
    if size < 0:
        return "-" + show_size(-size)
    power = min(max(size.bit_length() - 1, 0) // 10, len(UNITS) - 1)
    if power and _digits(size, power) == "1024" and power < len(UNITS) - 1:
        power += 1
    return _digits(size, power) + UNITS[power]


def _digits(size: int, power: int) -> str:
    """`size` in units of 1024**power: three significant digits, four where all are whole."""
    value = Fraction(size, 1024**power)
    places = 2 if value < 10 else 1 if value < 100 else 0
    text = f"{float(round(value, places)):.{places}f}"
    return text.rstrip("0").rstrip(".") if places else text
