"""Where records end, however they arrive."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harp.wire.tls_records import SLICE, Records


def record(size: int) -> bytes:
    return b"\x17\x03\x03" + size.to_bytes(2, "big") + bytes(size)


@given(st.lists(st.integers(0, 16640), max_size=8), st.lists(st.integers(1, 40000), max_size=20))
def test_any_slicing_gives_all_bytes_in_order_and_ends_with_records(sizes: list[int], cuts: list[int]) -> None:
    stream = b"".join(map(record, sizes))
    ends = [0]
    for size in sizes:
        ends.append(ends[-1] + 5 + size)
    records, seen, readable, at = Records(), b"", 0, 0
    for cut in [*cuts, len(stream)]:
        for piece, complete in records.cut(memoryview(stream)[at : at + cut]):
            seen += piece
            assert len(piece) <= SLICE + 16640 + 5
            if complete:
                readable = len(seen)
                assert readable in ends
        at += cut
        assert readable == max(end for end in ends if end <= min(at, len(stream)))  # nothing whole is held back
    assert seen == stream


def test_small_records_are_put_together() -> None:
    slices = list(Records().cut(record(100) * 50))
    assert [(len(piece), complete) for piece, complete in slices] == [(105 * 50, True)]
