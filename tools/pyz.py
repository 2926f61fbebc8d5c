"""Build kubenurse as one file: ``python -m tools.pyz``, which writes dist/kubenurse.pyz.

The file is a zip archive that Python runs (PEP 441). It contains every module twice: as source, and as byte-code of one
version of Python. zipimport uses the byte-code when its magic number is that of the running Python, else the source. So
the file starts fast on that version and runs on all. The byte-code is marked as not to be checked against its source
(PEP 552), because the zip format rounds time stamps to two seconds.

The file contains kubenurse, prometheus-client and urllib3 as installed beside the Python that runs this, without the
modules that nothing imports and without comments and docstrings, and the licences of all three. The byte-code has no
annotations of functions, which nothing reads at run time. The same sources give the same bytes in any directory, at any
time and in any environment; only the versions of Python and zlib matter. The time stamps in the archive come from
SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/), by default the zip format's first second.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import marshal
import os
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from tools.reachable import Source, reachable
from tools.slim import slim

ROOT = Path(__file__).resolve().parent.parent
VENDORED = ("prometheus-client", "urllib3")
# A ConfigMap can hold 1 MiB. The difference is for its other keys and its metadata.
LARGEST_BYTES = 700_000
# Modules without byte-code: the agent does not import them, and the bytes are better spent on its start.
FOR_COMMANDS = (
    "checks/diagnosis/",
    "urllib3/http2/connection",
    "checks/kube/kubeconfig",
    "checks/cli/ask",
    "checks/cli/commands",
    "checks/cli/diagnose",
    "checks/cli/table",
)
SHEBANG = b"#!/usr/bin/env python3\n"
EARLIEST = 315_532_800  # 1980-01-01, the first time of the zip format

# Old Pythons must understand this too. The exit code is that of a wrong setting.
MAIN = b"""\
import sys

if sys.version_info < (3, 11):
    sys.stderr.write("kubenurse: Python %d.%d is too old, expected 3.11 or newer\\n" % sys.version_info[:2])
    sys.exit(2)

from checks.early import heed_signals

heed_signals()

from kubenurse import main

sys.exit(main())
"""

# Compiles the sources on stdin to contents of .pyc files that are never checked against their source (PEP 552). The
# output of marshal is reproducible since CPython 3.11 (bpo-34093, bpo-37596). It depends on which strings are interned,
# so the path is interned here.
COMPILER = """\
import ast, importlib.util, marshal, sys
magic = importlib.util.MAGIC_NUMBER + (0b01).to_bytes(4, "little")
compiled = {}
for path, source in marshal.load(sys.stdin.buffer).items():
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
    code = compile(tree, sys.intern(path), "exec", dont_inherit=True)
    compiled[path] = magic + importlib.util.source_hash(source) + marshal.dumps(code)
marshal.dump((sys.version_info[:2], compiled), sys.stdout.buffer)
"""
COMPILE_SECONDS = 120.0
OLDEST_PYTHON = (3, 11)


# The Apache licence asks for a notice of changes.
CHANGES = b"""\
The modules of kubenurse, prometheus-client and urllib3 in this file have no comments and blank docstrings; their
byte-code has no annotations of functions.
Modules that kubenurse does not import are left out. Nothing else was changed.
"""


class BuildError(Exception):
    """The file cannot be built. The message has the reason and the remedy."""


def main(argv: Sequence[str] | None = None) -> int:
    """Build the file and print its size."""
    parser = argparse.ArgumentParser(description="Build kubenurse as one file that any Python >= 3.11 runs.")
    parser.add_argument("target", nargs="?", type=Path, default=ROOT / "dist" / "kubenurse.pyz")
    parser.add_argument("--python", default=sys.executable, help="Python that compiles (default: %(default)s)")
    options = parser.parse_args(argv)
    try:
        archive, version = build(options.python, timestamp=_timestamp(os.environ))
    except BuildError as error:
        print(f"pyz: {error}", file=sys.stderr)
        return 1
    write(options.target, archive)
    print(f"{options.target}: {len(archive)} bytes, starts fastest on Python {version}")
    return 0


def build(
    python: str = sys.executable, *, root: Path = ROOT, timestamp: int = EARLIEST, largest: int = LARGEST_BYTES
) -> tuple[bytes, str]:
    """Return the archive's bytes and the version of Python on which it starts fastest, such as ``3.11``.

    ``python`` is the interpreter that compiles. ``root`` is the directory of kubenurse.py, checks/ and LICENSE.
    ``timestamp`` is the time of all entries, in seconds since the epoch. ``largest`` is the allowed number of bytes.

    Raises:
        BuildError: when a package is not installed, the interpreter does not compile, or the archive is too large.
    """
    distributions = [_distribution(name) for name in VENDORED]
    modules, files = _own(root)
    vendored: dict[str, bytes] = {}
    for distribution in distributions:
        found, licences = _installed(distribution)
        vendored |= found
        files |= licences
    needed = reachable(_sources({**modules, **vendored}), "kubenurse")
    # All of kubenurse's own modules are included, so a module that nothing imports yet is never missing.
    modules |= {path: text for path, text in vendored.items() if module_name(path) in needed}
    modules = {path: slim(text) for path, text in modules.items()}
    version, compiled = _compile(python, {path: text for path, text in modules.items() if _is_for_the_agent(path)})
    archive = SHEBANG + _zip(files | modules | compiled, timestamp)
    if len(archive) > largest:
        raise BuildError(f"{len(archive)} bytes are too many for a ConfigMap, expected at most {largest}")
    return archive, version


def write(target: Path, archive: bytes) -> None:
    """Write the archive to ``target`` atomically and executable: a start meanwhile sees the old file or the new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    beside.write_bytes(archive)
    beside.chmod(0o755)
    beside.replace(target)


