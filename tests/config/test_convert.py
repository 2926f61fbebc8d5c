"""Converters accept exactly what lies within their limits."""

from __future__ import annotations

import io

import pytest

from checks.config.colour import wants_colour
from checks.config.convert import duration, integer, one_of
from checks.config.selector import is_integer
from checks.config.settings import ConfigError


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1s", ""),
        ("1m", ""),
        ("30s", ""),
        ("999ms", "too short, expected a duration from 1s to 1m0s"),
        ("1m0.001s", "too long, expected a duration from 1s to 1m0s"),
    ],
)
def test_a_duration_lies_between_its_limits(text: str, problem: str) -> None:
    """Both limits are included; outside of them the message says on which side and what is expected."""
    convert = duration(1.0, 60.0)
    if problem:
        with pytest.raises(ValueError, match=f"^{problem}$"):
            convert(text)
    else:
        assert 1.0 <= convert(text) <= 60.0


@pytest.mark.parametrize("text", ["4", "11", "1_0", "\u0665", "", "-5", "1000000005"])
def test_a_number_outside_its_limits_is_refused(text: str) -> None:
    """Only plain decimal digits between the limits, both included, are a number."""
    convert = integer(5, 10, "a few")
    assert [convert("5"), convert("10"), convert("007")] == [5, 10, 7]
    with pytest.raises(ValueError, match=r"^not a number in range, expected a few from 5 to 10$"):
        convert(text)


def test_a_word_is_taken_in_any_case() -> None:
    """The word comes out in lower case; another word is answered with the words there are."""
    convert = one_of("json", "logfmt")
    assert convert("JSON") == "json"
    with pytest.raises(ValueError, match=r"^unknown, expected one of json, logfmt$"):
        convert("xml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (str(2**63 - 1), True),
        (str(2**63), False),
        (str(-(2**63)), True),
        (str(-(2**63) - 1), False),
    ],
)
def test_label_values_compare_as_64_bit_integers(text: str, *, expected: bool) -> None:
    """The range is that of Go's int64, with which Kubernetes compares label values."""
    assert is_integer(text) == expected


def test_a_configuration_error_shows_each_problem_on_a_line() -> None:
    """Text and list of the error agree."""
    error = ConfigError(("first", "second"))
    assert str(error) == "first\nsecond"


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def test_colour_is_for_terminals_that_want_it() -> None:
    """A file, NO_COLOR and a dumb terminal get none; an empty NO_COLOR says nothing."""
    assert wants_colour(Terminal(), {"NO_COLOR": "", "TERM": "xterm"})
    assert not wants_colour(io.StringIO(), {})
    assert not wants_colour(Terminal(), {"NO_COLOR": "1"})
    assert not wants_colour(Terminal(), {"TERM": "dumb"})
