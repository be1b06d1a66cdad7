"""Connections to targets, and how they fail."""

from __future__ import annotations

import asyncio
import errno

import pytest

from harp.errors import Unreachable
from harp.net.dial import Dialer
from harp.net.ports import PortTable, ProtocolFactory
from harp.net.resolve import Resolver
from harp.net.targets import Inner


def dialer() -> Dialer:
    return Dialer(PortTable(), Resolver(asyncio.get_running_loop().time), connect=1, hold=0)


async def test_an_inner_service_for_which_there_is_no_descriptor_is_unreachable() -> None:
    async def prepare() -> ProtocolFactory:
        raise OSError(errno.EMFILE, "Too many open files")

    inner = dialer()
    inner.offer_inner("control", prepare)
    with pytest.raises(Unreachable, match="Too many open files"):
        await inner.dial(Inner("control"), asyncio.Protocol)
