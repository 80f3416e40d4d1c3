"""Bytes that are no text are shown so that they can be given back; text is never changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowfs.cli.escapes import read_hex, read_text, show_hex, show_text
from cowfs.errors import UsageError


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"plain text", "plain text"),
        ("größe ✓".encode(), "größe ✓"),
        (b"a\x00b\n\t\x7f", r"a\x00b\x0a\x09\x7f"),
        (b"\xff\xfe", r"\xff\xfe"),
        (b"C:\\temp\\new", r"C:\temp\new"),
        (rb"\x41", r"\x5cx41"),
        (rb"\xzz", r"\xzz"),
        ("\u200e\u2028".encode(), r"\xe2\x80\x8e\xe2\x80\xa8"),
    ],
)
def test_odd_bytes_are_escaped_and_nothing_else(data: bytes, text: str) -> None:
    assert show_text(data) == text
    assert read_text(text) == data


@given(st.binary())
def test_what_is_shown_can_be_given_back(data: bytes) -> None:
    shown = show_text(data)
    assert shown.isprintable()
    assert read_text(shown) == data
    assert read_hex(show_hex(data)) == data


@pytest.mark.parametrize("text", ["0", "xy", "0x00", "é"])
def test_wrong_hex_says_what_hex_is(text: str) -> None:
    with pytest.raises(UsageError, match="two digits"):
        read_hex(text)
