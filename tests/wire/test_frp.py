"""FRP messages and framings, with the vectors of F 9 C and F."""

from __future__ import annotations

import pytest

from harp.errors import PeerError
from harp.wire import frp
from harp.wire.frp import (
    CloseProxy,
    HelloFrame,
    Login,
    LoginResp,
    Message,
    MessageReader,
    NewProxy,
    NewProxyResp,
    NewWorkConn,
    Ping,
    Pong,
    ReqWorkConn,
    StartWorkConn,
    Unsupported,
)

RUN_ID = "0123456789abcdef"
LOGIN = Login(
    version="0.61.1",
    os="linux",
    arch="amd64",
    privilege_key="24920decf83f6960b80f737a28eeafc1",
    timestamp=1700000000,
    metas={"token": "s3cret"},
    pool_count=1,
)
START = StartWorkConn(proxy_name="my_app", src_addr="127.0.0.1", dst_addr="127.0.0.1", src_port=43040, dst_port=23001)
V1_VECTORS: list[tuple[Message, str]] = [
    (
        LOGIN,
        "6f00000000000000b57b2276657273696f6e223a22302e36312e31222c226f73223a226c696e7578222c2261726368223a22616d6436"
        "34222c2270726976696c6567655f6b6579223a223234393230646563663833663639363062383066373337613238656561666331222c"
        "2274696d657374616d70223a313730303030303030302c226d65746173223a7b22746f6b656e223a22733363726574227d2c22636c69"
        "656e745f73706563223a7b7d2c22706f6f6c5f636f756e74223a317d",
    ),
    (
        LoginResp(version="0.61.1", run_id=RUN_ID),
        "3100000000000000307b2276657273696f6e223a22302e36312e31222c2272756e5f6964223a2230313233343536373839616263646566"
        "227d",
    ),
    (
        LoginResp(version="0.61.1", error="banned"),
        "3100000000000000257b2276657273696f6e223a22302e36312e31222c226572726f72223a2262616e6e6564227d",
    ),
    (
        NewProxy(proxy_name="my_app", proxy_type="tcp", remote_port=23001),
        "70000000000000003e7b2270726f78795f6e616d65223a226d795f617070222c2270726f78795f74797065223a22746370222c22726"
        "56d6f74655f706f7274223a32333030317d",
    ),
    (
        NewProxyResp(proxy_name="my_app", remote_addr=":23001"),
        "32000000000000002e7b2270726f78795f6e616d65223a226d795f617070222c2272656d6f74655f61646472223a223a3233303031227d",
    ),
    (
        NewWorkConn(run_id=RUN_ID),
        "77000000000000001d7b2272756e5f6964223a2230313233343536373839616263646566227d",
    ),
    (ReqWorkConn(), "7200000000000000027b7d"),
    (
        START,
        "7300000000000000677b2270726f78795f6e616d65223a226d795f617070222c227372635f61646472223a223132372e302e302e31222c"
        "226473745f61646472223a223132372e302e302e31222c227372635f706f7274223a34333034302c226473745f706f7274223a32333030"
        "317d",
    ),
    (StartWorkConn(proxy_name="my_app"), "7300000000000000177b2270726f78795f6e616d65223a226d795f617070227d"),
    (Ping(), "6800000000000000027b7d"),
    (Pong(), "3400000000000000027b7d"),
    (CloseProxy(proxy_name="my_app"), "6300000000000000177b2270726f78795f6e616d65223a226d795f617070227d"),
]
CLIENT_HELLO = (
    b'{"bootstrap":{"transport":"tcp","tls":true,"tcpMux":true},"capabilities":{"message":{"codecs":["json"]},'
    b'"crypto":{"algorithms":["aes-256-gcm","xchacha20-poly1305"],'
    b'"clientRandom":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}}}'
)
SERVER_HELLO = (
    b'{"selected":{"message":{"codec":"json"},"crypto":{"algorithm":"aes-256-gcm",'
    b'"serverRandom":"ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="}}}'
)
SERVER_RANDOM = bytes(range(32, 64))


