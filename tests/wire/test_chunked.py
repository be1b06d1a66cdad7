"""The chunked coding, cut anywhere, and nothing but the grammar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harp.errors import PeerError
from harp.wire.chunked import MAX_TINY, ChunkedDecoder, chunk, last_chunk
from tests.properties import core

BODY = b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nX-Sum: 1\r\n\r\nrest"


def test_a_body_cut_at_any_two_bytes_is_still_one_body() -> None:
    for first in range(len(BODY)):
        for second in range(first, len(BODY)):
            decoder = ChunkedDecoder()
            pieces: list[bytes] = []
            rest = b""
            for part in (BODY[:first], BODY[first:second], BODY[second:]):
                if decoder.done:
                    rest += part
                else:
                    pieces += decoder.feed(part)
            assert b"".join(pieces) == b"hello world"
            assert decoder.done
            assert decoder.trailers == [(b"x-sum", b"1")]
            assert decoder.rest + rest == b"rest"


def test_payload_is_given_out_before_its_chunk_is_complete() -> None:
    decoder = ChunkedDecoder()
    assert decoder.feed(b"ffffff\r\nabc") == [b"abc"]
    assert not decoder.done


def test_encoding_and_decoding_agree() -> None:
    decoder = ChunkedDecoder()
    assert decoder.feed(chunk(b"a" * 300) + chunk(b"b") + last_chunk([(b"x", b"y")])) == [b"a" * 300, b"b"]
    assert decoder.trailers == [(b"x", b"y")]
    assert last_chunk([]) == b"0\r\n\r\n"


@pytest.mark.parametrize(
    "body",
    [
        b"10000000000000003\r\nabc",  # wraps to 3 in 64 bits
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b"\r\n",
        b"g\r\n",
        b"3 \r\nabc\r\n",
        b"3\nabc\r\n",
        b"3\r\nabcX\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabc\rX",
        b"3;a\rb\r\nabc",
        b"3;a\nb\r\nabc",
        b"3;a\x00b\r\nabc",
        b"0\n\n",
        b"0\r\n\n",
        b"0\r\nbad trailer\r\n\r\n",
        b"0\r\n folded: 1\r\n\r\n",
        b"0\r\nX : 1\r\n\r\n",
        b"0\r\nX: a\rb\r\n\r\n",
    ],
)
def test_what_is_not_the_grammar_is_refused(body: bytes) -> None:
    with pytest.raises(PeerError, match="chunked body"):
        ChunkedDecoder().feed(body)


def test_lines_without_end_are_refused() -> None:
    with pytest.raises(PeerError, match="unterminated"):
        ChunkedDecoder().feed(b"1" + b";" * 5000)
    decoder = ChunkedDecoder()
    decoder.feed(b"0\r\n")
    with pytest.raises(PeerError, match="unterminated"):
        decoder.feed(b"x" * 9000)


def test_a_flood_of_trailers_or_extensions_is_refused() -> None:
    with pytest.raises(PeerError, match="too many"):
        ChunkedDecoder().feed(b"0\r\n" + b"X: 1\r\n" * 3000)
    with pytest.raises(PeerError, match="extensions"):
        ChunkedDecoder().feed((b"1;" + b"x" * 1000 + b"\r\na\r\n") * 100)


def test_short_extensions_are_counted_as_well() -> None:
    with pytest.raises(PeerError, match="extensions"):
        ChunkedDecoder().feed(b"40;x=1\r\n" + b"a" * 64 + b"\r\n" + b"1;a\r\na\r\n" * 40000)


def test_a_megabyte_of_tiny_chunks_is_refused() -> None:
    decoder = ChunkedDecoder()
    tiny = chunk(b"a") * 10000
    with pytest.raises(PeerError, match="chunks of less than 16 bytes on average"):
        for _ in range(MAX_TINY // len(tiny) + 2):
            decoder.feed(tiny)


def test_events_that_come_one_by_one_may_be_tiny_for_ever() -> None:
    decoder = ChunkedDecoder()
    for _ in range(MAX_TINY // 4):
        assert decoder.feed(b"1\r\na\r\n") == [b"a"]


def test_chunks_of_sixteen_bytes_are_not_tiny() -> None:
    decoder = ChunkedDecoder()
    for _ in range(100):
        decoder.feed(chunk(b"a" * 16) * 1000)


def test_of_many_chunks_no_more_are_decoded_at_a_time_than_asked_for() -> None:
    decoder = ChunkedDecoder()
    body = chunk(b"a") * 25 + last_chunk([])
    assert (len(decoder.feed(body, 10)), decoder.more) == (10, True)
    assert (len(decoder.feed(b"", 10)), decoder.more) == (10, True)
    assert (len(decoder.feed(b"rest", 10)), decoder.more) == (5, False)
    assert (decoder.done, decoder.rest) == (True, b"rest")


def test_a_decoder_is_one_line_of_state() -> None:
    decoder = ChunkedDecoder()
    decoder.feed(b"5\r\nhel")
    assert repr(decoder) == "<ChunkedDecoder 4 bytes of a chunk to come, 0 bytes held>"


def decoded(parts: list[bytes], most: int) -> tuple[bytes, bytes | str]:
    """Payload, and what comes after the body or why there is none."""
    decoder = ChunkedDecoder()
    payload, rest = b"", b""
    try:
        for part in parts:
            if decoder.done:
                rest += part
                continue
            payload += b"".join(decoder.feed(part, most))
            while decoder.more:
                payload += b"".join(decoder.feed(b"", most))
    except PeerError as error:
        return b"", str(error)
    return payload, decoder.rest + rest if decoder.done else "unfinished"


PIECES = st.sampled_from(
    [b"0", b"1", b"a", b"\r\n", b"\r", b"\n", b";", b" ", b"x: y", b"5\r\nhello\r\n", b"0\r\n\r\n", chunk(b"b" * 30)]
)


@core
@given(st.lists(PIECES, max_size=12), st.lists(st.integers(0, 100), max_size=5), st.integers(1, 3))
def test_any_slicing_of_any_bytes_gives_the_same_payload_or_refusal(
    pieces: list[bytes], cuts: list[int], most: int
) -> None:
    data = b"".join(pieces)
    ends = sorted(min(cut, len(data)) for cut in cuts)
    parts = [data[begin:end] for begin, end in zip([0, *ends], [*ends, len(data)], strict=True)]
    whole, outcome = decoded([data], 1 << 30)
    sliced, sliced_outcome = decoded(parts, most)
    assert sliced == whole
    assert (sliced_outcome == outcome) or (isinstance(outcome, str) and isinstance(sliced_outcome, str))
