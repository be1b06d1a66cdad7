"""The access log."""

from __future__ import annotations

import errno
from io import BytesIO

import msgspec

from harp.frontend.access import BATCH, AccessLog, Entry

ENTRY = Entry(
    time="2026-01-02T03:04:05.678+00:00",
    request_id="id-1",
    address="192.0.2.1",
    method="GET",
    path="/exapps/hello/public",
    app="hello",
    user="alice",
    status=200,
    sent=32,
    seconds=0.0123,
    reason="route ^/public$ is for PUBLIC",
    peer="192.0.2.1",
    counted="192.0.2.1",
    verdict="forward",
    received=5,
)


class FullStream(BytesIO):
    """A disk without space."""

    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_line_of_text_tells_the_request_in_one_look() -> None:
    stream = BytesIO()
    log = AccessLog("all", json=False, stream=stream)
    log.write(ENTRY)
    log.flush()
    assert stream.getvalue() == (
        b"2026-01-02T03:04:05.678+00:00 [request ] 200 GET /exapps/hello/public 192.0.2.1 app=hello user=alice"
        b" 5B>32B 12.3ms id=id-1: route ^/public$ is for PUBLIC\n"
    )


async def test_lines_are_written_together_and_a_full_batch_at_once() -> None:
    stream = BytesIO()
    log = AccessLog("all", json=True, stream=stream)
    log.write(ENTRY)
    assert stream.getvalue() == b""
    for _ in range(BATCH // len(msgspec.json.encode(ENTRY)) + 1):
        log.write(ENTRY)
    assert stream.getvalue().count(b"\n") > 100
    log.flush()


async def test_a_stream_that_takes_nothing_fails_no_request_and_keeps_no_lines() -> None:
    log = AccessLog("all", json=True, stream=FullStream())
    for _ in range(3 * BATCH // len(msgspec.json.encode(ENTRY))):
        log.write(ENTRY)
    log.flush()
