"""Our FRP client's two kinds of connection, byte by byte and with a clock of our own (F 10)."""

from __future__ import annotations

import asyncio

import pytest

from harp.net.targets import Tcp, Unix
from harp.tunnel.client.frpc_config import ClientConfig, ClientProxy
from harp.tunnel.client.streams import ControlConnection, Service, Work, clean
from harp.tunnel.mux import MuxSession
from harp.wire import frp, frp_ciphers, frp_crypto
from harp.wire.frp import MessageReader
from tests.fakes.clock import Clock
from tests.fakes.transport import Recorder, memory_pair
from tests.fakes.waiting import settled

RUN_ID = "0123456789abcdef"
CONFIG = ClientConfig(
    server=Tcp("harp", 8782),
    proxies=(ClientProxy("my_app", 23001, Unix("/tmp/exapp.sock")),),
    metas={"token": "s3cret"},
)


class Server:
    """The other end of a control connection: reads what the client says, answers by hand."""

    def __init__(self, control: ControlConnection, version: int = 1, token: str = "") -> None:
        self.control = control
        self.version = version
        self.token = token
        self.wire = Recorder(half_close=True)
        self.reader = MessageReader()
        self.encryptor: frp_crypto.Encryptor | None = None
        self.decryptor: frp_crypto.Decryptor | None = None
        self.client_hello = b""
        memory_pair(control, self.wire)

    async def messages(self) -> list[frp.Received]:
        """Everything that the client has said since the last look."""
        await settled()
        data, self.wire.received = bytes(self.wire.received), bytearray()
        self.reader.feed(self.decryptor.decrypt(data) if self.decryptor else data)
        return list(iter(self.reader.next, None))

    async def say(self, *messages: frp.Message) -> None:
        data = b"".join(frp.encode(message, self.version) for message in messages)
        self.wire.transport.write(self.encryptor.encrypt(data) if self.encryptor else data)
        await settled()

    async def accept(self) -> None:
        """Take the Login and accept it, version 1."""
        await self.messages()
        await self.say(frp.LoginResp("0.61.1", RUN_ID))
        key = frp_crypto.control_key(self.token)
        self.encryptor = frp_ciphers.CfbEncryptor(key, bytes(16))
        self.decryptor = frp_ciphers.CfbDecryptor(key)


def control(clock: Clock, config: ClientConfig = CONFIG, run_id: str = "") -> ControlConnection:
    return ControlConnection(config, clock.deadlines, run_id, asyncio.Event(), lambda: None)


async def test_the_login_says_who_we_are_and_proves_the_token(clock: Clock) -> None:
    server = Server(control(clock, run_id="before"))
    (login,) = await server.messages()
    assert isinstance(login, frp.Login)
    assert login.metas == {"token": "s3cret"}
    assert (login.run_id, login.pool_count) == ("before", 1)
    assert login.privilege_key == frp_crypto.privilege_key("", login.timestamp)


async def test_after_the_login_everything_is_encrypted_and_every_port_is_claimed(clock: Clock) -> None:
    client = control(clock)
    server = Server(client)
    await server.accept()
    assert client.accepted
    assert client.run_id == RUN_ID
    assert await server.messages() == [frp.NewProxy(proxy_name="my_app", proxy_type="tcp", remote_port=23001)]


async def test_what_comes_right_behind_the_answer_to_the_login_is_encrypted_already(clock: Clock) -> None:
    requests: list[None] = []
    client = ControlConnection(CONFIG, clock.deadlines, "", asyncio.Event(), lambda: requests.append(None))
    server = Server(client)
    request = frp_ciphers.CfbEncryptor(frp_crypto.control_key(""), bytes(16)).encrypt(frp.encode(frp.ReqWorkConn(), 1))
    server.wire.transport.write(frp.encode(frp.LoginResp("0.61.1", RUN_ID), 1) + request)
    await settled()
    assert len(requests) == 1


async def test_a_refused_login_ends_with_the_servers_words(clock: Clock) -> None:
    client = control(clock)
    await Server(client).say(frp.LoginResp("0.61.1", error="banned\n\x1b[31m"))
    assert await client.ended == "banned??[31m"
    assert not client.accepted


