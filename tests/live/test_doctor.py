"""Broken on purpose, in fourteen ways: `harp doctor` and the status page name cause and fix, the log has one line.

A real nginx stands in front, with the snippets of the documentation; HaRP logs at its default level.
"""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from harp.snippets import ProxySite, filled
from harp.status.doctor.doctor import LIMIT
from tests.live.networks import drop, own_network
from tests.live.nginx import start_nginx
from tests.live.processes import Process, free_port
from tests.live.product import HARP, KEY, Product, running
from tests.live.tunnels import OWN, start_tunnel
from tests.live.world import TUNNEL_PORT, World

AHEAD = 600  # seconds


@dataclass
class Site:
    """A cloud as an admin has it: nginx with Nextcloud's place in it, HaRP behind it, and one fault."""

    world: World
    folder: Path
    stack: ExitStack
    environment: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = HARP
    edits: list[tuple[str, str]] = field(default_factory=list)  # of nginx's location
    listen: str = ""  # nginx's own line in place of the usual one
    tunnel: str | None = "hello"  # the name of the ExApp's tunnel
    scheme: str = "http"
    public: str = "127.0.0.1"
    port: int = 0
    product: Product = field(init=False)

    def start(self) -> None:
        self.port = free_port()
        url = f"{self.scheme}://{self.public}:{self.port}"
        usual = {"HP_LOG_LEVEL": "warning", "HP_TRUSTED_PROXY_IPS": "127.0.0.1", "HP_PUBLIC_URL": url}
        nextcloud = self.environment.pop("NC_INSTANCE_URL", self.world.nextcloud)
        starting = running(self.folder / "harp", nextcloud, self.command, **{**usual, **self.environment})
        self.product = self.stack.enter_context(starting)
        nginx = self.stack.enter_context(start_nginx(self.folder / "nginx", self.http()))
        nginx.until_listening(self.port)
        if self.tunnel is not None:
            tunnel = start_tunnel(self.product, OWN, self.tunnel, TUNNEL_PORT, self.world.socket)
            self.stack.enter_context(tunnel)
            tunnel.until(
                lambda: "proxy running" in tunnel.text() or "refused" in tunnel.text(), "an answer to its claim"
            )

    def http(self) -> str:
        site = ProxySite(harp=f"127.0.0.1:{self.product.http}")
        location = filled("nginx-location.conf", site)
        for old, new in self.edits:
            assert old in location
            location = location.replace(old, new)
        common = filled("nginx-http.conf", site)
        listen = self.listen or f"listen 127.0.0.1:{self.port};"
        nextcloud = "location / { add_header X-Nextcloud 1; return 404; }"
        return f"{common} server {{ {listen.replace('PORT', str(self.port))} {location} {nextcloud} }}"

    def doctor(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """The exit code and the report."""
        argv = [*HARP, "doctor", "--json", *arguments]
        done = subprocess.run(
            argv, env=self.product.environment, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def page(self, name: str) -> str:
        """The words of a status page, with all white space the same."""
        with urlopen(f"http://127.0.0.1:{self.product.admin}/{name}", timeout=30) as answer:
            words = html.unescape(re.sub(r"</?code>", "`", answer.read().decode()))
        return " ".join(words.split())

    def log_lines(self, sign: str) -> list[str]:
        return [line for line in self.product.process.text().splitlines() if sign in line and "HP_" + "X" not in line]


@pytest.fixture
def site(world: World, tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(world, tmp_path, stack)


def findings(report: Mapping[str, Any], state: str) -> dict[str, dict[str, str]]:
    return {one["check"]: one for one in report["findings"] if one["state"] == state}


def broken(site: Site, check: str, cause: str, fix: str, line: str = "", also: tuple[str, ...] = ()) -> Any:
    """The doctor finds exactly this fault, and what `also` follows from it; the log has one line, with `line` in it.

    Its first report.
    """
    status, report = site.doctor()
    failed = findings(report, "failed")
    assert status == 1
    assert set(failed) == {check, *also}, failed
    assert cause in failed[check]["cause"]
    assert fix in failed[check]["fix"]
    page = site.page("doctor")
    assert cause in page
    assert fix in page
    told = site.log_lines(line or f'"check":"{check}"')
    assert len(told) == 1, site.product.process.text()
    assert site.doctor()[0] == 1  # asked again, the log is not filled with it
    assert len(site.log_lines(line or f'"check":"{check}"')) == 1
    return report


def test_a_site_in_order_has_no_finding_and_no_line_in_the_log(site: Site) -> None:
    site.start()
    status, report = site.doctor()
    assert (status, findings(report, "failed"), findings(report, "warning")) == (0, {}, {})
    known = findings(report, "ok")
    for check in ("arrives", "prefix", "address", "name", "websocket", "body", "stream"):
        assert f"road.{check}" in known
    for check in ("nextcloud", "key", "clock", "tunnel:hello", "exapp:hello", "descriptors"):
        assert check in known
    assert site.log_lines("doctor") == []
    assert KEY not in json.dumps(report)


def test_the_report_is_made_for_this_host_alone_and_a_web_page_cannot_have_it_made(site: Site) -> None:
    site.start()
    assert site.product.status("/exapps/app_api/doctor/0123456789abcdef/hello") == 401
    url = f"http://127.0.0.1:{site.product.admin}/api/v1/doctor"
    with pytest.raises(HTTPError, match="403"):
        urlopen(Request(url, method="POST", data=b""), timeout=30)
    with urlopen(url, timeout=60) as answer:
        report = json.load(answer)
    assert report["state"] == "ok"
    with urlopen(url, timeout=60) as answer:
        assert json.load(answer)["made"] == report["made"]  # a page that asks again and again costs nothing


def test_without_a_running_harp_the_doctor_says_so_and_who_has_its_ports(site: Site) -> None:
    product = Product(site.folder, site.world.nextcloud)
    with Process(
        [sys.executable, "-m", "http.server", str(product.http), "-b", "127.0.0.1"], site.folder / "other"
    ) as other:
        other.until_listening(product.http)
        argv = [*HARP, "doctor"]
        done = subprocess.run(argv, env=product.environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "does `harp run` run here?" in " ".join(done.stdout.split())
    assert "HP_EXAPPS_ADDRESS can be listened on" in done.stdout


def test_check_live_asks_before_harp_runs_and_leaves_it_to_the_doctor_when_it_does(site: Site) -> None:
    product = Product(site.folder / "harp", site.world.nextcloud)
    status, told = check_live(product)
    found = {one["check"]: one["state"] for one in told["findings"]}
    assert found["port:HP_EXAPPS_ADDRESS"] == found["port:HP_FRP_ADDRESS"] == found["nextcloud"] == "ok"
    assert status == 0
    away = Product(site.folder / "away", f"http://127.0.0.1:{free_port()}")
    assert check_live(away)[0] == 1
    site.start()
    status, told = check_live(site.product)
    assert status == 0
    assert "road.websocket" in {one["check"] for one in told["findings"]}


def check_live(product: Product) -> tuple[int, dict[str, Any]]:
    argv = [*HARP, "check", "--live", "--json"]
    done = subprocess.run(argv, env=product.environment, capture_output=True, text=True, timeout=90, check=False)
    assert KEY not in done.stdout + done.stderr
    return done.returncode, json.loads(done.stdout)


def test_01_the_prefix_is_stripped(site: Site) -> None:
    site.edits = [("proxy_pass http://harp;", "proxy_pass http://harp/;")]
    site.start()
    broken(site, "road.prefix", "the reverse proxy strips it", "proxy_pass http://harp;")


def test_02_the_upgrade_is_missing(site: Site) -> None:
    site.edits = [("proxy_set_header Upgrade $http_upgrade;", "")]
    site.start()
    broken(site, "road.websocket", "without its Upgrade header", "proxy_set_header Upgrade $http_upgrade")


def test_03_bodies_are_limited(site: Site) -> None:
    site.edits = [("client_max_body_size 0;", "")]  # nginx's own limit is 1 MB
    site.start()
    broken(site, "road.body", "(413): up to 1 MB passes", "client_max_body_size 0")


def test_04_answers_are_buffered(site: Site) -> None:
    """Over HTTP/1.0, nginx's default before 1.29: it passes chunks of HTTP/1.1 on at once, buffering or not."""
    site.edits = [("proxy_buffering off;", "proxy_buffering on;"), ("proxy_http_version 1.1;", "")]
    site.start()
    broken(site, "road.stream", "the reverse proxy buffers it", "proxy_buffering off", also=("road.websocket",))


def test_05_no_client_address_is_passed_on(site: Site) -> None:
    site.edits = [("proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;", "")]
    site.start()
    broken(site, "road.address", "127.0.0.1 sends no x-forwarded-for", "$proxy_add_x_forwarded_for")


def test_06_the_url_of_nextcloud_is_wrong(site: Site) -> None:
    site.environment["NC_INSTANCE_URL"] = f"http://127.0.0.1:{free_port()}"
    site.tunnel = None
    site.start()
    broken(site, "nextcloud", "Connection refused", "correct NC_INSTANCE_URL", "Nextcloud unavailable")


def test_07_the_key_is_wrong(site: Site) -> None:
    site.environment["HP_SHARED_KEY"] = "another key than Nextcloud's"
    site.tunnel = None
    site.start()
    assert site.product.status("/exapps/hello/public") == 404
    broken(site, "key", "Nextcloud knows no ExApp hello: the key is wrong", "HP_SHARED_KEY", "refuses the shared key")


def test_08_the_tunnel_port_is_blocked(tmp_path: Path) -> None:
    """By a firewall that drops packets without a word; the engine gpu1 is on another host."""
    with own_network(), ExitStack() as stack:
        world = World(tmp_path)
        stack.callback(world.process.stop)
        site = Site(world, tmp_path, stack)
        site.environment["HP_FRP_ADDRESS"] = f"0.0.0.0:{(port := free_port())}"
        with_remote_engine(site)
        drop("127.0.0.2", port)
        cause = f"127.0.0.2:{port} cannot be reached: no answer within 3 s"
        report = broken(site, "tunnel port", cause, "open it in firewalls", also=("tunnel:gpu1",))
        assert report["seconds"] < LIMIT  # whoever asks does not wait for as long as the firewall is silent


def test_08_the_tunnel_port_is_published_on_loopback_alone(site: Site) -> None:
    with_remote_engine(site)
    cause = f"127.0.0.2:{site.product.frp} cannot be reached: Connection refused"
    broken(site, "tunnel port", cause, "-p 8782:8782", also=("tunnel:gpu1",))


def with_remote_engine(site: Site) -> None:
    """The world comes to 127.0.0.2, and the engine gpu1 has been added on another host, whose tunnel is not there."""
    site.public = "127.0.0.2"
    site.listen = "listen 127.0.0.1:PORT; listen 127.0.0.2:PORT;"
    site.environment["HP_TRUSTED_PROXY_IPS"] = "127.0.0.0/8"
    site.start()
    register = [*HARP, "engine", "register", "gpu1", "--port", "24001"]
    subprocess.run(register, env=site.product.environment, capture_output=True, timeout=30, check=True)


def test_09_the_engine_is_down(site: Site) -> None:
    site.environment["HP_DOCKER_HOST"] = f"unix://{site.folder}/docker.sock"
    site.start()
    broken(site, "engine:24000", "No such file or directory", "systemctl start docker")


def test_10_the_exapp_has_crashed(site: Site) -> None:
    site.tunnel = None
    site.start()
    socket = site.folder / "nobody.sock"
    with start_tunnel(site.product, OWN, "hello", TUNNEL_PORT, socket) as tunnel:
        tunnel.until(lambda: "proxy running" in tunnel.text(), "tunnel")
        assert site.product.status("/exapps/hello/public") in (502, 503, 504)
        broken(site, "exapp:hello", "nothing listens behind its tunnel", "start the ExApp", '"doctor found"')


def test_11_the_name_of_the_tunnel_is_wrong(site: Site) -> None:
    site.environment["HP_TUNNEL_HOLD"] = "0"
    site.tunnel = "helo"
    site.start()
    site.product.status("/exapps/hello/public")
    broken(site, "tunnel:hello", "has the name helo, not hello", 'name = "hello"', "doubtful tunnel claim")


def test_12_the_certificate_has_expired(site: Site) -> None:
    site.scheme = "https"
    file = site.folder / "expired.pem"
    file.write_bytes(expired_certificate())
    site.listen = f"listen 127.0.0.1:PORT ssl; ssl_certificate {file}; ssl_certificate_key {file};"
    site.environment["SSL_CERT_FILE"] = str(file)
    site.start()
    broken(site, "road.tls", "has expired", "renew the certificate")


def test_13_the_clock_is_wrong(site: Site) -> None:
    with fast_nextcloud() as url:
        site.environment["NC_INSTANCE_URL"] = url
        site.tunnel = None
        site.start()
        broken(site, "clock", "s ahead of HaRP's", "NTP")


def test_14_descriptors_are_few(site: Site) -> None:
    site.command = ("sh", "-c", 'ulimit -n 512; exec "$@"', "sh", *HARP)
    site.start()
    broken(site, "descriptors", "512 open files allow", "--ulimit nofile=", '"few file descriptors"')


def expired_certificate() -> bytes:
    """One for 127.0.0.1, with its key; it was good until yesterday."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "expired")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=9)).not_valid_after(now - timedelta(days=1))
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    builder = builder.add_extension(names, critical=False)
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    return builder.sign(key, hashes.SHA256()).public_bytes(pem) + private


def test_exapps_is_not_forwarded(site: Site) -> None:
    site.edits = [("location ^~ /exapps/", "location ^~ /other/")]
    site.start()
    broken(site, "road.arrives", "is not forwarded to HaRP: somebody else answers 404", "add a rule for /exapps/")


def test_the_reverse_proxy_does_not_reach_harp(site: Site) -> None:
    site.edits = [("proxy_pass http://harp;", f"proxy_pass http://127.0.0.1:{free_port()};")]
    site.start()
    broken(site, "road.arrives", "it does not reach HaRP", "correct the address of HaRP")


def test_the_reverse_proxy_is_not_trusted(site: Site) -> None:
    site.environment["HP_TRUSTED_PROXY_IPS"] = "10.0.0.1"
    site.start()
    broken(site, "road.address", "it is not in HP_TRUSTED_PROXY_IPS", "HP_TRUSTED_PROXY_IPS=127.0.0.1")


def test_the_road_leads_to_another_harp(site: Site, tmp_path: Path) -> None:
    with running(tmp_path / "other", site.world.nextcloud) as other:
        site.edits = [("proxy_pass http://harp;", f"proxy_pass http://127.0.0.1:{other.http};")]
        site.start()
        broken(site, "road.arrives", "leads to another HaRP than this one", "correct the port")


@contextmanager
def fast_nextcloud() -> Iterator[str]:
    """A Nextcloud that knows no ExApp, and whose clock is AHEAD."""

    class DoctorHandler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401 if "exapp-meta" in self.path else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_HEAD(self) -> None:
            self.do_GET()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string((timestamp or time.time()) + AHEAD)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), DoctorHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
