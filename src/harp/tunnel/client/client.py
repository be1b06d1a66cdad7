"""Our own FRP client: it connects to a tunnel server and serves local services through it (F 10).

It speaks to a stock frps as well as to our server, in both protocol versions, with and without multiplexing and TLS.
One `TunnelClient` is one tunnel: it logs in, claims its ports, keeps reconnecting, and keeps its run id.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import structlog

from harp.errors import HarpError, PeerError, SettingsError, TunnelAway, Unreachable, words_of
from harp.net.deadlines import Deadlines
from harp.net.memory import Memory, glibc, resident
from harp.net.targets import Tcp, Unix
from harp.tunnel.client.frpc_config import ClientConfig, ClientTls
from harp.tunnel.client.servers import ServerAddress, Servers
from harp.tunnel.client.streams import ControlConnection, Service, Work, clean, text_of, wire_name
from harp.tunnel.mux import MuxSession
from harp.wire import frp

SERVICE_LIMIT = 10.0  # seconds for the local service to accept a connection
MAX_WORK = 4096  # work connections at once; a server that asks for more gets none
TLS_FOLLOWS = b"\x17"  # FRP's own first byte
OTHERS_LIMIT = 3.0  # seconds for connection and TLS, where there are other addresses
WINDOW = 16 << 20  # bytes in flight towards a service that keeps up, if the round trip asks for it

P = TypeVar("P", bound=asyncio.Protocol)
log = structlog.get_logger()


class TunnelClient:
    """One tunnel. `ready` is set while the server offers every configured port."""

    def __init__(self, config: ClientConfig) -> None:
        self.ready = asyncio.Event()
        self._config = config
        self._run_id = ""
        self._backoff = Backoff()
        self._servers = Servers(config.servers, config.dial_timeout)

    async def run(self) -> int:
        """Stay connected until cancelled. Returns 1 when the very first login fails and the configuration says so."""
        deadlines = Deadlines()
        deadlines.watch(Memory(deadlines, resident, glibc))
        try:
            while True:
                wait = await self._try(deadlines)
                if wait is None:
                    return 1
                await asyncio.sleep(wait)
        finally:
            self.ready.clear()
            deadlines.close()

    async def _try(self, deadlines: Deadlines) -> float | None:
        """Be connected once, to the next address; how many seconds to wait then, None to give up."""
        servers = self._servers
        try:
            place = await servers.next()
        except Unreachable as error:
            return self._failed(", ".join(map(text_of, self._config.servers)), str(error))
        session = _Session(self._config, deadlines, self._run_id, self.ready, place)
        reason = await session.run()
        self.ready.clear()
        self._run_id = session.run_id
        if session.accepted:
            log.warning("tunnel lost", reason=reason)
            servers.begin_anew()
            return self._backoff.after_loss()
        if servers.others and not session.unknown:
            log.warning("tunnel login failed, trying another address", server=str(place), reason=reason)
            return 0.0
        servers.begin_anew()
        return self._failed(str(place), reason)

    def _failed(self, server: str, reason: str) -> float | None:
        log.warning("tunnel login failed", server=server, reason=reason)
        if self._config.exit_on_failed_login and not self._run_id:
            return None
        return self._backoff.after_failure(first=not self._run_id)


class Backoff:
    """How many seconds to wait before the next attempt (F 5.2, F 10.11)."""

    def __init__(self, now: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random) -> None:
        self._now = now
        self._chance = chance  # 0 to 1
        self._failures = 0
        self._losses: deque[float] = deque()  # of the last minute

    def after_failure(self, *, first: bool) -> float:
        """No connection, or no login. `first`: there has never been one; servers and networks may still be starting."""
        start, most = (2.0, 10.0) if first else (1.0, 20.0)
        wait = min(start * 2.0 ** min(self._failures, 10), most)
        self._failures += 1
        return wait * (1 + 0.1 * self._chance())

    def after_loss(self) -> float:
        """Return how long to wait after the end of a tunnel that worked: not at all, unless it happens repeatedly."""
        self._failures = 0
        now = self._now()
        while self._losses and now - self._losses[0] > 60:
            self._losses.popleft()
        before = len(self._losses)
        self._losses.append(now)
        if not before:
            return 0.0
        if before <= 3:
            return 0.2 + 0.1 * self._chance()
        return min(2.0 ** (before - 4), 20.0) * (1 + 0.1 * self._chance())


def client_context(tls: ClientTls) -> ssl.SSLContext:
    """TLS towards a server, as frpc does it: without a CA nothing is verified. Raises SettingsError naming the file.

    A bare context: the strict mode that Python 3.13 adds to others refuses CAs of the openssl recipe (F 1.2).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    what = f"trustedCaFile {tls.ca}"
    try:
        if tls.ca:
            context.load_verify_locations(tls.ca)
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        what = f"certFile {tls.certificate} and keyFile {tls.key}"
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError([f"{what}: {_words(error)}"]) from error
    return context


