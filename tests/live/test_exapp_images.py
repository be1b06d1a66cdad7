"""The images that the page for authors of ExApps shows, built from its lines; base images and downloads are ours."""

from __future__ import annotations

import io
import json
import platform
import tarfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.blocks import ROOT, blocks
from tests.live.engine import Engine
from tests.live.frp import EXAPP_VERSION, frpc
from tests.live.images import CHECKOUT, static_program, wheels
from tests.live.processes import PATIENCE
from tests.live.trees import DEBIAN, provide_debian, tar_of

pytestmark = pytest.mark.timeout(300)

IMAGE = "harp-test/of-the-page:1"
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
# What the page takes from a registry: Python, and a pip that finds HaRP and what it needs.
PYTHON = f"""\
FROM {DEBIAN}
COPY wheels /wheels
COPY harp /src
RUN python3 -m venv /opt/python && \
    /opt/python/bin/pip wheel -q --no-index --find-links=/wheels --no-deps --wheel-dir=/wheels /src
ENV PATH=/opt/python/bin:$PATH PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels
"""


def dockerfile(words: str) -> str:
    """Return the Dockerfile of the page with these words."""
    (found,) = (block.text for block in blocks("exapp/README.md") if words in block.text)
    return found


def heartbeat(engine: Engine) -> object:
    """Start the image without a tunnel, and return what the ExApp in it answers."""
    environment = ("APP_ID=hello", "APP_SECRET=secret", "APP_VERSION=1.0.0", "APP_HOST=0.0.0.0", "APP_PORT=9000")
    engine.run("of-the-page", IMAGE, Env=list(environment))
    url = f"http://{engine.address('of-the-page')}:9000/heartbeat"
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.loads(answer.read())
        except OSError:
            assert time.monotonic() < end, engine.logs("of-the-page")
            time.sleep(0.1)


@pytest.fixture(autouse=True)
def nothing_is_left(engine: Engine) -> Iterator[None]:
    yield
    engine.clear()
    for image in (IMAGE, "python:3.13-slim", "debian:12-slim"):
        engine.call("DELETE", f"/images/{image}", query={"force": 1}).ok(200, 404)


@contextmanager
def release() -> Iterator[str]:
    """Serve frp's release, wherever it is asked for. The URL before its path."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as archive:
        archive.add(frpc(EXAPP_VERSION), f"frp_{EXAPP_VERSION}_linux_{MACHINE}/frpc")
    content = output.getvalue()

    class ReleaseHandler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path.endswith(f"/v{EXAPP_VERSION}/frp_{EXAPP_VERSION}_linux_{MACHINE}.tar.gz")
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), ReleaseHandler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_image_in_python_with_our_own_client(engine: Engine) -> None:
    provide_debian(engine)
    files: dict[str, bytes | Path | str] = {f"harp/{name}": ROOT / name for name in CHECKOUT}
    engine.build("python:3.13-slim", tar_of({**files, "Dockerfile": PYTHON, "wheels": wheels()}))
    text = dockerfile("pip install")
    engine.build(IMAGE, tar_of({"Dockerfile": text, "main.py": ROOT / "exapp/sample/main.py"}))
    assert heartbeat(engine) == {"status": "ok"}


def test_an_image_with_frpc_and_the_start_script(engine: Engine) -> None:
    provide_debian(engine)
    engine.call("POST", f"/images/{DEBIAN}/tag", query={"repo": "debian", "tag": "12-slim"}).ok(201)
    files: dict[str, bytes | Path | str] = {"my-app": static_program(), "start.sh": ROOT / "exapp/start.sh"}
    with release() as url:
        text = dockerfile("start.sh").replace("https://github.com", url)
        engine.build(IMAGE, tar_of({**files, "Dockerfile": text}), {"TARGETARCH": MACHINE})
    assert heartbeat(engine) == {"status": "ok"}
    assert engine.execute("of-the-page", "frpc", "--version") == (0, f"{EXAPP_VERSION}\n")
