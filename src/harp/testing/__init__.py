"""For authors of ExApps: a Nextcloud stand-in and a real HaRP for their tests.

`fixture` is for tests, `pytest_plugin` provides it as the fixture `harp`, `nextcloud` and `hello` are the stand-ins.
Names are loaded when they are used, because pytest imports the plugin in every run where HaRP is installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harp.testing.fixture import Answer, HarpForTests, Level, LogLine, OcsCall, RegisteredApp, Route

__all__ = ["Answer", "HarpForTests", "Level", "LogLine", "OcsCall", "RegisteredApp", "Route"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("harp.testing.fixture"), name)
