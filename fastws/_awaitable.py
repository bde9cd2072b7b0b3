"""An awaitable for calls that take effect at once and may also be waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Later(Generic[T]):
    """Awaitable of a future's result; dropping it costs nothing and warns of nothing.

    It has the methods of a coroutine, so that ``create_task``, ``gather`` and ``wait_for`` take it
    too.
    """

    __slots__ = ("_future", "_steps")

    def __init__(self, future: asyncio.Future[T]) -> None:
        self._future = future
        self._steps: Generator[Any, None, T] | None = None

    def __await__(self) -> Generator[Any, None, T]:
        # Shielded: one waiter that is cancelled takes nothing from the others.
        return asyncio.shield(self._future).__await__()

    def send(self, value: None) -> Any:
        if self._steps is None:
            self._steps = self.__await__()
        return self._steps.send(value)

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        if self._steps is None:
            raise kind if value is None else value
        return self._steps.throw(kind if value is None else value)

    def close(self) -> None:
        if self._steps is not None:
            self._steps.close()


class Done(Generic[T]):
    """Awaitable of a value that is there already; for calls that never have to wait."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, None, T]:
        return self._value
        yield

    def send(self, value: None) -> Any:
        raise StopIteration(self._value)

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        raise kind if value is None else value

    def close(self) -> None:
        pass
