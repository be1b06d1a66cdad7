"""Modules that are loaded when they are needed first, because they cost start-up time and memory.

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
    """The module of that name."""
    loaded = _LOADED.get(name)
    return await asyncio.to_thread(_load, name) if loaded is None else loaded


def _load(name: str) -> ModuleType:
    with _ONE_AT_A_TIME:
        module = _LOADED[name] = import_module(name)
    return module