async def test_a_server_that_does_not_answer_the_login_is_left_after_ten_seconds(clock: Clock) -> None:
    client = control(clock)
    Server(client)
    clock.move(9.9)
    assert not client.ended.done()
    clock.move(0.2)
    assert await client.ended == "no answer to the login within 10 s"


async def test_a_refused_token_is_told_with_a_hint(clock: Clock) -> None:
    client = control(clock)
    await Server(client).say(frp.LoginResp("0.61.1", error=frp.WRONG_TOKEN))
    assert await client.ended == f"{frp.WRONG_TOKEN}; is metadatas.token HaRP's shared key?"


async def test_anything_else_than_an_answer_to_the_login_is_an_error(clock: Clock) -> None:
    client = control(clock)
    await Server(client).say(frp.ReqWorkConn())
    assert await client.ended == "frp: ReqWorkConn instead of an answer to the login"


async def test_the_tunnel_is_ready_when_every_port_is_granted(clock: Clock) -> None:
    ready = asyncio.Event()
    both = (*CONFIG.proxies, ClientProxy("engine", 24001, Unix("/var/run/docker.sock")))
    config = ClientConfig(server=CONFIG.server, proxies=both)
    server = Server(ControlConnection(config, clock.deadlines, "", ready, lambda: None))
    await server.accept()
    await server.say(frp.NewProxyResp("my_app", ":23001"))
    assert not ready.is_set()
    await server.say(frp.NewProxyResp("somebody else", ":23001"), frp.NewProxyResp("engine", ":24001"))
    assert ready.is_set()


async def test_a_tunnel_without_ports_is_ready_at_once(clock: Clock) -> None:
    ready = asyncio.Event()
    server = Server(
        ControlConnection(ClientConfig(server=CONFIG.server, proxies=()), clock.deadlines, "", ready, lambda: None)
    )
    await server.accept()
    assert ready.is_set()


async def test_a_refused_claim_is_repeated_after_thirty_seconds(clock: Clock) -> None:
    server = Server(control(clock))
    await server.accept()
    claim = await server.messages()
    await server.say(frp.NewProxyResp("my_app", error="port already used"))
    clock.move(29)
    assert await server.messages() == []
    clock.move(2)
    assert await server.messages() == claim


async def test_a_claim_without_answer_is_repeated_after_twenty_seconds(clock: Clock) -> None:
    server = Server(control(clock))
    await server.accept()
    claim = await server.messages()
    clock.move(19)
    assert await server.messages() == []
    clock.move(2)
    assert await server.messages() == claim


async def test_a_granted_claim_is_not_repeated(clock: Clock) -> None:
    server = Server(control(clock))
    await server.accept()
    await server.messages()
    await server.say(frp.NewProxyResp("my_app", ":23001"))
    clock.move(1000)
    assert await server.messages() == []


async def test_a_user_stands_before_the_names_of_proxies(clock: Clock) -> None:
    server = Server(control(clock, ClientConfig(server=CONFIG.server, proxies=CONFIG.proxies, user="me")))
    await server.accept()
    (claim,) = await server.messages()
    assert isinstance(claim, frp.NewProxy)
    assert claim.proxy_name == "me.my_app"


async def test_pings_go_out_and_without_any_pong_the_session_ends(clock: Clock) -> None:
    config = ClientConfig(server=CONFIG.server, proxies=(), ping_interval=30.0, ping_timeout=90.0)
    client = control(clock, config)
    server = Server(client)
    await server.accept()
    clock.move(31)
    assert await server.messages() == [frp.Ping()]
    await server.say(frp.Pong())
    for _ in range(2):
        clock.move(31)
        assert await server.messages() == [frp.Ping()]
    assert not client.ended.done()
    clock.move(31)
    assert await client.ended == "no Pong for 90 s"


async def test_a_pong_with_an_error_ends_the_session(clock: Clock) -> None:
    client = control(clock)
    server = Server(client)
    await server.accept()
    await server.say(frp.Pong(error="token in heartbeat doesn't match"))
    assert await client.ended == "token in heartbeat doesn't match"


