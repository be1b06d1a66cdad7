"""Modules that are loaded when first needed, because they cost start-up time and memory.

One at a time and off the loop: two threads that import one package at the same moment may see half of it.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from threading import Lock
from types import ModuleType

_ONE_AT_A_TIME = Lock()
_LOADED: dict[str, ModuleType] = {}


async def load_module(name: str) -> ModuleType:
    """Return the module of that name, loaded off the loop."""
    loaded = _LOADED.get(name)
    return await asyncio.to_thread(load_now, name) if loaded is None else loaded


def load_now(name: str) -> ModuleType:
    """Return the module of that name, in a thread that may wait."""
    with _ONE_AT_A_TIME:
        module = _LOADED[name] = import_module(name)
    return module
