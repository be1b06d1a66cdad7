"""Everything that runs during a benchmark, on loopback, with configuration files in one temporary directory.

load ─┬─► HAProxy, one thread ──────────────┬─► nginx: static bytes (TCP and unix socket)
      ├─► nginx proxy_pass, one worker ─────┤   (and an nginx as the web server in front of HAProxy and of ours)
      ├─► Caddy, Traefik, one thread each ──┤
      ├─► ours ─────────────────────────────┤
      ├─► ours ═ frpc ══════════════════════┤   ═ mutual TLS
      └─► HAProxy ─► frps ═ frpc ═══════════┴─► benchmarks.exapp: uploads, events, WebSockets (TCP and unix socket)
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.live.frp import BUILT
from tests.live.peers import find
from tests.live.processes import Process, free_port
from tests.live.product import HARP, Product, running
from tests.live.tunnels import configuration

from benchmarks.nextcloud import COOKIE
from benchmarks.trial import OURS

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
FILES = {"1k": KIB, "100m": 100 * MIB, "256m": 256 * MIB, "1g": GIB}
STATIC_PORT, SERVICE_PORT, FLEET_PORT = 23000, 23001, 23100  # tunnel ports
# ExApps. The files of nginx, directly, through a tunnel, and for one cold page; benchmarks.exapp likewise.
PLAIN, TUNNELED, PAGE = "bench", "tunneled", "page"
SERVICE, TUNNELED_SERVICE = "service", "tunneled-service"
CROWD, FLEET = 1000, 100  # ExApps app0, app1, ... with the files, and tunnel0, tunnel1, ... behind as many tunnels
LIGHT = "light"  # an ExApp that is never busy: what its clients wait for is the proxy
WIDE, WIDE_CROWD = "wide", 400  # ExApps wide0, wide1, ... with the files and 999 routes each
TRAEFIK = Path(__file__).parents[1] / ".cache" / "traefik" / "traefik"


class Peers:
    """Starts what is installed; leaves with everything ended. `missing`: what to install for the other rows."""

    def __init__(self, directory: Path, command: Sequence[str] = HARP) -> None:
        self.directory = directory
        self.command = command
        self._stack = ExitStack()
        self.missing: dict[str, str] = {}
        self.cookie = COOKIE
        self.nextcloud = self.upstream = self.service = self.light = 0  # ports
        self.proxies: dict[str, int] = {}  # those beside us, on the way to upstream and service: name -> port
        self.processes: dict[str, Process] = {}  # everything that was started by `run`: name -> process
        self.secure: dict[str, int] = {}  # the same over TLS
        self.fronts: dict[str, int] = {}  # an nginx as a web server in front of ours and of HAProxy: name -> port
        self.chain = 0  # port of the HAProxy in front of frps
        self.frp: Path | None = None  # where frpc and frps are
        self.first_start, self.first_memory = 0.0, 0  # seconds and bytes of the start that makes the certificates

    def __enter__(self) -> Peers:
        with self._stack:  # ends what was started when something else does not start
            self._start()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def versions(self) -> dict[str, str]:
        """Of what takes part."""
        programs = {"HAProxy": ("haproxy", "-v"), "nginx": ("nginx", "-v"), "Caddy": ("caddy", "version")}
        programs |= {"Traefik": (str(TRAEFIK), "version")}
        found = {name: version_of(*argv) for name, argv in programs.items() if name in self.proxies}
        return found | ({"frp": self.frp.name} if self.frp else {})

    @contextmanager
    def instance(self, name: str, **environment: str) -> Iterator[Product]:
        """One more `harp run`, with the same certificates, for the duration of the block."""
        environment = {"HP_LOG_LEVEL": "warning", "HP_CERTS_DIR": str(self.product.certs)} | environment
        with running(self.directory / name, self.nextcloud_url, **environment) as product:
            for port in (product.https, product.frp):  # they follow the first answer
                product.process.until_listening(port)
            yield product

    @property
    def nextcloud_url(self) -> str:
        return f"http://127.0.0.1:{self.nextcloud}"

    def asked(self, app: str) -> Mapping[str, int]:
        """How often each call was made to Nextcloud for an ExApp."""
        connection = http.client.HTTPConnection("127.0.0.1", self.nextcloud, timeout=10)
        connection.request("GET", f"/asked?app={app}")
        calls: dict[str, int] = json.loads(connection.getresponse().read())
        connection.close()
        return calls

    def _start(self) -> None:
        self._need("wrk", "wrk")
        self._start_exapps()
        self._start_nextcloud()
        self._start_ours()
        self._start_proxies()
        versions = sorted((path for path in BUILT.glob("*/frpc")), key=lambda path: version_key(path.parent.name))
        if versions and "HAProxy" in self.proxies:
            self.frp = versions[-1].parent
            self._start_tunnels(self.frp)
        else:
            self.missing["tunnels"] = "frpc, frps (make frp) and haproxy"

    def _start_ours(self) -> None:
        """Twice: the first start makes the certificates of tunnels, which will do for HTTPS listeners as well."""
        self.product = Product(self.directory / "harp", self.nextcloud_url, HP_LOG_LEVEL="warning")
        self.first_start = self.product.start(self.command)
        self.first_memory = self.product.process.rss()
        self.product.stop()
        tunnels = self.product.certs / "frp"
        chain_and_key = (tunnels / "server.crt").read_text() + (tunnels / "server.key").read_text()
        (self.product.certs / "cert.pem").write_text(chain_and_key)
        self.product.start(self.command)
        self._stack.callback(self.product.stop)

    def _start_nextcloud(self) -> None:
        self.nextcloud = free_port()
        ports = {PLAIN: self.upstream, TUNNELED: STATIC_PORT, PAGE: self.upstream}
        ports |= {SERVICE: self.service, TUNNELED_SERVICE: SERVICE_PORT, LIGHT: self.light}
        ports |= {f"{WIDE}{number}": self.upstream for number in range(WIDE_CROWD)}
        ports |= {f"app{number}": self.upstream for number in range(CROWD)}
        ports |= {f"tunnel{number}": FLEET_PORT + number for number in range(FLEET)}
        apps = [f"{app}=127.0.0.1:{port}" for app, port in ports.items()]
        stand_in = self.run("nextcloud", [sys.executable, "-m", "benchmarks.nextcloud", str(self.nextcloud), *apps])
        stand_in.until(lambda: "ready" in stand_in.text(), "Nextcloud stand-in")

    def _start_proxies(self) -> None:
        """HAProxy first: it is the one that others are compared with."""
        if self._need("HAProxy", "haproxy"):
            self.secure["HAProxy"] = free_port()
            bind = f"bind 127.0.0.1:{self.secure['HAProxy']} ssl crt {self.product.certs}/cert.pem alpn http/1.1"
            self.proxies["HAProxy"] = self._start_haproxy("haproxy", self.upstream, self.service, bind)
        self.proxies["nginx"] = self._start_nginx_proxy(self.upstream)
        self.fronts = {OURS: self._start_front("front-ours", self.product.http)}
        if "HAProxy" in self.proxies:
            self.fronts["HAProxy"] = self._start_front("front-haproxy", self.proxies["HAProxy"])
        if self._need("Caddy", "caddy"):
            self.proxies["Caddy"] = self._start_caddy(self.upstream)
        if self._need("Traefik", str(TRAEFIK)):
            self.proxies["Traefik"] = self._start_traefik(self.upstream)

    def _need(self, peer: str, program: str) -> bool:
        if find(program) is None:
            self.missing[peer] = program
        return peer not in self.missing

    def run(self, name: str, argv: list[str], env: Mapping[str, str] | None = None) -> Process:
        """A process that ends with the benchmark at the latest."""
        process = self._stack.enter_context(Process(argv, self.directory / f"{name}.log", env=env))
        self.processes[name] = process
        return process

    def write(self, name: str, text: str) -> str:
        """A configuration file; its path."""
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def _start_exapps(self) -> None:
        """nginx with the files, on a port and on upstream.sock; benchmarks.exapp likewise on service.sock."""
        root = self.directory / "files"
        for folder in (root, root / "user"):
            folder.mkdir()
            for name, size in FILES.items():
                with (folder / name).open("wb") as file:
                    file.truncate(size)  # sparse
        self.upstream, self.service = free_port(), free_port()
        self._run_nginx(
            "upstream",
            f"""
            upstream taken {{ server unix:{self.directory}/upstream.sock; keepalive 256; }}
            server {{
                listen 127.0.0.1:{self.upstream} backlog=4096;
                proxy_http_version 1.1;
                proxy_set_header Connection "";
                listen unix:{self.directory}/upstream.sock;
                root {root};
                location ~ ^(/exapps/{PLAIN})?(/user)?/real/ {{
                    default_type application/javascript;
                    add_header ETag '"$request_id"';
                    add_header X-Request-Id $request_id;
                    add_header X-Time $msec;
                    add_header Cache-Control "private, max-age=0, must-revalidate";
                    add_header Content-Security-Policy "default-src 'none'; frame-ancestors 'self'";
                    add_header X-Content-Type-Options nosniff;
                    return 200 "{"x" * KIB}";
                }}
                location ~ ^(/exapps/{PLAIN})?/taken {{ return 200 "taken"; }}
                location ~ ^(/exapps/{PLAIN})?/post {{ # reads the whole body before it answers
                    client_body_buffer_size 1m;
                    proxy_pass_request_body off;
                    proxy_set_header Content-Length "";
                    proxy_method GET;
                    rewrite ^ /taken break;
                    proxy_pass http://taken;
                }}
            }}""",
        ).until_listening(self.upstream)
        exapp = [sys.executable, "-m", "benchmarks.exapp", f"{self.directory}/service.sock", str(self.service)]
        self.run("exapp", exapp).until_listening(self.service)
        self.light = free_port()
        answer = f'location / {{ return 200 "{"x" * KIB}"; }}'
        self._run_nginx("light", f"server {{ listen 127.0.0.1:{self.light}; {answer} }}").until_listening(self.light)

    def _run_nginx(self, name: str, servers: str) -> Process:
        nginx = find("nginx")
        if nginx is None:
            raise SystemExit("benchmarks need nginx, as the application behind every contender: scripts/install-peers")
        folder = self.directory / f"nginx-{name}"
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
        return self.run(f"nginx-{name}", [nginx, "-p", str(folder), "-c", self.write(f"nginx-{name}.conf", config)])

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

    def _start_front(self, name: str, behind: int) -> int:
        """The web server of a Nextcloud, as docs/reverse-proxies.md has it."""
        port = free_port()
        self._run_nginx(
            name,
            f"""
            upstream behind {{ server 127.0.0.1:{behind}; keepalive 32; keepalive_requests 1000000000; }}
            server {{
                listen 127.0.0.1:{port} backlog=4096;
                location /exapps/ {{
                    proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection "";
                    proxy_set_header Host $host; proxy_set_header X-Forwarded-Proto https;
                    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                    proxy_request_buffering off; proxy_buffering off;
                }}
            }}""",
        ).until_listening(port)
        return port

    def _start_caddy(self, upstream: int) -> int:
        port = free_port()
        config = f"""
{{
    admin off
    auto_https off
    servers {{
        protocols h1
    }}
}}
http://127.0.0.1:{port} {{
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:{upstream} {{
        transport http {{
            keepalive_idle_conns_per_host 256
            compression off
        }}
    }}
}}
"""
        program = find("caddy")
        assert program is not None
        argv = [program, "run", "--adapter", "caddyfile", "--config", self.write("Caddyfile", config)]
        self.run("caddy", argv, self._one_thread()).until_listening(port)
        return port

    def _start_traefik(self, upstream: int) -> int:
        port = free_port()
        routes = f"""
