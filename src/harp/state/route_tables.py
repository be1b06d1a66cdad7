"""The compiled routes of all ExApps: made in short turns of the loop, and bounded together."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from time import perf_counter

from harp.policy.routes import RouteTable

CAPACITY = 8192  # routes; a compiled one takes 3 to 6 KB
TURN = 0.001  # seconds of the loop's time, then others have theirs


class RouteTables:
    """Compiles tables, and lets the least used ones forget when more than `capacity` routes are compiled.

    A table that is larger than that stays alone.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._tables: OrderedDict[int, RouteTable] = OrderedDict()
        self.compiled = 0  # routes, and one for each table

    async def compile(self, table: RouteTable) -> None:
        """Return when the table is ready."""
        began = perf_counter()
        for _ in table.compiling():
            if perf_counter() - began > TURN:
                await asyncio.sleep(0)
                began = perf_counter()
        if id(table) not in self._tables:
            self._tables[id(table)] = table
            self.compiled += _weight(table)
        self._forget(table)

    def _forget(self, newest: RouteTable) -> None:
        """Let tables forget until the rest fits: the oldest first, those used since they were looked at last later."""
        newest.used = True
        while self.compiled > self._capacity and len(self._tables) > 1:
            key, table = self._tables.popitem(last=False)
            if table is newest or table.used:
                self._tables[key] = table
                table.used = table is newest
            else:
                self.compiled -= _weight(table)
                table.forget()


def _weight(table: RouteTable) -> int:
    return table.size + 1
