"""An FRP connection until it has logged in, as bytes and tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harp.errors import PeerError
from harp.wire import frp
from harp.wire.frp import HelloFrame, Login, NewWorkConn, Ping, StartWorkConn
from harp.wire.frp_login import (
    CONNECTION,
    FIRST_MESSAGE,
    FirstMessages,
    LoginEvent,
    LoginState,
    NotFrp,
    Stage,
    Step,
    check_start,
    moved,
)
from tests.properties import core

LOGIN = frp.encode(Login(version="0.61.1"), 1)
HELLO = frp.frame(frp.FrameType.CLIENT_HELLO, frp.client_hello(bytes(32), tls=False, mux=True))


@pytest.mark.parametrize("start", [b"\x16", b"\x17", b"\x17\x16\x03\x01", b"\x16\x03\x01"])
def test_one_byte_tells_tls(start: bytes) -> None:
    assert check_start(start, tls_required=True) is Step.TLS
    assert check_start(start, tls_required=False) is Step.TLS


@pytest.mark.parametrize("start", [b"\x1e", b"\x1e\x16\x03\x01"])
def test_one_byte_tells_the_link_of_a_replica(start: bytes) -> None:
    assert check_start(start, tls_required=True) is Step.LINK
    assert check_start(start, tls_required=False) is Step.LINK


@pytest.mark.parametrize("start", [b"\0", b"o", b"w", b"F"])
def test_plain_frp_is_taken_where_tls_is_an_offer_and_told_the_cure_where_it_is_not(start: bytes) -> None:
    assert check_start(start, tls_required=False) is Step.PLAIN
    with pytest.raises(NotFrp, match="does not use TLS") as refusal:
        check_start(start, tls_required=True)
    assert "transport.tls.enable = true" in refusal.value.fix


def test_a_websocket_client_is_told_from_other_strangers() -> None:
    with pytest.raises(NotFrp, match="a websocket") as refusal:
        check_start(b"GET /~!frp HTTP/1.1", tls_required=False)
    assert refusal.value.fix == 'set transport.protocol = "tcp"'
    for start in (b"GET / HTTP/1.1", b"GET", b"SSH-2.0", b"p"):
        with pytest.raises(NotFrp, match="neither FRP nor TLS") as stranger:
            check_start(start, tls_required=False)
        assert stranger.value.fix == ""


def test_a_login_cut_at_any_byte_is_one_login_and_what_follows_is_left_alone() -> None:
    for cut in range(len(LOGIN) + 1):
        messages = FirstMessages()
        messages.feed(LOGIN[:cut])
        first = messages.next()
        messages.feed(LOGIN[cut:] + b"more")
        login = first or messages.next()
        assert isinstance(login, Login)
        assert (messages.state, messages.version, messages.rest()) == (LoginState.ASKING, 1, b"more")


def test_after_the_request_nothing_more_is_read_before_the_answer() -> None:
    messages = FirstMessages()
    messages.feed(LOGIN + LOGIN)
    assert isinstance(messages.next(), Login)
    assert messages.next() is None
    messages.accept()
    assert messages.rest() == LOGIN


def test_version_2_agrees_on_a_cipher_first() -> None:
    messages = FirstMessages()
    messages.feed(frp.MAGIC + HELLO + frp.encode(Login(), 2))
    hello = messages.next()
    assert isinstance(hello, HelloFrame)
    answer, refusal = messages.greet(hello, bytes(32))
    assert (messages.state, refusal) == (LoginState.GREETED, "")
    assert messages.hellos == (hello.payload, answer[8:])
    assert isinstance(messages.next(), Login)
    assert messages.encode(StartWorkConn("a"))[:2] == b"\0\x10"  # a message frame of version 2


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frp.encode(Ping(), 1), "the first message is Ping"),
        (frp.V1_HEADER.pack(b"v", 2) + b"{}", "the first message is Unsupported"),
        (frp.V1_HEADER.pack(b"o", 10241), "message of 10241 bytes"),
        (frp.V1_HEADER.pack(b"o", 2) + b"[]", "Login"),
        (frp.MAGIC + HELLO + HELLO, "ClientHello on a connection that has agreed on version 2"),
        (frp.MAGIC + frp.frame(frp.FrameType.SERVER_HELLO, b"{}"), "the first message is Hello"),
    ],
)
def test_another_first_message_raises(data: bytes, reason: str) -> None:
    messages = FirstMessages()
    messages.feed(data)
    with pytest.raises(PeerError, match=reason):
        while messages.next() is not None:
            pass


@core
@given(st.lists(st.binary(max_size=60), max_size=6), st.sampled_from([b"", frp.MAGIC, LOGIN, frp.MAGIC + HELLO]))
def test_whatever_comes_is_a_message_or_an_error_and_can_be_ended(parts: list[bytes], start: bytes) -> None:
    messages = FirstMessages()
    try:
        for part in [start, *parts]:
            messages.feed(part)
            while (message := messages.next()) is not None:
                assert isinstance(message, HelloFrame | Login | NewWorkConn)
    except PeerError:
        pass
    messages.end()
    assert messages.state is LoginState.ENDED


def test_every_stage_and_state_can_be_reached_and_ended() -> None:
    stages = {Stage.FIRST_BYTE, *(after for moves in CONNECTION.values() for after in moves.values())}
    assert stages == set(Stage) == set(CONNECTION)
    assert all(moved(CONNECTION, stage, Step.END) is Stage.ENDED for stage in Stage)
    states = {LoginState.WAITING, *(after for moves in FIRST_MESSAGE.values() for after in moves.values())}
    assert states == set(LoginState) == set(FIRST_MESSAGE)
    for state in LoginState:
        moved(FIRST_MESSAGE, state, LoginEvent.END)


def test_what_is_not_in_a_table_raises() -> None:
    with pytest.raises(PeerError, match="login accepted on a connection that is a tunnel"):
        moved(CONNECTION, Stage.TUNNEL, Step.LOGGED_IN)
    with pytest.raises(PeerError, match="request accepted on a connection that waits for its first message"):
        moved(FIRST_MESSAGE, LoginState.WAITING, LoginEvent.ACCEPT)
