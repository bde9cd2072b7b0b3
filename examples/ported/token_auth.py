"""Who may connect: a signed token in ``Authorization: Bearer`` or, for browsers, in the query.

``python token_auth.py [PORT]`` prints a token; connect with it to ws://127.0.0.1:8765/?token=…
``/health`` is answered in plain HTTP, for whoever balances the load.
"""

import asyncio
import hashlib
import hmac
import http
import sys
import time
import urllib.parse

from fastws import Request, Response, ServerConnection, serve

SECRET = b"change this"


def sign(user: str, expires: int) -> str:
    """A token for ``user`` until ``expires``, in seconds since 1970."""
    claim = f"{user}.{expires}"
    return f"{claim}.{hmac.new(SECRET, claim.encode(), hashlib.sha256).hexdigest()}"


def user_of(token: str) -> str | None:
    """Whose ``token`` it is; ``None`` if it is nobody's, or not valid any more."""
    user, _, rest = token.partition(".")
    expires, _, _ = rest.partition(".")
    if not expires.isdigit() or not hmac.compare_digest(sign(user, int(expires)), token):
        return None
    return user if time.time() < int(expires) else None


async def admit(ws: ServerConnection, request: Request) -> Response | None:
    """``process_request``: a response to refuse, nothing to go on."""
    url = urllib.parse.urlsplit(request.path)
    if url.path == "/health":
        return ws.respond(http.HTTPStatus.OK, "fine\n")
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        token = urllib.parse.parse_qs(url.query).get("token", [""])[0]
    user = user_of(token)
    if user is None:
        response = ws.respond(http.HTTPStatus.UNAUTHORIZED, "a valid token, please\n")
        response.headers["WWW-Authenticate"] = "Bearer"
        return response
    ws.username = user
    return None


async def handler(ws: ServerConnection) -> None:
    await ws.send(f"hello {ws.username}")
    async for message in ws:
        await ws.send(message)


async def main(port: int) -> None:
    async with serve(handler, "127.0.0.1", port, process_request=admit) as server:
        print(sign("ann", int(time.time()) + 3600))
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8765))
