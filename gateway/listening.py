"""Where the gateway listens: TCP, Unix sockets, and sockets that systemd has opened."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path
from typing import Any

from gateway.config import UNIX_PREFIX


class UnixSocket:
    """A listening socket at a path of the file system.

    It is there with its mode from the first moment. A socket that another process has left there,
    or still listens on, is replaced at once, so that a new process can take over; any other file is
    not. Raises `OSError`.
    """

    def __init__(self, path: str, mode: int) -> None:
        self.path = Path(path)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        beside = Path(f"{path}.{os.getpid()}")
        try:
            if _exists(self.path) and not self.path.is_socket():
                raise FileExistsError(errno.EEXIST, f"{path} is there and is no socket")
            with contextlib.suppress(FileNotFoundError):
                beside.unlink()
            self.sock.bind(str(beside))
            beside.chmod(mode)
            self._inode = _inode(beside)
            self.sock.listen(socket.SOMAXCONN)  # nobody is refused between here and accepting
            beside.rename(self.path)
        except BaseException:
            self.sock.close()
            if beside.is_socket():
                beside.unlink()
            raise

    def unlink(self) -> None:
        """Remove the file, unless it is another process's by now."""
        with contextlib.suppress(OSError):
            if _inode(self.path) == self._inode:
                self.path.unlink()


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _inode(path: Path) -> tuple[int, int]:
    found = os.stat(path, follow_symlinks=False)
    return found.st_dev, found.st_ino


class Place:
    """One configured place to listen at: arguments for `fastws.serve`, and what to tidy up.

    Args:
        address: a host or IP address, or ``unix:`` and a path.
        passed: sockets from systemd, which go before all that.
    """

    def __init__(
        self,
        address: str,
        port: int,
        *,
        passed: list[socket.socket],
        reuse_port: bool,
        mode: int,
    ) -> None:
        self._unix: UnixSocket | None = None
        self.arguments: dict[str, Any]
        if passed:
            self.arguments = {"sock": passed}
        elif address.startswith(UNIX_PREFIX):
            self._unix = UnixSocket(address.removeprefix(UNIX_PREFIX), mode)
            self.arguments = {"sock": self._unix.sock}
        else:
            self.arguments = {"host": address, "port": port, "reuse_port": reuse_port}

    def names(self, sockets: tuple[socket.socket, ...]) -> list[str]:
        """Where the server's sockets listen, for logs."""
        if self._unix is not None:  # it was bound to another name
            return [f"{UNIX_PREFIX}{self._unix.path}"]
        return [_name(sock.getsockname()) for sock in sockets]

    def close(self) -> None:
        """After the server has closed its sockets, or where it could not be started."""
        if self._unix is not None:
            self._unix.sock.close()
            self._unix.unlink()


def _name(address: Any) -> str:
    if not isinstance(address, tuple):
        return f"{UNIX_PREFIX}{address}"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
