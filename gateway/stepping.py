"""Run a coroutine at once, and only make a task of it when it has to wait.

Most commands never wait: the memory engine answers at once. A task for each would cost more than
the command. `start` therefore runs the coroutine up to its first wait where it stands, and hands
what is left to a task. (`asyncio.eager_task_factory` does the same from Python 3.12 on, with a task
in any case.)

Until that first wait there is no current task: code that needs one, such as `asyncio.timeout`, has
to make its own task and await it.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from functools import partial
from typing import Any

_running: set[asyncio.Task[None]] = set()  # the loop keeps only weak references


def start(
    work: Coroutine[Any, Any, None],
    before_wait: Callable[[], None] | None = None,
    context: Context | None = None,
) -> asyncio.Task[None] | None:
    """Run ``work``. Returns None when it is done, or the task that does the rest.

    ``before_wait`` is called before each wait, to let go of what has been put aside so far. In
    ``context`` all of it runs; without one, the task gets a copy of the caller's, as any task.
    Exceptions of the part that runs at once are raised here, later ones end in the task.
    """
    try:
        waiting_for = work.send(None) if context is None else context.run(work.send, None)
    except StopIteration:
        return None
    if before_wait is not None:
        before_wait()
    task = asyncio.get_running_loop().create_task(
        _rest(work, waiting_for, before_wait), context=context
    )
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task


async def _rest(
    work: Coroutine[Any, Any, None], waiting_for: Any, before_wait: Callable[[], None] | None
) -> None:
    await _drive(work, waiting_for, before_wait)


@types.coroutine
def _drive(
    work: Coroutine[Any, Any, None], waiting_for: Any, before_wait: Callable[[], None] | None
) -> Generator[Any, Any, None]:
    """Go on with a coroutine that someone else has begun: pass its futures up to our task."""
    while True:
        try:
            yield waiting_for
        except BaseException as error:  # cancelled: the coroutine decides what to do about it
            resume = partial(work.throw, error)
        else:
            resume = partial(work.send, None)
        try:
            waiting_for = resume()
        except StopIteration:
            return
        if before_wait is not None:
            before_wait()
