"""What our FRP client says on its connections: the control connection, and work connections with their service (F 10).

Protocols without a socket of their own: any transport carries them, and time comes from `Deadlines`.
"""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Callable
from typing import cast

import structlog

from harp.errors import PeerError
from harp.net.deadlines import NEVER, Deadlines
from harp.net.targets import Tcp, Unix
from harp.tunnel.client.frpc_config import ClientConfig, ClientProxy
from harp.wire import frp, frp_ciphers, frp_crypto
from harp.wire.frp import MessageReader

FRP_VERSION = "0.61.1"  # the release whose behaviour this client has, for the server's log
LOGIN_LIMIT = 10.0  # seconds from the Login to its answer
SILENT_CLAIM = 20.0  # seconds until a claim without answer is repeated
REFUSED_CLAIM = 30.0  # seconds until a refused one is
LINGER = 10.0  # seconds in which the server has to end a stream that our service has ended
MAX_TEXT = 200  # characters of a server's error text in our log

log = structlog.get_logger()


class WantedProxy:
    """A proxy that the server is to offer: `due` is when to ask (again), NEVER once it is offered."""

    def __init__(self, message: frp.NewProxy) -> None:
        self.message = message
        self.due = 0.0


class ControlConnection(asyncio.Protocol):
    """The control connection: logs in, claims ports, keeps alive, passes on requests for work connections.

    `ended` gets the reason of the end. `accepted` and `run_id` are set by the server's answer to the login.
    """

    def __init__(
        self,
        config: ClientConfig,
        deadlines: Deadlines,
        run_id: str,
        ready: asyncio.Event,
        start_work: Callable[[], None],
        server: str = "",
    ) -> None:
        """`server` is what the log calls it."""
        self.accepted = False
        self.unknown = False  # the server does not know our key, or has had enough of it
        self.run_id = run_id
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.deadline = NEVER
        self._config = config
        self._deadlines = deadlines
        self._ready = ready
        self._start_work = start_work
        self._server = server or text_of(config.server)
        self._transport: asyncio.Transport | None = None
        self._reader = MessageReader(version=config.wire)
        self._hellos = (b"", b"")  # payloads of version 2: ours, the server's
        self._encryptor: frp_crypto.Encryptor | None = None
        self._decryptor: frp_crypto.Decryptor | None = None
        self._claims = {
            wire_name(config, proxy): WantedProxy(
                frp.NewProxy(proxy_name=wire_name(config, proxy), proxy_type="tcp", remote_port=proxy.remote_port)
            )
            for proxy in config.proxies
        }
        self._ping_due = NEVER
        self._pong_limit = NEVER

    def work_hello(self) -> bytes:
        """Return what a work connection starts with."""
        key, timestamp = self._proof("NewWorkConns")
        message = frp.NewWorkConn(run_id=self.run_id, privilege_key=key, timestamp=timestamp)
        return (frp.MAGIC if self._config.wire == 2 else b"") + frp.encode(message, self._config.wire)

    def close(self) -> None:
        """Stop, for any reason; nothing more is sent."""
        self._deadlines.drop(self)
        self._end("stopped")
        if self._transport is not None:
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses
        config = self._config
        start = b""
        if config.wire == 2:
            hello = frp.client_hello(os.urandom(frp.RANDOM_SIZE), tls=config.tls is not None, mux=config.mux)
            self._hellos = (hello, b"")
            start = frp.MAGIC + frp.frame(frp.FrameType.CLIENT_HELLO, hello)
        self._transport.write(start + frp.encode(self._login(), config.wire))
        self.deadline = self._deadlines.now + LOGIN_LIMIT
        self._deadlines.watch(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data if self._decryptor is None else self._decryptor.decrypt(data))
            while not self.ended.done() and (message := self._reader.next()) is not None:
                self._take(message)
        except PeerError as error:
            self._end(str(error))

    def eof_received(self) -> None:
        """Our side closes as well: a stock frps 0.65 to 0.70.0 waits for it (F 10.8)."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(clean(str(exc)) if exc else "the server closed the connection")

    # Timed

    def expired(self) -> None:
        """Handle what is due: the login's answer, a Ping, its Pong, a claim."""
        now = self._deadlines.now
        if not self.accepted:
            self._end(f"no answer to the login within {LOGIN_LIMIT:g} s")
        elif now >= self._pong_limit:
            self._end(f"no Pong for {self._config.ping_timeout:g} s")
        else:
            if now >= self._ping_due:
                self._ping_due = now + self._config.ping_interval
                key, timestamp = self._proof("HeartBeats")
                self._send(frp.Ping(privilege_key=key, timestamp=timestamp))
            self._claim()

    # Inside

    def _login(self) -> frp.Login:
        config = self._config
        timestamp = int(time.time())
        machine = platform.machine().lower()
        return frp.Login(
            version=FRP_VERSION,
            hostname=platform.node(),
            os=platform.system().lower(),
            arch={"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
            user=config.user,
            privilege_key=frp_crypto.privilege_key(config.token, timestamp),
            timestamp=timestamp,
            run_id=self.run_id,
            metas=config.metas,
            pool_count=config.pool_count,
        )

    def _proof(self, scope: str) -> tuple[str, int]:
        """Key and time of a message other than Login, if the configuration asks for them (F 3)."""
        if scope not in self._config.scopes:
            return "", 0
        timestamp = int(time.time())
        return frp_crypto.privilege_key(self._config.token, timestamp), timestamp

    def _take(self, message: frp.Received) -> None:
        match message:
            case frp.HelloFrame(payload=payload) if not self.accepted:
                self._take_hello(payload)
            case frp.LoginResp() if not self.accepted:
                self._take_login(message)
            case frp.ReqWorkConn() if self.accepted:
                self._start_work()
            case frp.NewProxyResp() if self.accepted:
                self._take_claim(message)
            case frp.Pong(error=error) if self.accepted:
                if error:
                    self._end(clean(error))
                self._pong_limit = self._deadlines.now + self._config.ping_timeout
                self._rearm()
            case _ if not self.accepted:
                raise PeerError(f"frp: {type(message).__name__} instead of an answer to the login")

    def _take_hello(self, payload: bytes) -> None:
        refusal = frp.check_server_hello(payload)
        if refusal:
            self._end(clean(refusal))
        self._hellos = (self._hellos[0], payload)

    def _take_login(self, answer: frp.LoginResp) -> None:
        if answer.error:
            hint = "; is metadatas.token HaRP's shared key?" if answer.error == frp.WRONG_TOKEN else ""
            self.unknown = answer.error in (frp.WRONG_TOKEN, "banned")
            self._end(clean(answer.error) + hint)
            return
        if self._config.wire == 2 and not self._hellos[1]:
            raise PeerError("frp: LoginResp without ServerHello")
        self.run_id = answer.run_id
        self.accepted = True
        self._encrypt()
        config, now = self._config, self._deadlines.now
        self._ping_due = now + config.ping_interval
        self._pong_limit = now + config.ping_timeout if config.ping_interval != NEVER else NEVER
        log.info("tunnel connected", server=self._server, frp=clean(answer.version))
        self._claim()
        self._look_ready()

    def _encrypt(self) -> None:
        """From here on both directions are encrypted; what has arrived behind the answer is so already."""
        token = self._config.token
        if self._config.wire == 1:
            key = frp_crypto.control_key(token)
            self._encryptor = frp_ciphers.CfbEncryptor(key, os.urandom(frp_ciphers.IV_SIZE))
            self._decryptor = frp_ciphers.CfbDecryptor(key)
        else:
            ours, theirs = frp_crypto.control_keys(token, frp_crypto.transcript(*self._hellos))
            self._encryptor = frp_ciphers.GcmEncryptor(ours, os.urandom(frp_ciphers.NONCE_SIZE))
            self._decryptor = frp_ciphers.GcmDecryptor(theirs)
        self._reader.feed(self._decryptor.decrypt(self._reader.rest()))

    def _claim(self) -> None:
        """Send the claims that are due, and set the next deadline."""
        now = self._deadlines.now
        for claim in self._claims.values():
            if claim.due <= now:
                claim.due = now + SILENT_CLAIM
                self._send(claim.message)
        self._rearm()

    def _rearm(self) -> None:
        self.deadline = min(self._ping_due, self._pong_limit, *(claim.due for claim in self._claims.values()), NEVER)

    def _take_claim(self, answer: frp.NewProxyResp) -> None:
        claim = self._claims.get(answer.proxy_name)
        if claim is None:
            return
        port = claim.message.remote_port
        if answer.error:
            claim.due = self._deadlines.now + REFUSED_CLAIM
            log.warning("proxy refused", proxy=answer.proxy_name, port=port, reason=clean(answer.error))
        else:
            claim.due = NEVER
            log.info("proxy running", proxy=answer.proxy_name, port=port)
        self._rearm()
        self._look_ready()

    def _look_ready(self) -> None:
        if all(claim.due == NEVER for claim in self._claims.values()):
            self._ready.set()
        else:
            self._ready.clear()

    def _send(self, message: frp.Message) -> None:
        assert self._transport is not None
        assert self._encryptor is not None
        self._transport.write(self._encryptor.encrypt(frp.encode(message, self._config.wire)))

    def _end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)


