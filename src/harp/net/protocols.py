"""Protocols of asyncio that do not have its classes as a base."""

from __future__ import annotations

import asyncio
from typing import cast


def as_protocol(one: object) -> asyncio.BaseProtocol:
    """Return `one`, which has the methods of a protocol, as what asyncio's types ask for.

    Transports look for methods and not for base classes; and where classes are compiled, those that have a base which
    is not are as slow as if they were interpreted.
    """
    return cast("asyncio.BaseProtocol", one)
