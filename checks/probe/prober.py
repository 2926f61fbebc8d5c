"""Runs checks: knows what all of them share, and which function makes which kind of check."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from checks.config.proxies import Proxies
from checks.model import HTTP, CheckResult, Target
from checks.probe import failures, http
from checks.probe.idle import IdleChannels
from checks.probe.request import ApiCredentials, Preparer, Trust
from checks.probe.resolver import Resolver
from checks.probe.shared import Shared
from checks.probe.sockets import Abort, KernelClock

# Each makes one check within ``Shared.timeout`` and does not raise.
KINDS: Mapping[str, Callable[[Shared, Target], CheckResult]] = {HTTP: http.check}


class Prober:
    """Runs checks, each in its caller's thread and within one timeout.

    ``timeout`` is in seconds. ``credentials`` is None when there is no API server to talk to. With
    ``reuse_connections`` a direct connection that is still good is kept for the target's next check.
    """

    def __init__(
        self,
        *,
        timeout: float,
        trust: Trust,
        credentials: ApiCredentials | None = None,
        proxies: Proxies | None = None,
        resolver: Resolver | None = None,
        reuse_connections: bool = False,
    ) -> None:
        self.kernel_clock = KernelClock()
        self._resolver = resolver or Resolver()
        self.shared = Shared(
            timeout=timeout,
            preparer=Preparer(trust, credentials, proxies or Proxies(), keeps_connections=reuse_connections),
            resolver=self._resolver,
            idle=IdleChannels() if reuse_connections else None,
            abort=Abort(),
        )

    def check(self, target: Target) -> CheckResult:
        """Check one target. This does not raise: whatever goes wrong is in the result."""
        check = KINDS.get(target.kind)
        if check is not None:
            return check(self.shared, target)
        failure = failures.unprepared(f"no kind of check is called {target.kind!r}")
        return CheckResult(
            type=target.type,
            state=failure.state,
            event=failure.event,
            phase=failure.phase,
            kind=target.kind,
            started_at=time.time(),
            finished=time.monotonic(),
        )

    def stop(self) -> None:
        """Make the checks under way end now, with an error, and close the idle connections."""
        self.shared.abort.throw()
        self._resolver.abort()
        if self.shared.idle is not None:
            self.shared.idle.close()

    def close(self) -> None:
        """Close the descriptors. No check may be under way any more."""
        self.stop()
        self.shared.abort.close()
        self.kernel_clock.close()
