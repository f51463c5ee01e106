"""An event loop whose time is the test's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from durabletask_sql.clock import FakeClock


class StillLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still unless the test moves it."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._still = clock

    def time(self) -> float:
        return self._still.monotonic()

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Do what a thread would do at once: what nobody could wait for without time passing."""
        if executor is not None:
            return super().run_in_executor(executor, func, *args)
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done
