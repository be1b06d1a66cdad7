"""Certificates in containers of every kind: put there before the first start, readable by whoever runs (A 4.6.8)."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from tests.live.appapi import App
from tests.live.daemon import Daemon, running_daemon
from tests.live.engine import Engine
from tests.live.images import provide_python_exapp, provide_small_exapp
from tests.live.trees import APP_UID, provide_busybox, provide_debian, provide_scratch

pytestmark = pytest.mark.timeout(300)  # the first test makes images

FILES = ("ca.crt", "client.crt", "client.key")
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
ASK = """\
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
"""


@pytest.fixture(scope="module")
def daemon(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A HaRP with the engine as its local one."""
    with running_daemon(tmp_path_factory.mktemp("daemon"), engine) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    """The CA of somebody's company, which no distribution knows."""
    return trustme.CA(organization_name="The tests' own CA")


def pem(ca: trustme.CA) -> str:
    """What AppAPI sends: the system's CAs and the company's."""
    return Path(BUNDLE).read_text() + ca.cert_pem.bytes().decode()


def created(daemon: Daemon, app: App, bundle: str) -> None:
    """Create a container and install certificates, as AppAPI does before the first start."""
    daemon.appapi.create(app).ok(201)
    daemon.appapi.install_certificates(app, bundle).ok(204)
    assert daemon.engine.inspect(app.container)["State"]["Status"] == "created"


@pytest.mark.parametrize(
    ("provide", "cat"),
    [(provide_debian, ["cat"]), (provide_busybox, ["cat"]), (provide_scratch, ["/busybox", "cat"])],
    ids=["Debian", "busybox", "scratch"],
)
def test_tunnel_files_are_there_and_a_plain_user_can_read_them(
    daemon: Daemon, ca: trustme.CA, provide: Callable[[Engine], str], cat: list[str]
) -> None:
    engine = daemon.engine
    image = provide(engine)
    keep = [*(["/busybox"] if cat[0] == "/busybox" else []), "sleep", "60"]
    ours = daemon.product.certs / "frp"
    with daemon.app(App("reader", image, port=23110)) as app:
        # AppAPI sends no command, and these images have none that lasts: made here, with our name and label-less.
        engine.create(app.container, image, Cmd=keep, User=str(APP_UID))
        daemon.appapi.install_certificates(app, pem(ca)).ok(204)
        for name in FILES:
            entry, content = engine.read(app.container, f"/certs/frp/{name}")
            assert content == (ours / name).read_bytes()
            assert entry.mode & 0o444 == 0o444
        daemon.appapi.start(app).ok(204)
        for name in FILES:
            code, text = engine.execute(app.container, *cat, f"/certs/frp/{name}", user=str(APP_UID))
            assert (code, text) == (0, (ours / name).read_text())


@pytest.mark.parametrize(
    "provide", [provide_python_exapp, provide_small_exapp], ids=["Debian, a plain user", "busybox"]
)
def test_the_company_ca_is_in_the_system_bundle_once(
    daemon: Daemon, ca: trustme.CA, provide: Callable[[Engine], str]
) -> None:
    with daemon.app(App("trusting", provide(daemon.engine), port=23111)) as app:
        created(daemon, app, pem(ca))
        daemon.appapi.install_certificates(app, pem(ca)).ok(204)
        text = daemon.engine.read(app.container, BUNDLE)[1].decode()
        assert text.count(ca.cert_pem.bytes().decode().strip().splitlines()[1]) == 1


def test_python_in_a_debian_container_trusts_the_company_ca(daemon: Daemon, ca: trustme.CA) -> None:
    engine = daemon.engine
    with daemon.app(App("asking", provide_python_exapp(engine), port=23112)) as app, https_server(engine, ca) as url:
        created(daemon, app, "")
        daemon.appapi.start(app).ok(204)
        code, text = engine.execute(app.container, "python3", "-c", ASK, url, user=str(APP_UID))
        assert code != 0
        assert "CERTIFICATE_VERIFY_FAILED" in text
        daemon.appapi.install_certificates(app, pem(ca)).ok(204)  # it runs: that is fine as well
        code, text = engine.execute(app.container, "python3", "-c", ASK, url, user=str(APP_UID))
        assert (code, text.strip()) == (0, "trusted")
        assert engine.inspect(app.container)["State"]["Running"] is True


def test_certificates_before_the_first_start_are_trusted_after_it(daemon: Daemon, ca: trustme.CA) -> None:
    engine = daemon.engine
    with daemon.app(App("early", provide_python_exapp(engine), port=23113)) as app, https_server(engine, ca) as url:
        created(daemon, app, pem(ca))
        daemon.appapi.start(app).ok(204)
        code, text = engine.execute(app.container, "python3", "-c", ASK, url, user=str(APP_UID))
        assert (code, text.strip()) == (0, "trusted")


@contextmanager
def https_server(engine: Engine, ca: trustme.CA) -> Iterator[str]:
    """A web server with a certificate of `ca`, where containers reach it. Its URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(engine.gateway).configure_cert(context)
    with socket.create_server((engine.gateway, 0)) as listener:
        stop = threading.Event()
        listener.settimeout(0.1)

        def serve() -> None:
            while not stop.is_set():
                try:
                    plain, _ = listener.accept()
                except TimeoutError:
                    continue
                plain.settimeout(10)
                try:
                    with context.wrap_socket(plain, server_side=True) as connection:
                        connection.recv(65536)
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\ntrusted")
                except OSError:
                    plain.close()  # a client that does not trust us leaves in the handshake

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"https://{engine.gateway}:{listener.getsockname()[1]}/"
        finally:
            stop.set()
            thread.join()
