"""Visits to ExApps that have not been seen before: `python -m benchmarks.records PORT PREFIX SECONDS`."""

from __future__ import annotations

import sys

import uvloop

from benchmarks.client import connections, get, paced
from benchmarks.peers import WIDE_CROWD

RATE = 20  # a second


async def visit(port: int, prefix: str, seconds: float) -> float:
    """Ask each ExApp once, one after the other. Answers a second."""
    answered = 0
    async with connections(port, 1) as (requester,):
        async for moment in paced(RATE, int(RATE * seconds)):
            number = int(moment * RATE) % WIDE_CROWD
            answered += await requester.send(get(f"{prefix}{number}/1k")) == 200
    return answered / seconds


if __name__ == "__main__":
    print("messages/s:", uvloop.run(visit(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))))
