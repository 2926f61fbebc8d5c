"""Requests that the sandbox's API server received, and faults that replace its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sandbox.objects import Object
from sandbox.store import KINDS

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@dataclass(frozen=True, slots=True)
class Request:
    """A received request. ``authorization`` tells whether it carried a token; the token is not kept."""

    method: str
    path: str
    query: Mapping[str, str]
    authorization: bool
    user_agent: str

    @property
    def verb(self) -> str:
        """``watch``, ``list`` or ``get``, as access rules name it."""
        if self.query.get("watch") in ("true", "1"):
            return "watch"
        return "list" if self.path.endswith(tuple(KINDS)) else "get"


@dataclass(frozen=True, slots=True)
class Fault:
    """An answer that replaces the correct one. Without a ``status`` there is no answer: the request hangs."""

    path: str
    verb: str = "*"
    status: int | None = None
    retry_after: int | None = None
    message: str = "injected fault"
    field_selector: str = "*"

    def hits(self, request: Request) -> bool:
        """Tell whether the request is to fail."""
        return (
            fnmatchcase(request.path, self.path)
            and fnmatchcase(request.verb, self.verb)
            and fnmatchcase(request.query.get("fieldSelector", ""), self.field_selector)
        )


@dataclass(slots=True)
class Faults:
    """The active faults; the first match counts. Path, verb and field selector are shell patterns."""

    active: tuple[Fault, ...] = ()

    def answer(
        self,
        path: str,
        status: int,
        *,
        verb: str = "*",
        retry_after: int | None = None,
        message: str = "injected fault",
        field_selector: str = "*",
    ) -> None:
        """Answer the requests for ``path`` with an error status."""
        self.active += (Fault(path, verb, status, retry_after, message, field_selector),)

    def hang(self, path: str, *, verb: str = "*") -> None:
        """Accept the requests for ``path`` and never answer them."""
        self.active += (Fault(path, verb),)

    def clear(self) -> None:
        """End all faults. Requests that hang already go on hanging."""
        self.active = ()


class StatusError(Exception):
    """An answer that is a Status object."""

    def __init__(self, code: int, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after

    def body(self) -> Object:
        """Return the Status object (meta/v1)."""
        details = {"retryAfterSeconds": self.retry_after} if self.retry_after is not None else {}
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": _REASONS.get(self.code, "Unknown"),
            "details": details,
            "code": self.code,
        }
