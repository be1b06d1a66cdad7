"""A scripted FRP client: our yamux and messages, and whatever misbehaviour a test wants."""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import TypeVar

from harp.tunnel.mux import MuxSession
from harp.tunnel.server.listener import TunnelServer
from harp.wire import frp
from harp.wire.frp import Login, LoginResp, Message, MessageReader, NewProxy, NewProxyResp, NewWorkConn, ReqWorkConn
from harp.wire.frp_ciphers import CfbDecryptor, CfbEncryptor, GcmDecryptor, GcmEncryptor
from harp.wire.frp_crypto import (
    Decryptor,
    Encryptor,
    control_key,
    control_keys,
    privilege_key,
    transcript,
)
from tests.fakes.clock import Clock
from tests.fakes.transport import Recorder

KEY = "the shared key of the tests"
M = TypeVar("M", bound=frp.Received)


def good_login(**fields: object) -> Login:
    login = Login(
        version="0.61.1",
        os="linux",
        arch="amd64",
        privilege_key=privilege_key("", 1700000000),
        timestamp=1700000000,
        metas={"token": KEY},
        pool_count=1,
    )
    for name, value in fields.items():
        setattr(login, name, value)
    return login


class Messages:
    """Messages over one recorded stream."""

    def __init__(self, end: Recorder, version: int) -> None:
        self.end = end
        self.version = version
        self.encryptor: Encryptor | None = None
        self.decryptor: Decryptor | None = None
        self._reader = MessageReader(version)
        self._taken = 0

    def send(self, message: Message) -> None:
        self.send_raw(frp.encode(message, self.version))

    def send_raw(self, plain: bytes) -> None:
        self.end.transport.write(self.encryptor.encrypt(plain) if self.encryptor else plain)

    async def next(self, kind: type[M]) -> M:
        """The next message, which must be a `kind`; a closed stream is an assertion error."""
        async with asyncio.timeout(10):
            while True:
                message = self._reader.next()
                if message is not None:
                    assert isinstance(message, kind), message
                    return message
                if len(self.end.received) == self._taken:
                    assert "end" not in self.end.events, "the server closed the stream"
                    assert "lost" not in self.end.events, "the stream is lost"
                    self.end.changed.clear()
                    await self.end.changed.wait()
                self._feed()

    def _feed(self) -> None:
        data = bytes(self.end.received[self._taken :])
        self._taken += len(data)
        self._reader.feed(self.decryptor.decrypt(data) if self.decryptor else data)

    def rest(self) -> bytes:
        """Raw bytes behind the last message."""
        self._feed()
        return self._reader.rest()

    def encrypt(self, encryptor: Encryptor, decryptor: Decryptor) -> None:
        """From here on; what came behind LoginResp is encrypted already."""
        rest = self._reader.rest()
        self.encryptor, self.decryptor = encryptor, decryptor
        if rest:
            self._reader.feed(decryptor.decrypt(rest))


class FrpClient:
    """One client; `connect`, `login`, then whatever the test asks for."""

    def __init__(
        self,
        server: TunnelServer,
        clock: Clock,
        *,
        mux: bool = True,
        version: int = 1,
        tls: ssl.SSLContext | None = None,
        first: bytes = b"",
    ) -> None:
        self.server = server
        self.mux = mux
        self.version = version
        self.run_id = ""
        self.control: Messages
        self.session: MuxSession | None = None
        self._clock = clock
        self._tls = tls
        self._first = first

    async def dial(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        port = self.server.bound_ports[0]
        if self._first:
            _, raw = await loop.create_connection(Recorder, "127.0.0.1", port)
            self._clock.transports.append(raw.transport)
            raw.transport.write(self._first)
            raw.transport.pause_reading()
            assert self._tls is not None
            transport = await loop.start_tls(raw.transport, protocol, self._tls, server_hostname="harp.nc")
            assert transport is not None
            protocol.connection_made(transport)
            return transport
        name = "harp.nc" if self._tls else None
        transport, _ = await loop.create_connection(
            lambda: protocol, "127.0.0.1", port, ssl=self._tls, server_hostname=name
        )
        self._clock.transports.append(transport)
        return transport

    async def stream(self) -> Recorder:
        """A new FRP connection: a stream, or a connection of its own."""
        if self.session is not None:
            return self.session.open(Recorder)[1]
        end = Recorder()
        await self.dial(end)
        return end

    async def connect(self) -> None:
        if self.mux:
            self.session = MuxSession(self._clock.deadlines, client=True)
            await self.dial(self.session)
        self.control = Messages(await self.stream(), self.version)

    async def try_login(self, login: Login) -> LoginResp:
        """Connect, say hello and log in; the answer, whatever it is."""
        await self.connect()
        control = self.control
        hello = frp.client_hello(bytes(32), tls=False, mux=self.mux)
        if self.version == 2:
            control.send_raw(frp.MAGIC + frp.frame(frp.FrameType.CLIENT_HELLO, hello))
        control.send(login)
        to_server: Encryptor
        from_server: Decryptor
        if self.version == 2:
            answer = await control.next(frp.HelloFrame)
            assert frp.check_server_hello(answer.payload) == ""
            client_key, server_key = control_keys("", transcript(hello, answer.payload))
            to_server, from_server = GcmEncryptor(client_key, os.urandom(12)), GcmDecryptor(server_key)
        else:
            key = control_key("")
            to_server, from_server = CfbEncryptor(key, os.urandom(16)), CfbDecryptor(key)
        response = await control.next(LoginResp)
        if not response.error:
            control.encrypt(to_server, from_server)
            self.run_id = response.run_id
        return response

    async def login(self, **fields: object) -> None:
        """Log in, and consume the request for a work stream that a pool of one brings."""
        login = good_login(**fields)
        response = await self.try_login(login)
        assert response.error == ""
        for _ in range(min(max(login.pool_count, 0), 5)):
            await self.control.next(ReqWorkConn)

    async def claim(self, name: str = "my_app", port: int = 23001, **fields: object) -> NewProxyResp:
        request = NewProxy(name, "tcp", remote_port=port)
        for field, value in fields.items():
            setattr(request, field, value)
        self.control.send(request)
        return await self.control.next(NewProxyResp)

    async def work(self, run_id: str | None = None) -> Messages:
        """Open a work stream."""
        work = Messages(await self.stream(), self.version)
        magic = frp.MAGIC if self.version == 2 else b""
        work.send_raw(magic + frp.encode(NewWorkConn(self.run_id if run_id is None else run_id), self.version))
        return work

    async def offer(self, name: str = "my_app", port: int = 23001) -> Messages:
        """Log in, claim, and open the two work streams that were asked for; gives the first."""
        await self.login()
        assert (await self.claim(name, port)).error == ""
        await self.control.next(ReqWorkConn)
        first = await self.work()
        await self.work()
        return first

    def freeze(self) -> None:
        """As a process that was stopped, or a network that was cut: nothing is read any more."""
        self._clock.transports[-1].pause_reading()

    def hang_up(self) -> None:
        """As a killed process."""
        if self.session is not None:
            self.session.abort("test")
        else:
            self.control.end.transport.abort()
