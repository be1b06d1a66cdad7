"""The event loop to run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

KEPT_BLOCK = 1024 * 1024  # bytes; uvloop's buffer for a read of TLS has a quarter of that


def event_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the loop factory: uvloop's if it is installed; asyncio's does the same, slower."""
    try:
        import uvloop  # noqa: PLC0415 - not everywhere, and no command but those that serve needs it
    except ImportError:
        return asyncio.new_event_loop
    _keep_blocks()
    return uvloop.new_event_loop


def _keep_blocks() -> None:
    """Make glibc keep the memory of read buffers, which it would otherwise get and return for every read.

    Its limit for that grows with each such block that is freed (mallopt(3) about M_MMAP_THRESHOLD). Those of uvloop's
    TLS never are as they were: they shrink to what was read first.
    """
    bytearray(KEPT_BLOCK)
