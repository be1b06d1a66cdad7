"""What our own load clients are made of. wrk and h2load make the other load; see `load`."""

from __future__ import annotations

import asyncio
import gc
import re
import selectors
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar, cast

T = TypeVar("T")

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def run_precisely(work: Coroutine[None, None, T]) -> T:
    """Run on a loop whose timers are good for microseconds: select() has those; epoll and libuv count milliseconds.

    select() takes descriptors below 1024 only.
    """
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(work)


@contextmanager
def without_collector() -> Iterator[None]:
    """No pause of the client's own garbage collector inside the block."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def paced(rate: float, count: int) -> AsyncIterator[float]:
    """`count` moments at `rate` a second, on the loop's clock, each as soon as it has come.

    They follow the plan, however late we are: whoever counts from them suffers no coordinated omission.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in range(count):
        due = began + number / rate
        if (wait := due - loop.time()) > 0:
            await asyncio.sleep(wait)
        yield due


class Requester(asyncio.Protocol):
    """A keep-alive connection with one request under way at most. Answers must have a Content-Length."""

    def __init__(self) -> None:
        self._data = b""
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes) -> asyncio.Future[int]:
        """The status, once the whole answer has come."""
        self._answer = asyncio.get_running_loop().create_future()
        if self._transport.is_closing():
            self._fail()
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, blank, body = self._data.partition(b"\r\n\r\n")
        if not blank:
            return
        length = _LENGTH.search(head)
        if length is None:
            self.close()
        elif len(body) >= int(length[1]) and self._answer is not None and not self._answer.done():
            self._data = b""
            self._answer.set_result(int(head.split(b" ", 2)[1]))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail()

    def _fail(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the connection was closed before its answer was complete"))


def trusting() -> ssl.SSLContext:
    """A context for servers of ours, whose certificate is for another name."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def connect(port: int, tls: ssl.SSLContext | None = None) -> Requester:
    """A connection to 127.0.0.1:port."""
    _, requester = await asyncio.get_running_loop().create_connection(Requester, "127.0.0.1", port, ssl=tls)
    return requester


@asynccontextmanager
async def connections(port: int, count: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[list[Requester]]:
    """So many connections; closed at the end."""
    opened = [await connect(port, tls) for _ in range(count)]
    try:
        yield opened
    finally:
        for requester in opened:
            requester.close()


def get(target: str, *headers: str) -> bytes:
    """A request."""
    return "\r\n".join((f"GET {target} HTTP/1.1", "Host: bench", *headers, "", "")).encode()


async def ask_all(port: int, requests: Iterable[bytes], status: int = 200, at_once: int = 32) -> None:
    """Make every request once, over a few connections. Raises when one is not answered with `status`."""
    left = iter(requests)

    async def worker(requester: Requester) -> None:
        for request in left:
            answer = await requester.send(request)
            if answer != status:
                raise RuntimeError(f"{answer} in place of {status} for {request.partition(b' HTTP')[0]!r}")

    async with connections(port, at_once) as opened, asyncio.TaskGroup() as group:
        for requester in opened:
            group.create_task(worker(requester))


async def open_loop(
    port: int,
    request: bytes,
    *,
    rate: float,
    seconds: float,
    count: int = 16,
    connected: Callable[[], object] = lambda: None,
    tls: ssl.SSLContext | None = None,
) -> list[float]:
    """Seconds from when a request was due until its answer was complete, at a fixed rate over `count` connections.

    A request that finds all of them busy waits, and its waiting counts. Raises when an answer is not 200.
    `connected` is called when the connections are open and have been used once, before the first request is due.
    """
    loop = asyncio.get_running_loop()
    took: list[float] = []

    async with connections(port, count, tls) as opened, asyncio.TaskGroup() as group:
        due: asyncio.Queue[float | None] = asyncio.Queue()

        async def worker(requester: Requester) -> None:
            while (moment := await due.get()) is not None:
                status = await requester.send(request)
                took.append(loop.time() - moment)
                if status != 200:
                    raise RuntimeError(f"{status} at port {port}")

        for requester in opened:
            await requester.send(request)
        connected()
        for requester in opened:
            group.create_task(worker(requester))
        async for moment in paced(rate, int(rate * seconds)):
            due.put_nowait(moment)
        for _ in opened:
            due.put_nowait(None)
    return took


class WebSocket(asyncio.Protocol):
    """A WebSocket at an echo, with one short message under way at most (RFC 6455)."""

    _MASK = bytes(4)  # allowed, and XOR with it changes nothing

    def __init__(self) -> None:
        self._data = b""
        self._expected = b""  # "": the answer to the handshake
        self._done: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def open(self, target: str) -> asyncio.Future[float]:
        """Ask for the upgrade."""
        self._send(
            get(
                target,
                "Connection: Upgrade",
                "Upgrade: websocket",
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            )
        )
        return self._done

    def echo(self, message: bytes) -> asyncio.Future[float]:
        """Send up to 125 bytes. Seconds until they are back."""
        self._expected = bytes((0x82, len(message))) + message
        self._done = asyncio.get_running_loop().create_future()
        self._send(bytes((0x82, 0x80 | len(message))) + self._MASK + message)
        return self._done

    def close(self) -> None:
        self._transport.abort()

    def _send(self, data: bytes) -> None:
        self._data = b""
        self._sent = time.monotonic()  # uvloop's clock counts milliseconds
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._data += data
        complete = len(self._data) >= len(self._expected) if self._expected else b"\r\n\r\n" in self._data
        if complete and not self._done.done():
            if self._data.startswith(self._expected or b"HTTP/1.1 101 "):
                self._done.set_result(time.monotonic() - self._sent)
            else:
                self._done.set_exception(ConnectionError(f"no WebSocket: {self._data[:100]!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(ConnectionError("the WebSocket was closed"))


async def connect_websockets(port: int, target: str, count: int, at_once: int = 50) -> list[WebSocket]:
    """So many open ones."""
    loop = asyncio.get_running_loop()
    gate = asyncio.Semaphore(at_once)

    async def one() -> WebSocket:
        async with gate, asyncio.timeout(30):
            _, socket = await loop.create_connection(WebSocket, "127.0.0.1", port)
            try:
                await socket.open(target)
            except ConnectionError:
                socket.close()
                raise
            return socket

    return await asyncio.gather(*(one() for _ in range(count)))
