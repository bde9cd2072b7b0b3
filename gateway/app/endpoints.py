"""Where webhooks go: an endpoint that fails is left alone for a while, and no other with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from gateway.config import ProxyOptions

# The breaker: so many failures in a row, and the backend is left alone for so many seconds.
FAILURES = 5
REST = 2.0

# Requests under way at once to one endpoint; more wait, and run into their time-out.
AT_ONCE = 256

_HEADERS = {"Content-Type": "application/json"}


class WebhookFailed(OSError):
    """The backend gave no answer that means something."""


class Endpoint:
    """One address and how it has gone there lately. ``name`` is for messages, ``clock`` monotonic.

    Nothing of it is shared with other endpoints: one that is down or slow takes nothing from them.
    """

    def __init__(self, name: str, settings: ProxyOptions, clock: Callable[[], float]) -> None:
        self.name = name
        self.settings = settings
        self.room = asyncio.Semaphore(AT_ONCE)
        self._wanted = {each.lower() for each in settings.http_headers}
        self._clock = clock
        self._in_a_row = 0
        self._rests_until = 0.0

    def check(self) -> None:
        """Raises `WebhookFailed` while the backend is left alone."""
        if self._in_a_row >= FAILURES and self._clock() < self._rests_until:
            raise WebhookFailed(f"{self.name}: the backend has failed {self._in_a_row} times")

    def note(self, *, failed: bool) -> None:
        """A call has ended."""
        self._in_a_row = self._in_a_row + 1 if failed else 0
        if self._in_a_row >= FAILURES:
            self._rests_until = self._clock() + REST

    def headers(self, clients: Mapping[str, str]) -> dict[str, str]:
        """Of a request: static ones, and of a client's those that this backend is to see.

        As with Centrifugo, a client's goes before a static one of the same name.
        """
        passed = {name: value for name, value in clients.items() if name.lower() in self._wanted}
        all_of_them = {**self.settings.http.static_headers, **passed, **_HEADERS}
        return dict({name.lower(): (name, value) for name, value in all_of_them.items()}.values())
