"""Sizes come out as they went in, and a wrong one says what is allowed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowfs.errors import UsageError
from cowfs.sizes import LARGEST, parse_size, show_size

KIB = 1024


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("512B", 512),
        ("512 b", 512),
        ("128K", 128 * KIB),
        ("128k", 128 * KIB),
        ("128KB", 128 * KIB),
        ("128KiB", 128 * KIB),
        ("128 KiB", 128 * KIB),
        ("1.5GiB", 3 * KIB**3 // 2),
        ("10G", 10 * KIB**3),
        (" 2T ", 2 * KIB**4),
        ("1P", KIB**5),
        ("1E", KIB**6),
        ("0.1K", 102),
        ("007M", 7 * KIB**2),
    ],
)
def test_sizes_are_read_in_binary_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "sizes are written like"),
        ("G", "sizes are written like"),
        ("ten", "sizes are written like"),
        ("1,5G", "sizes are written like"),
        ("1_000", "sizes are written like"),
        ("1e9", "sizes are written like"),
        ("10 X", "sizes are written like"),
        ("10GG", "sizes are written like"),
        ("10iB", "sizes are written like"),
        ("5BB", "sizes are written like"),
        ("0x10", "sizes are written like"),
        ("nan", "sizes are written like"),
        ("inf", "sizes are written like"),
        ("٣K", "sizes are written like"),
        ("-1", "cannot be negative"),
        ("-5G", "cannot be negative"),
        ("1.5", "whole numbers"),
        ("1.5B", "whole numbers"),
        ("8E", "too large"),
        ("9" * 5000, "too large"),
    ],
)
def test_a_wrong_size_says_what_is_allowed(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (1, "1B"),
        (1023, "1023B"),
        (1024, "1K"),
        (1536, "1.5K"),
        (1500, "1.46K"),
        (10 * KIB, "10K"),
        (100 * KIB + 600, "101K"),
        (1023 * KIB, "1023K"),
        (KIB**2 - 1, "1M"),
        (10 * KIB**3, "10G"),
        (LARGEST, "8E"),
        (-1536, "-1.5K"),
    ],
)
def test_sizes_are_shown_short(size: int, text: str) -> None:
    assert show_size(size) == text


@given(st.integers(0, LARGEST - LARGEST // 100))
def test_what_is_shown_is_read_back_and_close(size: int) -> None:
    shown = show_size(size)
    assert show_size(parse_size(shown)) == shown
    assert abs(parse_size(shown) - size) <= size / 180 + 1  # what is read is cut to whole bytes
    assert len(shown) <= 5


@given(st.integers(1, 1023), st.sampled_from("KMGTP"))
def test_whole_numbers_of_a_unit_are_exact(number: int, unit: str) -> None:
    assert show_size(parse_size(f"{number}{unit}")) == f"{number}{unit}"
