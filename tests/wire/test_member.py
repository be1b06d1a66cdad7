"""Messages between members, and the life of a stream of a link."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harp.errors import PeerError
from harp.wire.member import (
    LIMIT,
    Accepted,
    Alive,
    Ask,
    Attached,
    ConnectedAgain,
    Declined,
    Drained,
    Ended,
    Freed,
    GiveUp,
    Greeted,
    Greeting,
    Held,
    IsAlive,
    Lifted,
    LinkStream,
    MemberMessage,
    Operated,
    Phase,
    RecordGone,
    RecordPut,
    Renewed,
    Serving,
    Struck,
    Talk,
    ToPort,
    WalkBegun,
    WalkEnded,
    WorkFor,
    packed,
)
from tests.properties import core

TOLD: list[MemberMessage] = [
    Held("app", 23001, 1.5, offered=True),
    Freed(23001),
    Serving("run"),
    Ended("run"),
    ConnectedAgain("run"),
    IsAlive(1, 23001),
    Alive(1, alive=False),
    GiveUp(23001, "why"),
    Struck("192.0.2.1", "a wrong key", 10, (3.0, 1.0)),
    Lifted("192.0.2.1"),
    RecordPut(msgspec.Raw(b'{"app_id":"x"}')),
    RecordGone("x"),
    Greeted(),
    WalkBegun("nonce"),
    WalkEnded("nonce"),
    Attached(instance="second"),
    Drained(),
    Renewed(),
    Operated("level", "debug"),
]
OPENINGS = [ToPort(23001), WorkFor("run", 2), Ask("snapshot", "x"), Greeting("a", "boot", "b")]


def talking() -> LinkStream:
    stream = LinkStream(opener=False)
    stream.feed(packed(Talk("2", fresh=False)))
    assert stream.next() == Talk("2", fresh=False)
    return stream


def test_a_message_is_its_length_and_json_that_names_its_kind() -> None:
    assert packed(ToPort(23001)) == b'\0\0\0\x1e{"type":"ToPort","port":23001}'


@core
@given(st.lists(st.sampled_from(TOLD), max_size=8), st.data())
def test_what_is_told_arrives_in_order_however_it_is_cut(told: list[MemberMessage], data: st.DataObject) -> None:
    text = b"".join(map(packed, told))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    stream, heard = talking(), []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        stream.feed(text[start:end])
        heard += list(iter(stream.next, None))
    assert [packed(message) for message in heard] == [packed(message) for message in told]
    assert stream.rest() == b""


@pytest.mark.parametrize("opening", OPENINGS, ids=lambda opening: type(opening).__name__)
def test_what_is_asked_for_is_accepted_and_bytes_follow(opening: ToPort | WorkFor | Ask | Greeting) -> None:
    here, there = LinkStream(opener=True), LinkStream(opener=False)
    there.feed(here.open(opening))
    assert there.next() == opening
    assert here.next() is None
    here.feed(there.accept() + b"\0\0\0\x01 bytes that look like a message")
    assert here.next() == Accepted()
    assert here.next() is None
    assert here.rest() == b"\0\0\0\x01 bytes that look like a message"
    assert here.phase is there.phase is Phase.JOINED


def test_a_refusal_says_why_and_ends_the_stream() -> None:
    here, there = LinkStream(opener=True), LinkStream(opener=False)
    there.feed(here.open(ToPort(23001)))
    there.next()
    here.feed(there.refuse("no tunnel"))
    assert here.next() == Declined("no tunnel")
    assert here.phase is there.phase is Phase.ENDED
    here.end()


def test_bytes_before_the_answer_break_the_protocol() -> None:
    there = LinkStream(opener=False)
    there.feed(packed(ToPort(23001)) + b"early")
    assert there.next() == ToPort(23001)
    with pytest.raises(PeerError, match="before the answer"):
        there.next()


def test_nobody_answers_talk() -> None:
    here = LinkStream(opener=True)
    here.open(Talk("1", fresh=True))
    here.feed(b"x")
    with pytest.raises(PeerError, match="1 bytes on a stream that carries messages"):
        here.next()


def test_a_message_too_long_is_refused_before_it_arrives() -> None:
    stream = talking()
    stream.feed((LIMIT + 1).to_bytes(4, "big"))
    with pytest.raises(PeerError, match=f"message of {LIMIT + 1} bytes, limit {LIMIT}"):
        stream.next()


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[1]", b"\xff", b'{"type":"Accepted"}', b'{"type":"Talk","member":"1","fresh":true}', b"{" * 2000],
)
def test_what_does_not_belong_there_is_refused_without_being_repeated(body: bytes) -> None:
    stream = talking()
    stream.feed(len(body).to_bytes(4, "big") + body)
    with pytest.raises(PeerError, match=r"^link: not a message that belongs here \(\w+\)$"):
        stream.next()


def test_what_a_later_version_tells_is_left_out() -> None:
    stream = talking()
    body = b'{"type":"SomethingNew","port":1}'
    stream.feed(len(body).to_bytes(4, "big") + body + packed(Freed(1)))
    assert stream.next() == Freed(1)
    assert stream.next() is None


def test_what_a_later_version_asks_for_is_a_question_that_nobody_can_answer() -> None:
    stream, body = LinkStream(opener=False), b'{"type":"SomethingNew","port":1}'
    stream.feed(len(body).to_bytes(4, "big") + body)
    assert stream.next() == Ask("SomethingNew")
    assert stream.phase is Phase.ASKED


@core
@given(st.binary(max_size=64), st.booleans())
def test_no_bytes_raise_anything_but_a_peer_error(data: bytes, talks: bool) -> None:
    stream = talking() if talks else LinkStream(opener=False)
    stream.feed(data)
    try:
        while stream.next() is not None:
            pass
    except PeerError:
        pass


def test_a_stream_is_not_answered_twice() -> None:
    there = LinkStream(opener=False)
    there.feed(packed(ToPort(23001)))
    there.next()
    there.accept()
    with pytest.raises(PeerError, match="accepted, on a stream that carries bytes"):
        there.accept()
