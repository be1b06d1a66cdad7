"""A deploy daemon in a live test: a real `harp run` with the tests' engine, and a Nextcloud that knows its ExApps."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

from tests.live.appapi import LOCAL_ENGINE, App, AppApi
from tests.live.engine import Engine
from tests.live.product import KEY, Product


class Nextcloud:
    """Answers exapp-meta (A 5.1) for `apps`, in a thread."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._host = host
        self.apps: dict[str, App] = {}
        known = self.apps

        class NextcloudHandler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                app = known.get(parse_qs(urlsplit(self.path).query).get("appId", [""])[0])
                ours = self.headers["harp-shared-key"] == KEY
                status, body = (200, app.record()) if app is not None and ours else (401, {"message": "unknown"})
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
                pass

        self._server = ThreadingHTTPServer((host, 0), NextcloudHandler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Daemon:
    """A running HaRP, its engine, and AppAPI in front of it."""

    def __init__(self, product: Product, engine: Engine, nextcloud: Nextcloud) -> None:
        self.product = product
        self.engine = engine
        self.nextcloud = nextcloud
        self.appapi = self.with_engine(LOCAL_ENGINE)

    def with_engine(self, port: int) -> AppApi:
        """AppAPI with the engine of this port."""
        return AppApi("127.0.0.1", self.product.http, (self.engine.gateway, self.product.frp), port)

    @contextmanager
    def app(self, app: App) -> Iterator[App]:
        """An ExApp that Nextcloud has just been told to register. After the block nothing of it is left."""
        self.nextcloud.apps[app.app_id] = app
        try:
            yield app
        finally:
            del self.nextcloud.apps[app.app_id]
            self.appapi.forget(app)
            self.engine.call("DELETE", f"/containers/{app.container}", query={"force": 1}).ok(204, 404)
            self.engine.call("DELETE", f"/volumes/{app.volume}").ok(204, 404)


@contextmanager
def running_daemon(directory: Path, engine: Engine, **environment: str) -> Iterator[Daemon]:
    """A HaRP that containers of `engine` can reach. It has ended, by TERM and with 0, after the block."""
    with Nextcloud() as nextcloud:
        product = Product(directory, nextcloud.url, HP_DOCKER_HOST=f"unix://{engine.socket}")
        addresses = {"127.0.0.1", engine.gateway}
        product.environment["HP_FRP_ADDRESS"] = ",".join(f"{address}:{product.frp}" for address in addresses)
        product.environment.update(environment)
        product.start()
        try:
            yield Daemon(product, engine, nextcloud)
        finally:
            status = product.stop()
    assert status == 0, product.process.text()[-4000:]