def read(wire: bytes, version: int | None = 1) -> frp.Received | None:
    reader = MessageReader(version)
    reader.feed(wire)
    return reader.next()


def v1(letter: bytes, body: bytes) -> bytes:
    return frp.V1_HEADER.pack(letter, len(body)) + body


@pytest.mark.parametrize(("message", "wire"), V1_VECTORS)
def test_version_1_messages_are_written_and_read_as_go_does(message: Message, wire: str) -> None:
    assert frp.encode(message, 1).hex() == wire
    assert read(bytes.fromhex(wire)) == message


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (
            LoginResp(version="0.70.0", run_id=RUN_ID),
            "001000000000003200027b2276657273696f6e223a22302e37302e30222c2272756e5f6964223a223031323334353637383961626364"
            "6566227d",
        ),
        (ReqWorkConn(), "001000000000000400077b7d"),
    ],
)
def test_version_2_messages_are_written_and_read_as_go_does(message: Message, wire: str) -> None:
    assert frp.encode(message, 2).hex() == wire
    assert read(bytes.fromhex(wire), 2) == message


def test_the_magic_makes_a_connection_version_2_wherever_it_is_cut() -> None:
    wire = bytes.fromhex("46525000020d0a001000000000001f00067b2272756e5f6964223a2230313233343536373839616263646566227d")
    for cut in range(len(wire)):
        reader = MessageReader()
        reader.feed(wire[:cut])
        assert reader.next() is None
        reader.feed(wire[cut:])
        assert reader.next() == NewWorkConn(run_id=RUN_ID)
        assert reader.version == 2


def test_without_the_magic_a_connection_is_version_1_wherever_it_is_cut() -> None:
    wire = frp.encode(LOGIN, 1)
    for cut in range(len(wire)):
        reader = MessageReader()
        reader.feed(wire[:cut])
        assert reader.next() is None
        reader.feed(wire[cut:])
        assert reader.next() == LOGIN
        assert reader.version == 1


def test_a_broken_magic_is_refused_at_its_first_wrong_byte() -> None:
    assert read(b"FRP", None) is None
    with pytest.raises(PeerError, match="magic"):
        read(b"FRQ", None)


def test_raw_bytes_behind_a_message_are_left_alone() -> None:
    reader = MessageReader(1)
    reader.feed(frp.encode(START, 1) + b"GET / HTTP/1.1\r\n")
    assert reader.next() == START
    assert reader.rest() == b"GET / HTTP/1.1\r\n"
    assert reader.rest() == b""


def test_several_messages_in_one_piece_come_one_by_one() -> None:
    reader = MessageReader(1)
    reader.feed(frp.encode(Ping(), 1) + frp.encode(CloseProxy("a"), 1))
    assert [reader.next(), reader.next(), reader.next()] == [Ping(), CloseProxy("a"), None]


def test_an_unknown_type_is_refused_before_its_length() -> None:
    with pytest.raises(PeerError, match="unknown message type"):
        read(b"x")


@pytest.mark.parametrize("length", [10241, -1, 1 << 62])
def test_a_length_over_the_limit_or_negative_is_refused_before_the_body(length: int) -> None:
    with pytest.raises(PeerError, match="limit 10240"):
        read(frp.V1_HEADER.pack(b"o", length))


def test_a_body_of_exactly_the_limit_is_read() -> None:
    body = b'{"version":"' + b"1" * (frp.V1_LIMIT - 14) + b'"}'
    assert isinstance(read(v1(b"o", body)), Login)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"version":1}',
        b'{"metas":{"token":1}}',
        b'{"pool_count":"many"}',
        b'{"pool_count":1.5}',
        b'{"version":"\xff"}',
        b'{"a":' + b"[" * 9000,
        b'{"pool_count":' + b"9" * 9000 + b"}",
    ],
)
def test_json_that_is_no_login_is_refused(body: bytes) -> None:
    with pytest.raises(PeerError, match="frp: Login"):
        read(v1(b"o", body))


