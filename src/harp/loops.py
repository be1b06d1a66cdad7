"""The event loop to run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


def event_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the loop: uvloop where there is one; asyncio does the same, slower."""
    try:
        import uvloop  # noqa: PLC0415 - not everywhere, and no command but those that serve needs it
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
