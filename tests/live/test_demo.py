"""`make run` as a newcomer sees it: one command, and what the README promises."""

from __future__ import annotations

import base64
import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from hashlib import sha256

import pytest

from tests.fakes.environment import bare
from tests.live.processes import Process, free_port
from tests.live.product import HARP


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of /exapps of a running `harp demo`, which INT ends with 0."""
    port = free_port()
    ports = ["--port", str(port), "--frp-port", str(free_port()), "--admin-port", str(free_port())]
    log = tmp_path_factory.mktemp("demo") / "log"
    process = Process([*HARP, "demo", *ports], log, env=bare())
    try:
        process.until(lambda: f":{port}/exapps/hello/public" in process.text(), "invitation")
        yield f"http://127.0.0.1:{port}/exapps"
        process.signal(signal.SIGINT)
        assert process.wait() == 0
    finally:
        process.stop()


def ask(url: str, credentials: str = "", body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body."""
    request = urllib.request.Request(url, data=body)
    if credentials:
        request.add_header("Authorization", "Basic " + base64.b64encode(credentials.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.mark.parametrize(
    ("path", "credentials", "status"),
    [
        ("/hello/public", "", 200),
        ("/hello/user", "", 403),
        ("/hello/user", "user:user", 200),
        ("/hello/admin", "user:user", 403),
        ("/hello/admin", "admin:admin", 200),
        ("/nope/x", "", 404),
    ],
)
def test_who_may_see_what(demo: str, path: str, credentials: str, status: int) -> None:
    assert ask(demo + path, credentials)[0] == status


def test_an_upload_is_counted_and_hashed(demo: str) -> None:
    body = os.urandom(1_000_000)
    status, answer = ask(f"{demo}/hello/upload", body=body)
    assert (status, json.loads(answer)) == (200, {"bytes": len(body), "sha256": sha256(body).hexdigest()})


def test_a_refusal_is_a_plain_text_with_a_request_id(demo: str) -> None:
    status, answer = ask(f"{demo}/nope/x")
    assert status == 404
    assert b"request id" in answer
