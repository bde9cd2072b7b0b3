"""The HTTP of webhooks. It takes aiohttp, which a gateway without webhooks does not load."""

from __future__ import annotations

import asyncio

import aiohttp

from gateway.app.base import Headers
from gateway.app.endpoints import BadStatus, Endpoint, WebhookFailed
from gateway.tracing import Tracing

_MAX_REPLY = 1 << 20


class Poster:
    """Posts JSON, over connections that are kept for the next time."""

    def __init__(self) -> None:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # endpoints have a limit each
            timeout=aiohttp.ClientTimeout(total=None),  # and a time that counts the wait for it
            cookie_jar=aiohttp.DummyCookieJar(),  # one client's cookies are not another's
        )

    async def close(self) -> None:
        """Requests that are under way fail."""
        await self._http.close()

    async def post(
        self, endpoint: Endpoint, event: str, body: bytes, headers: Headers, tracing: Tracing
    ) -> bytes:
        """What the backend answers with status 200; ``headers`` are the client's.

        Raises `OSError` for anything else.
        """
        settings, sent = endpoint.settings, endpoint.headers(headers or {})
        try:
            with tracing.ask(f"POST {event}", sent) as span:
                span.set("http.request.method", "POST")
                async with (
                    asyncio.timeout(settings.timeout or None),
                    endpoint.room,
                    self._http.post(
                        settings.endpoint, data=body, headers=sent, allow_redirects=False
                    ) as response,
                ):
                    span.set("http.response.status_code", response.status)
                    if response.status != 200:
                        raise BadStatus(response.status)
                    return await _content(response)
        except aiohttp.ClientError as error:
            raise WebhookFailed(repr(error)) from None


async def _content(response: aiohttp.ClientResponse) -> bytes:
    content = await response.content.read(_MAX_REPLY + 1)
    while len(content) <= _MAX_REPLY and (more := await response.content.read(_MAX_REPLY)):
        content += more
    if len(content) > _MAX_REPLY:
        raise WebhookFailed(f"an answer of more than {_MAX_REPLY} bytes")
    return content
