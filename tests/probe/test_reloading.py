"""Values built from files that change: one rule for builds that fail, and no lock while a file is read."""

from __future__ import annotations

import errno
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from checks.probe.reloading import Reloading
from tests.support.servers import GENEROUS


class Builder:
    """Builds the text of a file; what it does instead is up to the test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error: Exception | None = None
        self.builds = 0
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()
        self.complaints: list[str] = []

    def __call__(self) -> str:
        """Build."""
        self.builds += 1
        self.begun.set()
        assert self.may_end.wait(GENEROUS)
        if self.error is not None:
            raise self.error
        return self.path.read_text()


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    """A builder of a file that says one."""
    path = tmp_path / "file"
    path.write_text("one")
    return Builder(path)


def reloading(builder: Builder) -> Reloading[str]:
    """What is tested."""
    return Reloading([builder.path], builder, builder.complaints.append)


def test_a_change_is_followed(builder: Builder) -> None:
    """The value is built once for each version of the file."""
    tested = reloading(builder)
    assert [tested.current() for _ in range(3)] == ["one"] * 3
    builder.path.write_text("second")
    assert [tested.current() for _ in range(3)] == ["second"] * 3
    assert builder.builds == 2


@pytest.mark.parametrize(
    ("error", "retries"),
    [(ssl.SSLError(1, "no PEM"), False), (OSError(errno.EMFILE, "no PEM"), True), (MemoryError("no PEM"), True)],
)
def test_a_failed_build(builder: Builder, error: Exception, retries: bool) -> None:
    """The value from before stays. Wrong content waits for the next change; a shortage is tried again each time."""
    tested = reloading(builder)
    tested.current()
    builder.path.write_text("second")
    builder.error = error
    assert [tested.current() for _ in range(3)] == ["one"] * 3
    assert builder.builds == 1 + (3 if retries else 1)
    assert len(builder.complaints) == 1
    assert "no PEM" in builder.complaints[0]
    builder.error = None
    assert tested.current() == ("second" if retries else "one")
    builder.path.write_text("the third")
    assert tested.current() == "the third"


def test_without_a_value_from_before(builder: Builder) -> None:
    """The first build's error is the caller's, each time until a build works; nothing is complained of."""
    tested = reloading(builder)
    builder.error = ssl.SSLError(1, "no PEM")
    for _ in range(2):
        with pytest.raises(ssl.SSLError):
            tested.current()
    builder.error = None
    assert (tested.current(), builder.complaints) == ("one", [])


def test_readers_do_not_wait_for_a_rebuild(builder: Builder) -> None:
    """While a changed file is read, other callers get the value from before at once."""
    tested = reloading(builder)
    tested.current()
    builder.path.write_text("second")
    builder.begun.clear()
    builder.may_end.clear()
    with ThreadPoolExecutor(1) as pool:
        rebuilding = pool.submit(tested.current)
        assert builder.begun.wait(GENEROUS)
        assert tested.current() == "one"
        builder.may_end.set()
        assert rebuilding.result(GENEROUS) == "second"
    assert tested.current() == "second"


def test_the_first_build_is_shared(builder: Builder) -> None:
    """Callers that come during the first build wait for it, for a bounded time, and share its value."""
    tested = reloading(builder)
    builder.may_end.clear()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(tested.current)
        assert builder.begun.wait(GENEROUS)
        others = [pool.submit(tested.current) for _ in range(3)]
        builder.may_end.set()
        assert [future.result(GENEROUS) for future in (first, *others)] == ["one"] * 4
    assert builder.builds == 1