def test_unknown_fields_are_ignored() -> None:
    assert read(v1(b"p", b'{"proxy_name":"a","custom_domains":["x"],"new":{"a":[1]}}')) == NewProxy("a")


def test_messages_we_have_no_use_for_are_recognised_if_their_json_is_sound() -> None:
    assert read(v1(b"v", b'{"run_id":"x"}')) == Unsupported("NewVisitorConn")
    assert read(frp.frame(frp.FrameType.MESSAGE, b"\x00\x0d{}"), 2) == Unsupported("UDPPacket")
    with pytest.raises(PeerError, match="NewVisitorConn"):
        read(v1(b"v", b"nonsense"))


@pytest.mark.parametrize(
    "wire",
    [
        "0003000000000002",  # frame type
        "0010000100000004",  # flags
        "0010000000010001",  # length
        "001000000000000400637b7d",  # message id 99
        "00100000000000017b",  # no room for an id
    ],
)
def test_a_version_2_frame_that_breaks_the_rules_is_refused(wire: str) -> None:
    with pytest.raises(PeerError, match="frp: "):
        read(bytes.fromhex(wire), 2)


def test_hellos_keep_their_exact_bytes() -> None:
    assert read(bytes.fromhex("00010000000000e4") + CLIENT_HELLO, 2) == HelloFrame(client=True, payload=CLIENT_HELLO)
    assert read(bytes.fromhex("000200000000008c") + SERVER_HELLO, 2) == HelloFrame(client=False, payload=SERVER_HELLO)


def test_a_client_hello_is_answered_with_aes_256_gcm() -> None:
    assert frp.server_hello(CLIENT_HELLO, SERVER_RANDOM) == (SERVER_HELLO, "")
    assert frp.check_server_hello(SERVER_HELLO) == ""


def test_our_client_hello_offers_what_our_server_takes() -> None:
    payload = frp.client_hello(bytes(range(32)), tls=True, mux=True)
    assert payload == CLIENT_HELLO.replace(b',"xchacha20-poly1305"', b"")
    assert frp.server_hello(payload, SERVER_RANDOM) == (SERVER_HELLO, "")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'["json"]', b'["cbor"]', "unsupported message codec"),
        (b"AAECAwQF", b"", "clientRandom must be 32 bytes"),
        (b"AAECAwQF", b"!!!!!!!!", "clientRandom must be 32 bytes"),
        (b'"aes-256-gcm",', b"", "no supported crypto algorithm"),
    ],
)
def test_a_client_hello_without_common_ground_is_refused(old: bytes, new: bytes, reason: str) -> None:
    payload, refusal = frp.server_hello(CLIENT_HELLO.replace(old, new), SERVER_RANDOM)
    assert refusal == reason
    assert frp.check_server_hello(payload) == reason


def test_hellos_that_are_not_json_are_refused() -> None:
    with pytest.raises(PeerError, match="ClientHello"):
        frp.server_hello(b"{", SERVER_RANDOM)
    with pytest.raises(PeerError, match="ServerHello"):
        frp.check_server_hello(b"[]")


def test_a_client_refuses_a_server_that_selects_something_else() -> None:
    assert "xchacha20" in frp.check_server_hello(SERVER_HELLO.replace(b"aes-256-gcm", b"xchacha20-poly1305"))
    assert frp.check_server_hello(b"{}") == "the server selected nothing"


def test_no_secret_and_no_run_id_is_in_a_repr() -> None:
    shown = repr([LOGIN, LoginResp(run_id=RUN_ID), NewWorkConn(RUN_ID, "privilege")])
    assert not any(secret in shown for secret in ("s3cret", RUN_ID, "24920dec", "privilege"))
