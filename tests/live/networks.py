"""A network of a test's own, with a firewall in it: nothing of it is seen outside, and it ends with the block."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.live.peers import do_without, path_of

CLONE_NEWNET = 0x40000000  # os.unshare and os.setns came with Python 3.12

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def own_network() -> Iterator[None]:
    """Move this thread, and all that it starts inside the block, into a new network that is only a loopback."""
    ip = path_of("iproute2", "ip")
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(CLONE_NEWNET):
            do_without(f"a network namespace is refused: {os.strerror(ctypes.get_errno())}")
        try:
            subprocess.run([ip, "link", "set", "lo", "up"], check=True, timeout=30)
            yield
        finally:
            assert _libc.setns(before, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(before)


def drop(address: str, port: int) -> None:
    """Have the firewall drop, without a word, what is sent to `address`:`port`. Inside `own_network` alone."""
    _rule(f"ip daddr {address} tcp dport {port} drop")


@contextmanager
def cut(address: str, port: int) -> Iterator[None]:
    """Have nothing pass from or to `address`:`port` inside the block. Inside `own_network` alone."""
    drop(address, port)
    _rule(f"ip saddr {address} tcp sport {port} drop")
    try:
        yield
    finally:
        subprocess.run([path_of("nftables", "nft"), "delete", "table", "inet", "test"], check=True, timeout=30)


def _rule(rule: str) -> None:
    nft = path_of("nftables", "nft")
    if subprocess.run([nft, "add", "table", "inet", "test"], capture_output=True, timeout=30, check=False).returncode:
        pytest.skip("this kernel has no nftables")
    chain = "add chain inet test in { type filter hook input priority 0; }"
    for line in (chain, f"add rule inet test in {rule}"):
        subprocess.run([nft, line], check=True, timeout=30)
