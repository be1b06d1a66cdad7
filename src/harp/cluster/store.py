"""The store where replicas find each other: a Redis or Valkey. Loaded by replicas alone, for the memory that it takes.

Every call has a limit, none is repeated here, and what fails is a StoreError with the cause and without passwords.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as StoreTimeout

from harp.errors import HarpError, words_of
from harp.settings import StoreSettings

CALL_LIMIT = 1.0  # seconds; and as much for each sentinel that may have to be asked before
MOST_SENTINELS = 8  # that are asked in one call
LONGEST_CAUSE = 160  # characters

Command = tuple[str | bytes | int, ...]


class StoreError(HarpError):
    """The store does not do what it was asked; the text says why."""


class RosterStore:
    """Asks a store. Nothing is connected before the first question."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._limit = CALL_LIMIT * (1 + min(len(settings.places), MOST_SENTINELS) * bool(settings.service))
        self._sentinel: Sentinel | None = None
        self._pool: ConnectionPool | None = None

    def __str__(self) -> str:
        return str(self._settings)

    async def ask(self, *commands: Command) -> list[Any]:
        """Return the answers to commands that are sent together. Raises StoreError."""
        with self.translated():
            async with asyncio.timeout(self._limit):
                async with Redis(connection_pool=self._connections()).pipeline(transaction=False) as pipe:
                    for command in commands:
                        pipe.execute_command(*command)
                    answers = await pipe.execute()
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # which redis-py may have swallowed, by Python 3.11's wait_for
            raise asyncio.CancelledError
        return answers

    @asynccontextmanager
    async def following(self, channel: str) -> AsyncIterator[Published]:
        """Have what is published in a channel told inside the block. Raises StoreError."""
        pubsub = Redis(connection_pool=self._connections()).pubsub(ignore_subscribe_messages=True)
        try:
            with self.translated():
                async with asyncio.timeout(self._limit):
                    await pubsub.subscribe(channel)
            yield Published(self, pubsub)
        finally:
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(self._limit):
                    await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def own_host(self) -> str:
        """Return the address of this host on the way to the store. Raises StoreError."""
        cause = "no address"
        for host, port in self._settings.places[:MOST_SENTINELS]:
            try:
                async with asyncio.timeout(self._limit):
                    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
                for family, *_, address in sorted(found, key=lambda one: one[0] != socket.AF_INET):
                    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
                        sock.connect(address)  # sends nothing
                        return str(sock.getsockname()[0])
            except OSError as error:  # TimeoutError is one
                cause = words_of(error)
        if not self._settings.places:
            return "127.0.0.1"  # it is on this host, and so are all who use it
        raise StoreError(f"our address on the way to it is not known: {cause}")

    async def close(self) -> None:
        """End the connections; the next question makes new ones."""
        pool, self._pool = self._pool, None
        sentinel, self._sentinel = self._sentinel, None
        for closing in (pool, sentinel):
            if closing is not None:
                with suppress(RedisError, OSError, TimeoutError):
                    async with asyncio.timeout(self._limit):
                        await closing.aclose()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn what redis-py and the system raise into StoreError."""
        try:
            yield
        except (TimeoutError, StoreTimeout):
            raise StoreError(f"no answer within {self._limit:g} s") from None
        except MasterNotFoundError:
            raise StoreError(f"no sentinel knows a master that is called {self._settings.service}") from None
        except RedisError as error:
            raise StoreError(_words(error)) from None
        except OSError as error:  # of files for TLS as well
            raise StoreError(words_of(error)) from None

    def _connections(self) -> ConnectionPool:
        if self._pool is None:
            self._pool = self._made()
        return self._pool

    def _made(self) -> ConnectionPool:
        settings = self._settings
        every: dict[str, Any] = {
            "socket_timeout": None,  # calls have their limit here
            "socket_connect_timeout": CALL_LIMIT,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,  # of all versions, and without notices that nobody reads
            "max_connections": 4,
        }
        secure: dict[str, Any] = {
            "ssl_ca_certs": _text(settings.ca_certs),
            "ssl_certfile": _text(settings.certificate),
            "ssl_keyfile": _text(settings.key),
        }
        login: dict[str, Any] = {
            "db": settings.database,
            "username": settings.user or None,
            "password": settings.password or None,
        }
        if settings.path:
            return ConnectionPool(UnixDomainSocketConnection, path=settings.path, **login, **every)
        if not settings.service:
            ((host, port),) = settings.places
            kind: type[Connection] = SSLConnection if settings.tls else Connection
            more = secure if settings.tls else {}
            return ConnectionPool(kind, host=host, port=port, **login, **more, **every)
        tls = {"ssl": True, **secure} if settings.tls else {}
        asking = {"username": settings.sentinel_user or None, "password": settings.sentinel_password or None}
        sentinels, keywords = settings.places[:MOST_SENTINELS], {**asking, **tls, **every, "socket_timeout": CALL_LIMIT}
        self._sentinel = Sentinel(sentinels, sentinel_kwargs=keywords)  # type: ignore[no-untyped-call]
        pool: Any = SentinelConnectionPool
        made: ConnectionPool = pool(settings.service, self._sentinel, **login, **tls, **every)
        return made


class Published:
    """What is published in a channel."""

    def __init__(self, store: RosterStore, pubsub: PubSub) -> None:
        self._store = store
        self._pubsub = pubsub

    async def next(self, seconds: float) -> bytes:
        """Return the next message, b"" when none comes in time. Raises StoreError."""
        with self._store.translated():
            message = await self._pubsub.get_message(timeout=seconds)
        return message["data"] if message else b""


def _text(path: object) -> str | None:
    return None if path is None else str(path)


def _words(error: RedisError) -> str:
    """Return the cause on one line, without the numbers of the system."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError) and not isinstance(cause, TimeoutError):
        return words_of(cause)
    return " ".join(str(error).split())[:LONGEST_CAUSE] or type(error).__name__
