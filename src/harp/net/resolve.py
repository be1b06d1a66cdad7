"""Names to addresses, remembered for a short while.

Direct ExApps are reached by container name, and a container may come back with another address: so an answer is
used for `TTL` seconds and dropped as soon as a connection to it fails (A 9.1 no. 8). Look-ups run in threads of
their own: a hanging name server delays no other look-up.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from itertools import zip_longest

from harp.errors import Unreachable, words_of
from harp.net.tasks import Tasks
from harp.recent import remember

TTL = 30.0  # seconds
LIMIT = 10.0  # seconds for one look-up
MAX_NAMES = 4096

Addresses = tuple[str, ...]  # never empty


class Resolver:
    """Resolves host names, one look-up per name at a time.

    IPv4 is preferred, as containers expect (A 2.2 step 13); after the first address the families alternate.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._known: dict[str, tuple[float, Addresses]] = {}
        self._running: dict[str, asyncio.Task[Addresses]] = {}
        self._tasks = Tasks()
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="resolve")

    async def addresses(self, host: str) -> Addresses:
        """IP literals for `host`, the preferred one first. Raises Unreachable, caused by what the system says."""
        known = self._known.get(host)
        if known is not None and known[0] > self._now():
            return known[1]
        if _is_address(host):
            return (host,)
        running = self._running.get(host)
        if running is None:
            running = self._running[host] = self._tasks.start(self._look_up(host), awaited=True)
            running.add_done_callback(lambda _: self._running.pop(host, None))
        return await asyncio.shield(running)

    def forget(self, host: str) -> None:
        """The address of `host` did not answer: ask again next time."""
        self._known.pop(host, None)

    def close(self) -> None:
        """Give up running look-ups."""
        for running in self._running.values():
            running.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _look_up(self, host: str) -> Addresses:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LIMIT):
                found = await loop.run_in_executor(self._threads, _getaddrinfo, host)
        except TimeoutError as error:
            raise Unreachable(f"the name {host} was not resolved within {LIMIT:g} s") from error
        except (OSError, UnicodeError) as error:
            raise Unreachable(f"the name {host} does not resolve: {_why(error)}") from error
        remember(self._known, host, (self._now() + TTL, found), MAX_NAMES)
        return found


def spelled(host: str) -> str | bytes:
    """Return a host as socket and ssl take it without loading the tables of international names."""
    return host.encode() if host.isascii() else host


def _getaddrinfo(host: str) -> Addresses:
    found = socket.getaddrinfo(spelled(host), None, type=socket.SOCK_STREAM)
    return in_turn([(family == socket.AF_INET, str(place[0])) for family, _, _, _, place in found])


def in_turn(found: list[tuple[bool, str]]) -> Addresses:
    """Return the addresses of (is it IPv4, address).

    IPv4 and IPv6 by turns, so that one broken family costs one attempt.
    """
    families = [list(dict.fromkeys(address for v4, address in found if v4 is wanted)) for wanted in (True, False)]
    pairs = zip_longest(*families)
    return tuple(address for pair in pairs for address in pair if address is not None)


def _why(error: OSError | UnicodeError) -> str:
    return words_of(error) if isinstance(error, OSError) else "it is not a host name"


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
