"""Text of a server costs time in proportion to its length, never to the square of its length."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Callable
from urllib.parse import urljoin

import pytest

from checks.model import RESPONSE
from checks.probe.certificate import not_after
from checks.probe.failures import translate, wrong_status
from checks.probe.urls import LONGEST_URL, parse

PIECES = ["-eyJ", "/..", "/../a", "%", "%4", "%41", "@", ":", "a@", "[", "::", "1.", "a.", "?", "#", "é", "\ud800"]
# The longer text is this many times as long; linear work takes as many times as long, quadratic work 256 times.
TIMES = 16
# The longest line that http.client reads.
LONGEST_LINE = 65536


def redirect(text: str) -> None:
    """Follow a Location."""
    with contextlib.suppress(ValueError):
        parse(urljoin("http://user@a.test/a/b?c", text))


def url(text: str) -> None:
    """Take a URL apart."""
    for prefix in ("http://", "http://a.test/", "http://["):
        with contextlib.suppress(ValueError):
            parse((prefix + text)[:LONGEST_URL])


def not_http(text: str) -> None:
    """Put a first line that is no HTTP into words."""
    translate(http.client.BadStatusLine(text), RESPONSE, 5.0, answer_began=True, quotes=True)


def phrase(text: str) -> None:
    """Put a reason phrase into words."""
    wrong_status(500, text)


def certificate(text: str) -> None:
    """Read bytes that are no certificate."""
    with contextlib.suppress(ValueError):
        not_after(b"\x30\x84\x00\x00\xff\xff" + text.encode("utf-8", "replace"))


def seconds(work: Callable[[str], None], text: str) -> float:
    """Return the shortest CPU time of a few runs: the others were disturbed."""
    times = []
    for _ in range(5):
        begun = time.thread_time()
        for _ in range(3):
            work(text)
        times.append(time.thread_time() - begun)
    return min(times)


@pytest.mark.parametrize("piece", PIECES, ids=ascii)
@pytest.mark.parametrize("work", [redirect, url, not_http, phrase, certificate])
def test_no_text_costs_its_square(work: Callable[[str], None], piece: str) -> None:
    """Text that is 16 times as long takes far less than 256 times as long, whatever it repeats."""
    longest = LONGEST_URL if work is url else LONGEST_LINE
    short, long = (piece * (length // len(piece)) for length in (longest // TIMES, longest))
    # A fixed cost is added to both, below which a quadratic share could not matter.
    fixed = 20e-6
    for _ in range(3):
        ratio = (seconds(work, long) + fixed) / (seconds(work, short) + fixed)
        if ratio < 5 * TIMES:
            return
    raise AssertionError(f"{ratio:.0f} times as long")