def module_name(path: str) -> str:
    """Return the name of the module at ``path`` in the archive: ``checks/__init__.py`` is ``checks``."""
    return ".".join(PurePosixPath(path).with_suffix("").parts).removesuffix(".__init__")


def _timestamp(environ: Mapping[str, str]) -> int:
    text = environ.get("SOURCE_DATE_EPOCH", str(EARLIEST))
    if not text.isdecimal():
        raise BuildError(f"SOURCE_DATE_EPOCH={text!r}: not a time, expected seconds since 1970-01-01")
    return int(text)


def _is_for_the_agent(path: str) -> bool:
    """Tell whether the agent imports a module when it starts; commands that a person types may take a moment longer."""
    return not path.startswith(FOR_COMMANDS)


def _compile(python: str, modules: Mapping[str, bytes]) -> tuple[str, dict[str, bytes]]:
    """Let ``python`` compile the modules in a separate process with an empty environment.

    Without column numbers the byte-code is a third smaller and takes less memory. Tracebacks then have no carets.
    """
    command = [python, "-I", "-S", "-X", "no_debug_ranges", "-c", COMPILER]
    try:
        done = subprocess.run(
            command, input=marshal.dumps(dict(modules)), capture_output=True, timeout=COMPILE_SECONDS, check=True
        )
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise BuildError(f"{python} does not compile kubenurse, expected Python 3.11 or newer: {last}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{python} does not run, expected Python 3.11 or newer: {error}") from error
    version, compiled = marshal.loads(done.stdout)
    if version < OLDEST_PYTHON:
        raise BuildError(f"{python} is Python {version[0]}.{version[1]}, expected Python 3.11 or newer")
    return "{}.{}".format(*version), {f"{path}c": code for path, code in compiled.items()}


def _distribution(name: str) -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise BuildError(f"{name} is not installed for {sys.executable}: pip install -r requirements.txt") from error


def _own(root: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return kubenurse's modules, and its other files with the licence, by their path in the archive."""
    modules = {"__main__.py": MAIN, "kubenurse.py": (root / "kubenurse.py").read_bytes()}
    files = {"licenses/kubenurse/LICENSE": (root / "LICENSE").read_bytes(), "licenses/CHANGES.txt": CHANGES}
    for file in sorted((root / "checks").rglob("*")):
        path = file.relative_to(root).as_posix()
        if not file.is_file() or "__pycache__" in path or file.name.startswith("."):
            continue
        (modules if file.suffix == ".py" else files)[path] = file.read_bytes()
    return modules, files


def _installed(distribution: importlib.metadata.Distribution) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the modules of an installed distribution and its licences.

    Raises:
        BuildError: when there is no licence file, because we must not ship others' work without its licence.
    """
    modules: dict[str, bytes] = {}
    licences: dict[str, bytes] = {}
    for file in distribution.files or ():
        if file.suffix == ".py":
            modules[file.as_posix()] = file.read_binary()
        elif ".dist-info" in file.parts[0] and file.name.split(".")[0] in ("LICENSE", "NOTICE", "COPYING"):
            licences[f"licenses/{distribution.name}/{file.name}"] = file.read_binary()
    if not licences:
        raise BuildError(f"{distribution.name} {distribution.version} has no licence file, expected one to put inside")
    return modules, licences


def _sources(modules: Mapping[str, bytes]) -> dict[str, Source]:
    return {module_name(path): Source(text, path.endswith("__init__.py")) for path, text in modules.items()}


def _zip(files: Mapping[str, bytes], timestamp: int) -> bytes:
    """Pack the files sorted by path; entries contain nothing that depends on the user, the place or the time."""
    out = io.BytesIO()
    date = time.gmtime(max(timestamp, EARLIEST))[:6]
    with zipfile.ZipFile(out, "w") as archive:
        for path in sorted(files):
            entry = zipfile.ZipInfo(path, date)
            entry.create_system = 3  # Unix, also when built elsewhere
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[path], compresslevel=9)
    return out.getvalue()


if __name__ == "__main__":
    sys.exit(main())