class _Session:
    """One connection to the server, from the dial to its end."""

    def __init__(
        self, config: ClientConfig, deadlines: Deadlines, run_id: str, ready: asyncio.Event, place: ServerAddress
    ) -> None:
        self._config = config
        self._deadlines = deadlines
        self._link = _Link(config, deadlines, place)
        self._control = ControlConnection(config, deadlines, run_id, ready, self._start_work, str(place))
        self._tasks = asyncio.TaskGroup()
        self._works: set[Work] = set()
        self._services = {wire_name(config, proxy): proxy for proxy in config.proxies}

    @property
    def accepted(self) -> bool:
        """Return whether the server has accepted the login."""
        return self._control.accepted

    @property
    def unknown(self) -> bool:
        """Return whether the server does not know our key: others will not, either."""
        return self._control.unknown

    @property
    def run_id(self) -> str:
        """The name that the server knows us by."""
        return self._control.run_id

    async def run(self) -> str:
        """Dial, log in and serve; returns the reason of the end."""
        reason = ""
        try:
            async with self._tasks:
                try:
                    await self._link.connect()
                    await self._link.open(lambda: self._control)
                    raise TunnelAway(await self._control.ended)  # ends the tasks of work connections, too
                finally:
                    self._control.close()  # so that it starts no further ones
        except* HarpError as errors:
            reason = " ".join(str(error) for error in errors.exceptions)
        finally:
            for work in list(self._works):
                work.close()
            self._link.close(reason or "stopped")
        return reason

    def _start_work(self) -> None:
        """The server wants one more work connection."""
        if len(self._works) < MAX_WORK:
            work = Work(self._control.work_hello(), self._config.wire, self._deadlines, self._works.discard)
            self._works.add(work)
            self._tasks.create_task(self._work(work))

    async def _work(self, work: Work) -> None:
        """One work connection until bytes flow. After any failure, the stream is closed at once (F 10.6)."""
        try:
            await self._link.open(lambda: work)
            start = await work.started
            if start is not None:
                await self._serve(work, start)
        except HarpError as error:
            log.warning("work connection failed", reason=str(error))
            work.close()

    async def _serve(self, work: Work, start: frp.StartWorkConn) -> None:
        """Connect the local service and let the bytes flow. Raises Unreachable or PeerError."""
        proxy = self._services.get(start.proxy_name)
        if start.error or proxy is None:
            raise PeerError(clean(start.error) or f"the server wants {clean(start.proxy_name)!r}, which is not here")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(SERVICE_LIMIT):
                match proxy.target:
                    case Unix(path):
                        await loop.create_unix_connection(lambda: Service(work), path)
                    case Tcp(host, port):
                        await loop.create_connection(lambda: Service(work), host, port)
        except TimeoutError:
            raise Unreachable(f"{proxy.name}: {text_of(proxy.target)} does not accept connections") from None
        except OSError as error:
            raise Unreachable(f"{proxy.name}: {text_of(proxy.target)}: {_words(error)}") from error


class _Link:
    """The way to the server: one multiplexed connection, or one connection for everything that is opened."""

    def __init__(self, config: ClientConfig, deadlines: Deadlines, place: ServerAddress) -> None:
        self._config = config
        self._deadlines = deadlines
        self._place = place
        self._mux: MuxSession | None = None

    async def connect(self) -> None:
        """Be ready to open streams. Raises Unreachable or SettingsError."""
        if self._config.mux:
            self._mux = await self._dial(lambda: MuxSession(self._deadlines, client=True, window=WINDOW))
            self._mux.measure()

    async def open(self, factory: Callable[[], P]) -> P:
        """Return a stream, or a connection, with `factory()` attached. Raises Unreachable or SettingsError."""
        if self._mux is not None:
            return self._mux.open(factory)[1]
        return await self._dial(factory)

    def close(self, reason: str) -> None:
        """End what is multiplexed; single connections belong to their protocols."""
        if self._mux is not None:
            self._mux.close(reason)

    async def _dial(self, factory: Callable[[], P]) -> P:
        config, tls, place = self._config, self._config.tls, self._place
        context = None if tls is None else client_context(tls)
        name = None if tls is None else tls.server_name or place.server.host
        limit = config.dial_timeout if place.alone else min(config.dial_timeout, OTHERS_LIMIT)
        try:
            async with asyncio.timeout(limit):
                sock = await place.connect(TLS_FOLLOWS if tls is not None and tls.first_byte else b"")
                _, protocol = await asyncio.get_running_loop().create_connection(
                    factory, sock=sock, ssl=context, server_hostname=name
                )
                return protocol
        except TimeoutError:
            raise Unreachable(f"no connection within {limit:g} s") from None
        except OSError as error:
            raise Unreachable(_words(error)) from error


def _words(error: OSError) -> str:
    """Return what the system or OpenSSL says."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is refused: {error.verify_message}"
    return words_of(error)