class Work(asyncio.Protocol):
    """The tunnel's side of one work connection.

    `started` gets the server's StartWorkConn, or None when the stream ends before. From then on nothing is read until
    `attach` names the service. As in frp, the end of one direction ends both (F 5.6).
    """

    def __init__(self, hello: bytes, wire: int, deadlines: Deadlines, gone: Callable[[Work], None]) -> None:
        self.started: asyncio.Future[frp.StartWorkConn | None] = asyncio.get_running_loop().create_future()
        self.deadline = NEVER
        self._hello = hello
        self._reader = MessageReader(version=wire)
        self._deadlines = deadlines
        self._gone = gone
        self._transport: asyncio.Transport | None = None
        self._service: asyncio.Transport | None = None
        self._finishing = False

    @property
    def transport(self) -> asyncio.Transport:
        """The stream."""
        assert self._transport is not None
        return self._transport

    def attach(self, service: asyncio.Transport) -> None:
        """Bytes flow from now on, those first that came behind StartWorkConn."""
        if self._transport is None or self._transport.is_closing():
            service.abort()
            return
        self._service = service
        early = self._reader.rest()
        if early:
            service.write(early)
        self._transport.resume_reading()

    def finish(self) -> None:
        """End after the service has ended, without losing what the server has not read yet.

        What it still sends is dropped: closing now would reset the stream, and with it the end of the answer.
        """
        if self._finishing or self._transport is None or self._transport.is_closing():
            return
        self._finishing = True
        self._service = None
        if not self._transport.can_write_eof():
            self._transport.close()
            return
        self._transport.write_eof()
        self._transport.resume_reading()
        self.deadline = self._deadlines.now + LINGER
        self._deadlines.watch(self)

    def close(self) -> None:
        """End the stream now."""
        if self._transport is not None:
            self._transport.close()
        else:
            self.connection_lost(None)

    def expired(self) -> None:
        """The server had its time."""
        self.transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses
        self._transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        if self._service is not None:
            self._service.write(data)
        elif not self._finishing:
            self._reader.feed(data)
            if not self.started.done():
                self._start()

    def eof_received(self) -> None:
        if self._service is not None:
            self._service.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadlines.drop(self)
        self._gone(self)
        if not self.started.done():
            self.started.set_result(None)
        if self._service is not None and exc is not None:
            self._service.abort()
        elif self._service is not None:
            self._service.close()

    def pause_writing(self) -> None:
        if self._service is not None:
            self._service.pause_reading()

    def resume_writing(self) -> None:
        if self._service is not None:
            self._service.resume_reading()

    def _start(self) -> None:
        try:
            message = self._reader.next()
        except PeerError as error:
            message = frp.StartWorkConn(error=str(error))
        if message is None:
            return
        if not isinstance(message, frp.StartWorkConn):
            message = frp.StartWorkConn(error=f"frp: {type(message).__name__} on a work connection")
        self.transport.pause_reading()
        self.started.set_result(message)


class Service(asyncio.Protocol):
    """The local service's side of one work connection."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._work.attach(cast(asyncio.Transport, transport))

    def data_received(self, data: bytes) -> None:
        self._work.transport.write(data)

    def eof_received(self) -> None:
        """Answered by connection_lost: asyncio closes the connection."""

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            self._work.finish()
        else:
            self._work.transport.abort()

    def pause_writing(self) -> None:
        self._work.transport.pause_reading()

    def resume_writing(self) -> None:
        self._work.transport.resume_reading()


def wire_name(config: ClientConfig, proxy: ClientProxy) -> str:
    """Return a proxy's name as the server knows it: frpc itself puts the user in front."""
    return f"{config.user}.{proxy.name}" if config.user else proxy.name


def text_of(target: Tcp | Unix) -> str:
    """Return a target for people: `host:port`, or a path."""
    return f"{target.host}:{target.port}" if isinstance(target, Tcp) else target.path


def clean(text: str) -> str:
    """Return a server's words, fit for a log."""
    return "".join(character if character.isprintable() else "?" for character in text[:MAX_TEXT])