http:
  routers:
    all: {{entryPoints: [http], rule: "PathPrefix(`/`)", service: app}}
  services:
    app: {{loadBalancer: {{serversTransport: pooled, servers: [{{url: "http://127.0.0.1:{upstream}"}}]}}}}
  serversTransports:
    pooled: {{maxIdleConnsPerHost: 256}}
"""
        config = f"""
global: {{checkNewVersion: false, sendAnonymousUsage: false}}
entryPoints: {{http: {{address: "127.0.0.1:{port}"}}}}
providers: {{file: {{filename: {self.write("traefik-routes.yml", routes)}, watch: false}}}}
"""
        argv = [str(TRAEFIK), f"--configFile={self.write('traefik.yml', config)}"]
        self.run("traefik", argv, self._one_thread()).until_listening(port)
        return port

    def _one_thread(self) -> dict[str, str]:
        """The environment of a Go program that may use as many threads for its work as HAProxy and we have: one."""
        return {"GOMAXPROCS": "1", "HOME": str(self.directory)}

    def _start_haproxy(self, name: str, upstream: int, service: int, bind: str = "") -> int:
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
    {bind}
    use_backend service if {{ path /upload /tiny /events /echo /raw }}
    use_backend light if {{ path_beg /light/ }}
    default_backend app
backend light
    server light 127.0.0.1:{self.light}
backend app
    server app 127.0.0.1:{upstream}
backend service
    option http-no-delay # without it, a chunk that has no successor waits for 200 ms
    server service 127.0.0.1:{service}
"""
        program = find("haproxy")
        assert program is not None
        self.run(name, [program, "-db", "-f", self.write(f"{name}.cfg", config)]).until_listening(port)
        return port

    def start_frps(self, name: str, frp: Path) -> tuple[Process, int]:
        """A frps with mutual TLS by our certificates, and its port."""
        certificates = self.product.certs / "frp"
        port = free_port()
        config = f"""
bindAddr = "127.0.0.1"
bindPort = {port}
proxyBindAddr = "127.0.0.1"
transport.tls.force = true
transport.tls.certFile = "{certificates}/server.crt"
transport.tls.keyFile = "{certificates}/server.key"
transport.tls.trustedCaFile = "{certificates}/ca.crt"
"""
        frps = self.run(name, [str(frp / "frps"), "-c", self.write(f"{name}.toml", config)])
        frps.until_listening(port)
        return frps, port

    def start_frpc(self, name: str, frp: Path, server: int, app: str, remote_port: int, socket: str) -> Process:
        """A frpc that offers the ExApp on `socket` at the FRP server on port `server`."""
        file = self.directory / f"{socket}.sock"
        config = configuration(self.product.certs / "frp", server, app, remote_port, file)
        return self.run(name, [str(frp / "frpc"), "-c", self.write(f"{name}.toml", config)])

    def _start_tunnels(self, frp: Path) -> None:
        """The same frpc twice behind ours and twice behind frps."""
        _, frps = self.start_frps("frps", frp)
        behind_frps = []  # frps listens on real ports, ours only calls them so
        for app, port, socket in ((TUNNELED, STATIC_PORT, "upstream"), (TUNNELED_SERVICE, SERVICE_PORT, "service")):
            behind_frps.append(free_port())
            self.start_frpc(f"frpc-{app}", frp, self.product.frp, app, port, socket)
            frpc = self.start_frpc(f"frpc-frps-{app}", frp, frps, app, behind_frps[-1], socket)
            frpc.until_listening(behind_frps[-1])
        static, service = behind_frps
        self.chain = self._start_haproxy("haproxy-frps", static, service)
        process = self.product.process
        process.until(lambda: self.product.status(f"/exapps/{TUNNELED}/1k") == 200, "tunnel")
        process.until(lambda: self.product.status(f"/exapps/{TUNNELED_SERVICE}/") == 200, "tunnel of the service")


def version_of(program: str, question: str) -> str:
    """The first number with dots that a program tells of itself."""
    found = find(program)
    assert found is not None
    done = subprocess.run([found, question], capture_output=True, text=True, check=True)
    version = re.search(r"\d+(?:\.\d+)+", done.stdout + done.stderr)
    return version[0] if version else "unknown"


def version_key(version: str) -> tuple[int, ...]:
    """ "0.61.1" -> (0, 61, 1)."""
    return tuple(int(part) for part in version.split("."))
