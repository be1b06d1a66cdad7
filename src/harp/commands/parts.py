"""The base of commands that run several servers: either all parts run, or none."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Self


class Parts:
    """Several parts that end together, the last one first. Use it as `async with`; a subclass has `_start`."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        """Start each part, and put what ends it on `_stack`."""
        raise NotImplementedError
