"""``fastws-gateway top``: what the admin page shows, in a terminal or a pipe.

Names of users and channels come from outside: what is no printable character is not printed.
"""

from __future__ import annotations

import contextlib
import getpass
import http.client
import json
import os
import select
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlencode, urlsplit

_PATIENCE = 10.0  # seconds for an answer
_MAX_ANSWER = 16 << 20  # bytes
_CHANNELS = 100

_BARS = "▁▂▃▄▅▆▇█"
_UNITS = ("B", "KB", "MB", "GB", "TB")

CLEAR = "\x1b[H\x1b[J"
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
BOLD, SOFT, GREEN, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[36m", "\x1b[0m"


class TopError(Exception):
    """The gateway cannot be watched. ``status`` is the command's."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class Watch:
    """Asks one gateway, on one connection that is made again when it is lost.

    ``url`` is the gateway's, or that of its admin page. Raises `TopError` for what is no address.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url if "//" in url else f"http://{url}")
            port = parts.port
        except ValueError as error:
            raise TopError(f"{url}: {error}", 2) from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise TopError(f"{url}: not an http(s) address", 2)
        kind = http.client.HTTPSConnection
        self._http: http.client.HTTPConnection
        if parts.scheme == "http":
            self._http = http.client.HTTPConnection(parts.hostname, port, timeout=_PATIENCE)
        else:
            self._http = kind(parts.hostname, port, timeout=_PATIENCE)
        path = parts.path.rstrip("/").removesuffix("/admin")
        self._path = f"{path}/admin/api/"
        self.name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}"
        self._cookie = ""
        self._seen: dict[str, Any] = {}
        self.rows: list[dict[str, float]] = []

    def close(self) -> None:
        self._http.close()

    @property
    def needs_password(self) -> bool:
        """Whether one has to sign in. Raises `TopError`."""
        return not self._ask("GET", "session")["signed_in"]

    def sign_in(self, password: str) -> None:
        """Raises `TopError`: status 2 for the wrong password."""
        self._ask("POST", "login", {"password": password})

    def look(self) -> dict[str, Any]:
        """What the gateway tells now; `rows` has what it kept. Raises `TopError`."""
        known = {"since": self._seen["count"], "uid": self._seen["uid"]} if self._seen else {}
        stats = self._ask("GET", "stats?" + urlencode(known))
        try:
            if self._seen and self._seen["uid"] != stats["uid"]:
                self.rows.clear()
            columns = stats["columns"]
            self.rows += [dict(zip(columns, row, strict=True)) for row in stats["rows"]]
            del self.rows[: -stats["kept"]]
            self._seen = stats
        except (KeyError, TypeError, ValueError):
            raise TopError(f"{self.name}: this is another version's answer") from None
        return stats

    def channels(self) -> dict[str, Any]:
        """The fullest channels. Raises `TopError`."""
        return self._ask("GET", f"channels?limit={_CHANNELS}")

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        headers = {"Cookie": self._cookie} if self._cookie else {}
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body), "application/json"
        try:
            status, answer = self._exchange(method, path, data, headers)
        except (OSError, http.client.HTTPException) as error:
            self._http.close()
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise TopError(f"{self.name} does not answer: {why}") from None
        if status == 200 and isinstance(answer, dict):
            return answer
        failure = answer.get("error") if isinstance(answer, dict) else None
        said = failure.get("message", "") if isinstance(failure, dict) else ""
        if status == 404 or not said:
            raise TopError(
                f"{self.name} has no admin page here: is admin.enabled on? (status {status})"
            )
        raise TopError(f"{self.name}: {printable(str(said))}", 2 if status == 401 else 1)

    def _exchange(
        self, method: str, path: str, data: str | None, headers: dict[str, str]
    ) -> tuple[int, Any]:
        is_fresh = self._http.sock is None
        try:
            self._http.request(method, self._path + path, data, headers)
            response = self._http.getresponse()
        except ConnectionError:
            self._http.close()
            if is_fresh:
                raise
            return self._exchange(method, path, data, headers)  # it was kept open for too long
        text = response.read(_MAX_ANSWER)
        cookie = response.getheader("Set-Cookie")
        if cookie:
            self._cookie = cookie.partition(";")[0]
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, None


# -- how it looks


def printable(text: str) -> str:
    """A text without what would move a cursor, colour a terminal or turn its direction."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def _width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def fit(text: str, width: int) -> str:
    """A printable text in so many cells of a terminal: cut, or filled up."""
    text = printable(text)
    used, kept = 0, []
    cells = [_width(char) for char in text]
    whole = sum(cells) <= width
    for char, cell in zip(text, cells, strict=True):
        if used + cell > (width if whole else width - 1):
            break
        kept.append(char)
        used += cell
    if not whole and width > 0:
        kept.append("…")
        used += 1
    return "".join(kept) + " " * (width - used)


def sparkline(values: Sequence[float], width: int, least: float) -> str:
    """The last values as bars, the newest at the right; the scale ends at ``least`` or more."""
    values = values[-width:] if width > 0 else []
    most = max([least, *values])
    bars = [_BARS[min(7, max(0, round(value / most * 7)))] for value in values]
    return "".join(bars).rjust(width)


def of_bytes(value: float) -> str:
    """Bytes, with a unit."""
    unit = 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    digits = 0 if unit == 0 or value >= 100 else 1
    return f"{value:.{digits}f} {_UNITS[unit]}"


def of_time(seconds: float) -> str:
    """Seconds, in the two largest units that fit."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


