"""Everything that runs during a benchmark, on loopback, with configuration files in one temporary directory.

wrk ──┬─► HAProxy, one thread ──────────────┬─► nginx: static bytes (TCP and unix socket)
      ├─► nginx proxy_pass, one worker ─────┤
      ├─► ours ─────────────────────────────┤
      ├─► ours ═ frpc ══════════════════════┤   ═ mutual TLS
      └─► HAProxy ─► frps ═ frpc ═══════════┴─► sink: swallows uploads (unix socket)
"""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.live.frp import BUILT
from tests.live.peers import find
from tests.live.processes import Process, free_port
from tests.live.product import HARP, Product
from tests.live.tunnels import configuration

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
FILES = {"1k": KIB, "100m": 100 * MIB, "256m": 256 * MIB, "1g": GIB}
STATIC_PORT, SINK_PORT = 23000, 23001  # tunnel ports
PLAIN, TUNNELED, SWALLOWING = "bench", "tunneled", "sink"  # ExApps


class Peers:
    """Starts what is installed; leaves with everything ended. `missing`: what to install for the other rows."""

    def __init__(self, directory: Path, command: Sequence[str] = HARP) -> None:
        self._directory = directory
        self.command = command
        self._stack = ExitStack()
        self.missing: dict[str, str] = {}
        self.cookie = self.frp_version = ""
        self.haproxy = self.nginx = self.haproxy_frps = 0  # ports

    def __enter__(self) -> Peers:
        with self._stack:  # ends what was started when something else does not start
            self._start()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        self._need("wrk", "wrk")
        upstream = self._start_upstream()
        nextcloud = free_port()
        apps = [f"{PLAIN}=127.0.0.1:{upstream}", f"{TUNNELED}=127.0.0.1:{STATIC_PORT}"]
        apps.append(f"{SWALLOWING}=127.0.0.1:{SINK_PORT}")
        stand_in = self._run("nextcloud", [sys.executable, "-m", "benchmarks.nextcloud", str(nextcloud), *apps])
        stand_in.until(lambda: "ready" in stand_in.text(), "Nextcloud stand-in")
        self.cookie = log_in(nextcloud)

        self.product = Product(self._directory / "harp", f"http://127.0.0.1:{nextcloud}", HP_LOG_LEVEL="warning")
        self.first_start = self.product.start(self.command)  # makes the certificates
        self._stack.callback(self.product.stop)

        if self._need("haproxy", "haproxy"):
            self.haproxy = self._start_haproxy("haproxy", upstream, upstream)
        self.nginx = self._start_nginx_proxy(upstream)
        versions = sorted((path for path in BUILT.glob("*/frpc")), key=lambda path: version_key(path.parent.name))
        if versions and self.haproxy:
            self._start_tunnels(versions[-1].parent)
        else:
            self.missing["tunnels"] = "frpc, frps (make frp) and haproxy"

    def _need(self, peer: str, program: str) -> bool:
        if find(program) is None:
            self.missing[peer] = program
        return peer not in self.missing

    def _run(self, name: str, argv: list[str]) -> Process:
        return self._stack.enter_context(Process(argv, self._directory / f"{name}.log"))

    def _write(self, name: str, text: str) -> str:
        path = self._directory / name
        path.write_text(text)
        return str(path)

    def _start_upstream(self) -> int:
        """nginx with the files, on a port and on upstream.sock; the sink on sink.sock."""
        root = self._directory / "files"
        for folder in (root, root / "user"):
            folder.mkdir()
            for name, size in FILES.items():
                with (folder / name).open("wb") as file:
                    file.truncate(size)  # sparse
        port = free_port()
        self._run_nginx(
            "upstream",
            f"""
            server {{
                listen 127.0.0.1:{port} backlog=4096;
                listen unix:{self._directory}/upstream.sock;
                root {root};
            }}""",
        ).until_listening(port)
        self._run("sink", [sys.executable, "-m", "benchmarks.sink", f"{self._directory}/sink.sock"])
        return port

    def _run_nginx(self, name: str, servers: str) -> Process:
        nginx = find("nginx")
        if nginx is None:
            raise SystemExit("benchmarks need nginx, as the application behind every contender: scripts/install-peers")
        folder = self._directory / f"nginx-{name}"
        folder.mkdir()
        user = "user root;" if os.geteuid() == 0 else ""
        config = f"""
        daemon off; worker_processes 1; {user} pid {folder}/pid; error_log stderr;
        events {{ worker_connections 8192; }}
        http {{
            access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; open_file_cache max=100;
            client_max_body_size 0; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
            fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
            {servers}
        }}"""
        return self._run(f"nginx-{name}", [nginx, "-p", str(folder), "-c", self._write(f"nginx-{name}.conf", config)])

    def _start_nginx_proxy(self, upstream: int) -> int:
        port = free_port()
        self._run_nginx(
            "proxy",
            f"""
            upstream app {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
            server {{
                listen 127.0.0.1:{port} backlog=4096;
                location / {{
                    proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
                    proxy_request_buffering off; proxy_max_temp_file_size 0;
                }}
            }}""",
        ).until_listening(port)
        return port

    def _start_haproxy(self, name: str, upstream: int, sink: int) -> int:
        port = free_port()
        config = f"""
global
    nbthread 1
    maxconn 8192
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    http-reuse always
frontend in
    bind 127.0.0.1:{port}
    use_backend sink if {{ path /upload }}
    default_backend app
backend app
    server app 127.0.0.1:{upstream}
backend sink
    server sink 127.0.0.1:{sink}
"""
        program = find("haproxy")
        assert program is not None
        self._run(name, [program, "-db", "-f", self._write(f"{name}.cfg", config)]).until_listening(port)
        return port

    def _start_tunnels(self, frp: Path) -> None:
        """The same frpc twice behind ours and twice behind frps, all with mutual TLS by the same certificates."""
        self.frp_version = frp.name
        certificates = self.product.certs / "frp"
        frps_port = free_port()
        frps_config = f"""
bindAddr = "127.0.0.1"
bindPort = {frps_port}
proxyBindAddr = "127.0.0.1"
transport.tls.force = true
transport.tls.certFile = "{certificates}/server.crt"
transport.tls.keyFile = "{certificates}/server.key"
transport.tls.trustedCaFile = "{certificates}/ca.crt"
"""
        frps = self._run("frps", [str(frp / "frps"), "-c", self._write("frps.toml", frps_config)])
        frps.until_listening(frps_port)
        behind_frps = []  # frps listens on real ports, ours only calls them so
        for name, port, socket in ((TUNNELED, STATIC_PORT, "upstream"), (SWALLOWING, SINK_PORT, "sink")):
            file = self._directory / f"{socket}.sock"
            behind_frps.append(free_port())
            ours = configuration(certificates, self.product.frp, name, port, file)
            theirs = configuration(certificates, frps_port, name, behind_frps[-1], file)
            self._run(f"frpc-{name}", [str(frp / "frpc"), "-c", self._write(f"{name}-harp.toml", ours)])
            frpc = self._run(f"frpc-frps-{name}", [str(frp / "frpc"), "-c", self._write(f"{name}-frps.toml", theirs)])
            frpc.until_listening(behind_frps[-1])
        self.haproxy_frps = self._start_haproxy("haproxy-frps", *behind_frps)
        process = self.product.process
        process.until(lambda: self.product.status(f"/exapps/{TUNNELED}/1k") == 200, "tunnel")
        process.until(lambda: self.product.status(f"/exapps/{SWALLOWING}/") == 200, "tunnel of the sink")


def version_key(version: str) -> tuple[int, ...]:
    """ "0.61.1" -> (0, 61, 1)."""
    return tuple(int(part) for part in version.split("."))


def log_in(port: int) -> str:
    """A session cookie header of the user "user" at the stand-in."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/login", "user=user&password=user", form)
    answer = connection.getresponse()
    answer.read()
    cookies = [value.partition(";")[0] for name, value in answer.getheaders() if name.lower() == "set-cookie"]
    connection.close()
    return "; ".join(cookies)
