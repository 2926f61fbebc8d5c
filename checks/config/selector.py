"""The grammar of Kubernetes label selectors: a malformed selector gets a configuration error that says where.

The API server matches; this module only reads. Source: "Labels and Selectors" in the Kubernetes documentation
(https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/) and the grammar in the documentation of
``k8s.io/apimachinery/pkg/labels.Parse``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from checks.config.names import is_dns_subdomain, is_label_name, is_label_value

_TOKEN = re.compile(r"[ \t\r\n]*(==|!=|[=!(),<>]|[^=!(),<> \t\r\n]+|\Z)")
_SYMBOLS = frozenset(("=", "==", "!=", "!", "(", ")", ",", "<", ">", ""))
_INTEGER = re.compile(r"[+-]?[0-9]{1,63}")
_NAME_RULE = "at most 63 letters, digits, '-', '_' and '.', letters or digits at both ends"


def is_integer(text: str) -> bool:
    """Tell whether ``text`` is a 64-bit integer, as the API server takes ``>`` and ``<``."""
    return _INTEGER.fullmatch(text) is not None and -(2**63) <= int(text) < 2**63


def _is_label_key(text: str) -> bool:
    prefix, slash, name = text.rpartition("/")
    return is_label_name(name) and (not slash or is_dns_subdomain(prefix))


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label.

    ``operator`` is ``in``, ``notin``, ``exists``, ``!``, ``>`` or ``<``; the equality operators are sets of one value.
    ``>`` and ``<`` hold one integer.
    """

    key: str
    operator: str
    values: frozenset[str] = frozenset()


def parse_selector(text: str) -> tuple[Requirement, ...]:
    """Parse a label selector such as ``app=kubenurse,tier in (a, b),!canary``; all requirements have to be met.

    Raises:
        ValueError: with what was found, where (characters are counted from 1) and what is expected.
    """
    return _Parser(text).requirements()


class _Parser:
    """Recursive descent over the tokens: symbols, words and, at the end, the empty symbol.

    ``in`` and ``notin`` are operators by their place only, so that labels and values may have these names.
    """

    def __init__(self, text: str) -> None:
        self._tokens = [(found[1], found.start(1)) for found in _TOKEN.finditer(text)]
        self._index = 0

    def requirements(self) -> tuple[Requirement, ...]:
        if self._next() == "":
            return ()
        found = [self._requirement()]
        while self._take_if(","):
            found.append(self._requirement())
        if self._next() != "":
            raise self._unexpected("',' or the end")
        return tuple(found)

    def _requirement(self) -> Requirement:
        if self._take_if("!"):
            return Requirement(self._key(), "!")
        key = self._key()
        if self._next() in ("", ","):
            return Requirement(key, "exists")
        for symbol, operator in (("=", "in"), ("==", "in"), ("!=", "notin")):
            if self._take_if(symbol):
                return Requirement(key, operator, frozenset((self._value(),)))
        for operator in ("in", "notin"):
            if self._take_if(operator):
                return Requirement(key, operator, self._values())
        for operator in (">", "<"):
            if self._take_if(operator):
                return Requirement(key, operator, frozenset((self._integer(),)))
        raise self._unexpected("=, ==, !=, in, notin, >, <, ',' or the end")

    def _key(self) -> str:
        key = self._next()
        if key in _SYMBOLS:
            raise self._unexpected("the name of a label")
        if not _is_label_key(key):
            raise self._unexpected(f"the name of a label: [DNS-name/]name, the name {_NAME_RULE}")
        return self._take()

    def _value(self) -> str:
        """A word, or nothing at all: ``app=`` asks for the empty value."""
        value = self._next()
        if value in ("", ",", ")"):
            return ""
        if value in _SYMBOLS or not is_label_value(value):
            raise self._unexpected(f"a label's value: {_NAME_RULE}")
        return self._take()

    def _values(self) -> frozenset[str]:
        self._take_symbol("(")
        values = {self._value()}
        while self._take_if(","):
            values.add(self._value())
        self._take_symbol(")")
        return frozenset(values)

    def _integer(self) -> str:
        if not (is_label_value(self._next()) and is_integer(self._next())):
            raise self._unexpected("an integer")
        return self._take()

    def _take_symbol(self, symbol: str) -> None:
        if not self._take_if(symbol):
            raise self._unexpected(f"'{symbol}'")

    def _next(self) -> str:
        return self._tokens[self._index][0]

    def _take(self) -> str:
        self._index += 1
        return self._tokens[self._index - 1][0]

    def _take_if(self, token: str) -> bool:
        taken = self._next() == token
        self._index += taken
        return taken

    def _unexpected(self, expected: str) -> ValueError:
        token, position = self._tokens[self._index]
        found = f"'{token}'" if token else "the end"
        return ValueError(f"{found} at character {position + 1}, expected {expected}")