async def test_pings_and_work_connections_prove_the_token_where_the_configuration_says_so(clock: Clock) -> None:
    config = ClientConfig(
        server=CONFIG.server,
        proxies=(),
        token="secret",
        scopes=frozenset({"HeartBeats", "NewWorkConns"}),
        ping_interval=30.0,
    )
    client = control(clock, config)
    server = Server(client, token="secret")
    await server.accept()
    clock.move(31)
    (ping,) = await server.messages()
    reader = MessageReader()
    reader.feed(client.work_hello())
    for message in (ping, reader.next()):
        assert isinstance(message, frp.Ping | frp.NewWorkConn)
        assert message.privilege_key == frp_crypto.privilege_key("secret", message.timestamp)


async def test_the_end_of_the_control_connection_is_answered_with_ours(clock: Clock) -> None:
    """A stock frps 0.65 to 0.70.0 waits for it before the next login (F 10.8)."""
    client = control(clock)
    server = Server(client)
    await server.accept()
    server.wire.transport.close()
    assert await client.ended == "the server closed the connection"
    await server.wire.until(event="lost")


async def test_version_2_says_hello_and_derives_its_keys_from_both_hellos(clock: Clock) -> None:
    client = control(clock, ClientConfig(server=CONFIG.server, proxies=CONFIG.proxies, wire=2))
    server = Server(client, version=2)
    hello, login = await server.messages()
    assert isinstance(hello, frp.HelloFrame)
    assert isinstance(login, frp.Login)
    answer, refusal = frp.server_hello(hello.payload, bytes(32))
    assert refusal == ""
    server.wire.transport.write(frp.frame(frp.FrameType.SERVER_HELLO, answer))
    await server.say(frp.LoginResp("0.70.1", RUN_ID))
    from_client, to_client = frp_crypto.control_keys("", frp_crypto.transcript(hello.payload, answer))
    server.encryptor = frp_ciphers.GcmEncryptor(to_client, bytes(12))
    server.decryptor = frp_ciphers.GcmDecryptor(from_client)
    assert await server.messages() == [frp.NewProxy(proxy_name="my_app", proxy_type="tcp", remote_port=23001)]
    await server.say(frp.Pong(error="bye"))
    assert await client.ended == "bye"
    assert client.work_hello().startswith(frp.MAGIC)


async def test_a_refused_hello_and_a_missing_one_end_version_2(clock: Clock) -> None:
    config = ClientConfig(server=CONFIG.server, proxies=(), wire=2)
    refused = control(clock, config)
    Server(refused, version=2).wire.transport.write(
        frp.frame(frp.FrameType.SERVER_HELLO, b'{"error":"unsupported message codec"}')
    )
    assert await refused.ended == "unsupported message codec"
    missing = control(clock, config)
    await Server(missing, version=2).say(frp.LoginResp("0.70.1", RUN_ID))
    assert await missing.ended == "frp: LoginResp without ServerHello"


async def test_rubbish_ends_the_session(clock: Clock) -> None:
    client = control(clock)
    Server(client).wire.transport.write(b"HTTP/1.1 400 Bad Request\r\n")
    assert (await client.ended).startswith("frp: unknown message type b'H'")


# Work connections


class Bridge:
    """A work connection between a server's end and a service's end, all in memory."""

    def __init__(self, clock: Clock, capacity: int = 65536, *, mux: bool = False) -> None:
        self.gone: list[Work] = []
        self.work = Work(b"hello", 1, clock.deadlines, self.gone.append)
        self.server = Recorder(half_close=True)
        self.service = Recorder(half_close=True)
        self.capacity = capacity
        if mux:
            client = MuxSession(clock.deadlines, client=True)
            server = MuxSession(clock.deadlines, client=False, accept=lambda: self.server)
            memory_pair(client, server)
            client.open(lambda: self.work)
        else:
            memory_pair(self.work, self.server, capacity)

    async def start(self, behind: bytes = b"") -> None:
        """The server uses the connection; `behind` comes in the same segment."""
        self.server.transport.write(frp.encode(frp.StartWorkConn(proxy_name="my_app"), 1) + behind)
        start = await self.work.started
        assert start is not None
        assert start.proxy_name == "my_app"
        self.local, _ = memory_pair(Service(self.work), self.service, self.capacity)


