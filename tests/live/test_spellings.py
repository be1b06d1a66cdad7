"""Nobody reaches a handler of an ExApp by a spelling of its path when the plain path is refused.

Real servers are asked: whatever the decision lets an anonymous visitor send is sent to each of them, and they say which
handler that would have run, in every way that ExApps read a target.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from harp.errors import BadRequest
from harp.policy.bans import lowest_counted
from harp.policy.decide import Rules, decide
from harp.policy.exapp import ANONYMOUS, ExApp, Level, RecordFact, Route, VisitorFact
from harp.policy.exapp_target import ExAppTargets
from harp.policy.question import Asker, Question
from harp.policy.verdict import Forward
from harp.wire.requests import RequestReader
from tests.live.peers import do_without, find, path_of
from tests.live.processes import Process, free_port
from tests.live.spellings import spellings
from tests.live.wire import Client

ROOT = Path(__file__).parents[2]
SERVERS = Path(__file__).parent / "exapp_servers"
CACHE = ROOT / ".cache" / "exapp-servers"  # what scripts/install-exapp-servers has fetched
TOMCAT = Path("/usr/share/java/tomcat10-embed-core.jar")
COUNT = int(os.environ.get("HARP_SPELLINGS", "4000"))

HANDLERS = ["/", "/admin", "/admin/users", "/secret", "/settings/", "/public/x", "/init", "/heartbeat", "/enabled"]
OPEN = Route(".*", Level.PUBLIC)
TABLES = {
    "a strict route before one for all": (Route("^/admin", Level.ADMIN), Route("^/settings", Level.USER), OPEN),
    "exact strict routes": (
        *(Route(f"^{path}$", Level.ADMIN) for path in ("/admin", "/admin/users", "/secret", "/settings/", "/")),
        OPEN,
    ),
    "strict folders": (Route("^/admin/", Level.ADMIN), Route("^/settings/", Level.USER), OPEN),
    "public things only": (Route("^/public/.*$", Level.PUBLIC),),
    "public names of one segment": (Route("^/[^/]+$", Level.PUBLIC), Route("^/public/", Level.PUBLIC)),
    "bare patterns, as in old manifests": (Route("admin", Level.ADMIN), Route("public/.*", Level.PUBLIC)),
}

Server = Callable[[int, Path], list[str]]


class SpelledFacts:
    """One ExApp, and nobody is logged in."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self._record = ExApp("hello", "secret", "1", "h", 80, routes)

    def banned(self, ban_key: str) -> float:
        return 0.0

    def record(self, app_id: str) -> RecordFact | None:
        return self._record

    def visitor(self, digest: bytes) -> VisitorFact | None:
        return ANONYMOUS

    def expects(self, target: bytes) -> bool:
        return False


RULES = Rules(shared_key=b"the key", engine_ports=frozenset(), targets=ExAppTargets(), counted=lowest_counted("auth"))
FACTS = {name: SpelledFacts(routes) for name, routes in TABLES.items()}
READER = RequestReader(50)


def forwarded(target: str, facts: SpelledFacts) -> str | None:
    """The target as the ExApp gets it, None when an anonymous visitor is refused."""
    try:
        head = READER.read(b"GET /exapps/hello%b HTTP/1.1\r\nHost: h\r\n\r\n" % target.encode())
    except BadRequest:
        return None
    verdict = decide(Question(head.path, Asker("203.0.113.7")), facts, RULES)
    return (verdict.target + head.query).decode() if isinstance(verdict, Forward) else None


@cache
def permitted() -> dict[str, list[str]]:
    """What is forwarded of all the spellings, with the tables that let it pass."""
    found: dict[str, list[str]] = {}
    for spelling in spellings(HANDLERS, COUNT, seed=8):
        for table, facts in FACTS.items():
            if (target := forwarded(spelling, facts)) is not None:
                found.setdefault(target, []).append(table)
    return found


PLAIN = {table: {path for path in HANDLERS if forwarded(path, facts)} for table, facts in FACTS.items()}


