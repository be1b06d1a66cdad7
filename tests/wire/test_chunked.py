"""The chunked coding, cut anywhere, and nothing but the grammar."""

from __future__ import annotations

import pytest

from harp.errors import PeerError
from harp.wire.chunked import ChunkedDecoder, chunk, last_chunk

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
    with pytest.raises(PeerError, match="without end"):
        ChunkedDecoder().feed(b"1" + b";" * 5000)
    decoder = ChunkedDecoder()
    decoder.feed(b"0\r\n")
    with pytest.raises(PeerError, match="without end"):
        decoder.feed(b"x" * 9000)


def test_a_flood_of_trailers_or_extensions_is_refused() -> None:
    with pytest.raises(PeerError, match="too many"):
        ChunkedDecoder().feed(b"0\r\n" + b"X: 1\r\n" * 3000)
    with pytest.raises(PeerError, match="extensions"):
        ChunkedDecoder().feed((b"1;" + b"x" * 1000 + b"\r\na\r\n") * 100)