async def test_a_work_connection_introduces_itself_and_waits(clock: Clock) -> None:
    bridge = Bridge(clock)
    await bridge.server.until(size=5)
    assert bridge.server.received == b"hello"
    assert not bridge.work.started.done()


async def test_bytes_right_behind_the_start_reach_the_service(clock: Clock) -> None:
    bridge = Bridge(clock)
    await bridge.start(behind=b"GET / ")
    bridge.server.transport.write(b"HTTP/1.1")
    await bridge.service.until(size=14)
    assert bridge.service.received == b"GET / HTTP/1.1"


async def test_the_services_answer_reaches_the_server_with_its_end(clock: Clock) -> None:
    bridge = Bridge(clock, mux=True)
    await bridge.server.until(event="made")
    await bridge.start()
    bridge.service.transport.write(b"answer")
    bridge.service.transport.close()
    await bridge.server.until(event="end")
    assert bridge.server.received == b"helloanswer"


async def test_an_upload_that_goes_on_behind_the_answer_does_not_reset_the_stream(clock: Clock) -> None:
    bridge = Bridge(clock, mux=True)
    await bridge.server.until(event="made")
    await bridge.start()
    bridge.service.transport.write(b"413")
    bridge.service.transport.close()
    for _ in range(100):
        bridge.server.transport.write(bytes(10000))
        await settled()
    assert bridge.server.received == b"hello413"
    assert bridge.server.events == ["made", "end"]
    bridge.server.transport.close()
    await bridge.server.until(event="lost")
    assert bridge.server.error is None
    await settled()
    assert bridge.gone == [bridge.work]


async def test_a_server_that_never_ends_its_side_is_cut_off_after_ten_seconds(clock: Clock) -> None:
    bridge = Bridge(clock, mux=True)
    await bridge.server.until(event="made")
    await bridge.start()
    bridge.service.transport.close()
    await bridge.server.until(event="end")
    clock.move(11)
    await bridge.server.until(event="lost")
    assert bridge.gone == [bridge.work]


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_slow_reader_pauses_the_other_end(clock: Clock, direction: str) -> None:
    bridge = Bridge(clock, capacity=8)
    await bridge.start()
    sender, receiver = (bridge.server, bridge.service) if direction == "up" else (bridge.service, bridge.server)
    receiver.received.clear()
    receiver.transport.pause_reading()
    sender.transport.write(bytes(100))
    await sender.until(event="pause")
    assert receiver.received == b""
    receiver.transport.resume_reading()
    await receiver.until(size=100)
    await sender.until(event="resume")


async def test_the_end_of_the_users_side_closes_the_service(clock: Clock) -> None:
    bridge = Bridge(clock)
    await bridge.start()
    bridge.server.transport.write(b"last words")
    bridge.server.transport.close()
    await bridge.service.until(event="end")
    assert bridge.service.received == b"last words"


async def test_a_lost_tunnel_stream_ends_the_service(clock: Clock) -> None:
    bridge = Bridge(clock)
    await bridge.start()
    bridge.work.transport.abort()
    await bridge.service.until(event="end")
    assert bridge.gone == [bridge.work]


async def test_a_stream_that_ends_before_its_start_is_forgotten(clock: Clock) -> None:
    bridge = Bridge(clock)
    bridge.server.transport.close()
    assert await bridge.work.started is None
    assert bridge.gone == [bridge.work]


async def test_a_stream_that_ends_while_the_service_is_connected_ends_that_again(clock: Clock) -> None:
    bridge = Bridge(clock)
    bridge.server.transport.write(frp.encode(frp.StartWorkConn(proxy_name="my_app"), 1))
    await bridge.work.started
    bridge.work.transport.close()
    memory_pair(Service(bridge.work), bridge.service)
    await bridge.service.until(event="end")


async def test_anything_but_a_start_is_an_error(clock: Clock) -> None:
    bridge = Bridge(clock)
    bridge.server.transport.write(frp.encode(frp.Pong(), 1))
    start = await bridge.work.started
    assert start is not None
    assert start.error == "frp: Pong on a work connection"


def test_text_of_a_server_is_short_and_printable_in_our_log() -> None:
    assert clean("a\nb\x1b" + "c" * 300) == "a?b?" + "c" * 196