# Label, column, how it is written, and the least that a scale ends at.
_LINES = (
    ("Connections", "connections", _count, 5.0),
    ("Sent /s", "sent", _count, 5.0),
    ("Received /s", "received", _count, 5.0),
    ("Channels", "channels", _count, 5.0),
    ("Subscriptions", "subscriptions", _count, 5.0),
    ("Waiting", "queued", of_bytes, 1024.0),
    ("CPU", "cpu", lambda value: f"{value:.1%}", 0.1),
    ("Memory", "memory", of_bytes, 1.0),
    ("Loop lag", "lag", lambda value: f"{value * 1000:.1f} ms", 0.01),
)
_LABEL, _FIGURE, _NUMBER = 14, 11, 13  # cells


def draw(
    watch: Watch,
    stats: dict[str, Any],
    channels: dict[str, Any],
    size: tuple[int, int],
    colour: bool,
) -> str:
    """The picture, in at most so many columns and lines."""
    width, height = max(20, size[0]), max(4, size[1])
    bold, soft, green, plain = (BOLD, SOFT, GREEN, PLAIN) if colour else ("", "", "", "")
    title = f"fastws-gateway {stats['version']}  {watch.name}"
    about = f"up {of_time(stats['uptime'])}"
    lines = [f"{bold}{fit(title, width - len(about) - 1)}{plain} {soft}{about}{plain}", ""]
    newest = watch.rows[-1] if watch.rows else {}
    room = width - _LABEL - _FIGURE - 2
    for label, column, write, least in _LINES:
        figure = write(newest[column]) if newest else "-"
        bars = sparkline([row[column] for row in watch.rows], room, least)
        text = f"{soft}{fit(label, _LABEL)}{plain}{bold}{figure:>{_FIGURE}}{plain}"
        lines.append(f"{text}  {green}{bars}{plain}")
    rows, total = channels["rows"], channels["total"]
    head = fit(f"Channels, {len(rows)} of {total}", width - _NUMBER)
    lines += ["", f"{soft}{head}{'Subscribers':>{_NUMBER}}{plain}"]
    for row in rows:
        lines.append(f"{fit(row['name'], width - _NUMBER)}{row['subscribers']:>{_NUMBER},}")
    return "\n".join(lines[:height])


def as_json(watch: Watch, stats: dict[str, Any], channels: dict[str, Any]) -> str:
    """The newest row with what does not change every second, on one line."""
    newest = watch.rows[-1] if watch.rows else {}
    known = {name: stats[name] for name in ("uid", "version", "uptime", "totals", "slowest")}
    return json.dumps({**newest, **known, "top_channels": channels["rows"]})


# -- the command


@contextmanager
def _terminal() -> Iterator[None]:
    """The other screen, without a cursor, and keys as they are pressed."""
    restore = None
    if sys.stdin.isatty():
        try:
            import termios
            import tty
        except ImportError:  # Windows: Ctrl-C ends it
            pass
        else:
            descriptor = sys.stdin.fileno()
            before = termios.tcgetattr(descriptor)
            tty.setcbreak(descriptor)
            restore = partial(termios.tcsetattr, descriptor, termios.TCSADRAIN, before)

    sys.stdout.write(_ENTER)
    try:
        yield
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        if restore is not None:
            restore()


def _quit_within(seconds: float) -> bool:
    """Wait; True as soon as q was pressed, or there is nobody who could press it any more."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if sys.platform == "win32" or not sys.stdin.isatty():
            time.sleep(left)
            return False
        if select.select([sys.stdin], [], [], left)[0]:
            pressed = os.read(sys.stdin.fileno(), 64)
            if not pressed or pressed[:1] in (b"q", b"Q", b"\x03", b"\x04"):
                return True
    return False


def password_of(configured: str) -> str:
    """The password: of the environment and the configuration, or as somebody types it."""
    if configured:
        return configured
    if not sys.stdin.isatty():
        raise TopError("there is no password: set FASTWS_ADMIN_PASSWORD", 2)
    return getpass.getpass("Admin password: ", sys.stderr)


def run(url: str, password: str, *, interval: float, once: bool, lines: bool) -> None:
    """Watch a gateway until somebody quits. ``lines``: JSON. Raises `TopError`."""
    watch = Watch(url)
    try:
        if watch.needs_password:
            password = password_of(password)
            watch.sign_in(password)
        if sys.stdout.isatty() and not once and not lines:
            with _terminal():
                _show_all(watch, password, interval)
        else:
            _print_all(watch, interval, once, lines)
    finally:
        watch.close()


def _show_all(watch: Watch, password: str, interval: float) -> None:
    """Draw until somebody quits, and over a restart of the gateway."""
    while True:
        size = shutil.get_terminal_size()
        try:
            picture = draw(watch, watch.look(), watch.channels(), size, colour=True)
        except TopError as error:
            if error.status == 2 and password:  # the session has ended
                with contextlib.suppress(TopError):
                    watch.sign_in(password)
            picture = fit(str(error), size.columns)
        sys.stdout.write(CLEAR + picture)
        sys.stdout.flush()
        if _quit_within(interval):
            return


def _print_all(watch: Watch, interval: float, once: bool, lines: bool) -> None:
    while True:
        stats, channels = watch.look(), watch.channels()
        if lines:
            text = as_json(watch, stats, channels)
        else:
            width = shutil.get_terminal_size().columns
            text = draw(watch, stats, channels, (width, 1000), colour=False)
        print(text, flush=True)
        if once:
            return
        time.sleep(interval)