async def ask(port: int, targets: list[str]) -> dict[str, set[str]]:
    """The handlers that the server of `port` may run for each target, as "way=path"."""
    found: dict[str, set[str]] = {}
    left = iter(targets)

    async def ask_in_turn() -> None:
        client = await Client.connect(port)
        for target in left:
            try:
                await client.send(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % target.encode())
                answer = await client.answer()
            except (ConnectionError, asyncio.IncompleteReadError):  # its way to refuse
                client = await Client.connect(port)
                continue
            if answer.status == 200:
                found[target] = {word for word in answer.body.decode().split() if not word.endswith("=-")}
            if answer.status == 400 or (answer.header("connection") or "").lower() == "close":
                client.close()
                client = await Client.connect(port)
        client.close()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(ask_in_turn())
    return found


def fetched(name: str) -> Path:
    """Something of scripts/install-exapp-servers."""
    if not (CACHE / name).exists():
        do_without(f"{CACHE / name} not found: run scripts/install-exapp-servers")
    return CACHE / name


def php(port: int, folder: Path) -> list[str]:
    return [path_of("php-cli", "php"), "-S", f"127.0.0.1:{port}", str(SERVERS / "php.php")]


def node(port: int, folder: Path) -> list[str]:
    return [str(fetched("node")), "--no-deprecation", str(SERVERS / "node.js"), str(port)]


def express(port: int, folder: Path) -> list[str]:
    fetched("node_modules/express")
    return [str(fetched("node")), str(SERVERS / "express.js"), str(port)]


def flask(port: int, folder: Path) -> list[str]:
    return [str(fetched("venv/bin/python")), str(SERVERS / "flask_app.py"), str(port)]


def starlette(port: int, folder: Path) -> list[str]:
    return [str(fetched("venv/bin/python")), str(SERVERS / "starlette_app.py"), str(port)]


def go(port: int, folder: Path) -> list[str]:
    installed = find("go") or find("/usr/local/go/bin/go") or find(str(ROOT / ".cache/go/bin/go"))
    if installed is None:
        do_without("go not found: run scripts/install-go")
    built = folder / "server"
    cache = {"GOCACHE": str(CACHE / "go-build"), "GOFLAGS": "-mod=mod", "GO111MODULE": "off"}
    subprocess.run(
        [installed, "build", "-o", str(built), str(SERVERS / "server.go")], check=True, env={**os.environ, **cache}
    )
    return [str(built), str(port)]


def nginx(port: int, folder: Path) -> list[str]:
    exact = "".join(f'location = {path} {{ return 200 "exact={path}"; }}\n' for path in HANDLERS)
    loose = "".join(f'location ~* ^{path.rstrip("/")}/*$ {{ return 200 "loose={path}"; }}\n' for path in HANDLERS)
    temporary = "".join(f"{name}_temp_path {folder};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(f"""
    daemon off; worker_processes 1; pid {folder}/pid; error_log stderr crit;
    events {{ worker_connections 256; }}
    http {{
        access_log off; keepalive_requests 1000000; {temporary}
        server {{ listen 127.0.0.1:{port}; {exact} {loose} location / {{ return 404; }} }}
    }}""")
    return [path_of("nginx", "nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]


def tomcat(port: int, folder: Path) -> list[str]:
    if not TOMCAT.exists():
        do_without(f"{TOMCAT} not found: install libtomcat10-embed-java (scripts/install-peers)")
    return [
        path_of("default-jdk-headless", "java"),
        "-cp",
        f"{TOMCAT.parent}/*",
        str(SERVERS / "Tomcat.java"),
        str(port),
    ]


@pytest.mark.timeout(300)  # Go compiles its own library at first
@pytest.mark.parametrize("server", [php, node, express, flask, starlette, go, nginx, tomcat], ids=lambda f: f.__name__)
async def test_no_spelling_reaches_a_handler_that_its_plain_path_does_not(server: Server, tmp_path: Path) -> None:
    port = free_port()
    environment = {**os.environ, "HANDLERS": ",".join(HANDLERS), "NODE_PATH": str(CACHE / "node_modules")}
    with Process(server(port, tmp_path), tmp_path / "log", env=environment) as process:
        process.until_listening(port)
        ran = await ask(port, list(permitted()))
    assert sum(map(bool, ran.values())) >= 20, process.text()[-2000:]  # it is asked for things that it has
    reached = {
        f"{table}: {target} runs {word}"
        for target, words in ran.items()
        for word in words
        for table in permitted()[target]
        if word.partition("=")[2] not in PLAIN[table]
    }
    assert not reached, f"{len(reached)} spellings, for example\n" + "\n".join(sorted(reached)[:25])
