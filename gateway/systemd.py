"""What systemd hands to a service and wants to hear from it: sd_listen_fds(3), sd_notify(3).

Nothing happens where its variables are not set. They are taken out of the environment, so that no
child process believes that they are meant for it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

from gateway.config import ConfigError

_FIRST_FD = 3  # SD_LISTEN_FDS_START

INTERNAL = "internal"  # name of sockets that are for the internal server


def listening_sockets() -> dict[str, list[socket.socket]]:
    """The sockets of socket activation by name, which ``FileDescriptorName=`` sets.

    Raises `ConfigError` for what is not a listening stream socket.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    found: dict[str, list[socket.socket]] = {}
    for index in range(int(count)):
        fd = _FIRST_FD + index
        try:
            sock = socket.socket(fileno=fd)
        except OSError as error:
            raise ConfigError(f"LISTEN_FDS: descriptor {fd}: {error.strerror}") from None
        if sock.type != socket.SOCK_STREAM or not _listens(sock):
            sock.close()
            raise ConfigError(f"LISTEN_FDS: descriptor {fd} is no listening stream socket")
        sock.set_inheritable(False)
        name = names[index] if index < len(names) else ""
        found.setdefault(name, []).append(sock)
    return found


def _listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


class Notifier:
    """Tells systemd how the service is."""

    def __init__(self) -> None:
        self._path = os.environ.pop("NOTIFY_SOCKET", "")
        pid, period = os.environ.pop("WATCHDOG_PID", ""), os.environ.pop("WATCHDOG_USEC", "")
        is_ours = pid in ("", str(os.getpid())) and period.isdecimal()
        # Seconds between signs of life: half of what systemd waits, as sd_watchdog_enabled(3) says.
        self.watchdog_period = int(period) / 2e6 if self._path and is_ours else 0.0
        self._next_sign = 0.0

    def ready(self) -> None:
        """It is ready to serve, after its start or a reload."""
        self._send("READY=1")

    def reloading(self) -> None:
        """It reads its configuration again; `ready` ends that."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._send(f"STATUS={text}")

    def tick(self, now: float) -> None:
        """Give a sign of life if one is due. Called from the loop, which a hang would stop."""
        if self.watchdog_period and now >= self._next_sign:
            self._next_sign = now + self.watchdog_period
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._path:
            return
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        # systemd may be busy or gone: that is no reason to wait or to fail.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock,
        ):
            sock.sendto(message.encode(), address)
