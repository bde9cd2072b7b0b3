"""Where webhooks go: an endpoint that fails is left alone for a while, and no other with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from gateway.app.headers import ClientHeaders, merge
from gateway.codes import Disconnect, Disconnected, Error, Refused
from gateway.config import OnFailure, ProxyOptions

_HEADERS = {"Content-Type": "application/json"}
_NONE: Mapping[str, str] = {}


class WebhookFailed(OSError):
    """The backend gave no answer that means something.

    ``then`` is what follows from it for the client.
    """

    then: OnFailure | None = None


class BadStatus(WebhookFailed):
    """The backend answered with another status than 200."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class Endpoint:
    """One address and how it has gone there lately. ``name`` is for messages, ``clock`` monotonic.

    Nothing of it is shared with other endpoints: one that is down or slow takes nothing from them.
    """

    def __init__(self, name: str, settings: ProxyOptions, clock: Callable[[], float]) -> None:
        self.name = name
        self.settings = settings
        self.room = asyncio.Semaphore(settings.in_flight_limit)  # more wait, within their time
        self._wanted = {each.lower() for each in settings.http_headers}
        self._emulated = {each.lower() for each in settings.emulated_headers}
        self._clock = clock
        self._in_a_row = 0
        self._rests_until = 0.0

    def check(self) -> None:
        """Raises `WebhookFailed` while the backend is left alone."""
        if self._clock() < self._rests_until:
            raise self.failure(WebhookFailed(f"{self._in_a_row} failures in a row"))

    def note(self, *, failed: bool) -> None:
        """A call has ended."""
        self._in_a_row = self._in_a_row + 1 if failed else 0
        limit = self.settings.breaker_failures
        if not failed:
            self._rests_until = 0.0
        elif limit and self._in_a_row >= limit:
            self._rests_until = self._clock() + self.settings.breaker_pause

    def failure(self, error: Exception) -> WebhookFailed:
        """What is raised for an error."""
        failed = WebhookFailed(f"{self.name}: {error!r}")
        failed.then = self.settings.on_failure
        return failed

    def decision(self, status: int) -> Refused | Disconnected | None:
        """What a status of the backend means, if it is not just a failure."""
        for each in self.settings.http.status_to_code_transforms:
            if each.status_code == status:
                if each.to_error.code:
                    error = each.to_error
                    return Refused(Error(error.code, error.message, error.temporary))
                to = each.to_disconnect
                return Disconnected(Disconnect(to.code, to.reason), f"{self.name}: status {status}")
        return None

    def headers(self, clients: Mapping[str, str]) -> dict[str, str]:
        """Of a request: static ones, and of a client's those that this backend is to see.

        As with Centrifugo, of the same name a client's goes before a static one, and one of its
        opening request before one of its connect command.
        """
        request, emulated = clients, _NONE
        if isinstance(clients, ClientHeaders):
            request, emulated = clients.request, clients.emulated
        return merge(
            self.settings.http.static_headers,
            {name: value for name, value in emulated.items() if name.lower() in self._emulated},
            {name: value for name, value in request.items() if name.lower() in self._wanted},
            _HEADERS,
        )
