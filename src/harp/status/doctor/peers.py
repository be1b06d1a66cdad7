"""Whom HaRP talks to, asked now: Nextcloud, its key and clock, engines, ExApps, and the tunnel port itself."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import time
from collections.abc import Iterable, Sequence
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from harp.errors import HarpError, TunnelAway, words_of
from harp.net.tls_selfcheck import client_context
from harp.policy.exapp import ExApp, Trouble, UnknownApp
from harp.policy.ports import LOCAL_ENGINE_PORT, SERVER_NAME
from harp.settings import Address, Settings
from harp.status.doctor import fixes
from harp.status.doctor.examined import Examined
from harp.status.doctor.report import Finding, failed, ok, skipped, warning
from harp.status.doctor.road import Road, RoadBroken
from harp.status.snapshot import AppLine

SKEW = 60.0  # seconds between two clocks
MOST_ASKED = 3  # ExApps that are asked for to prove the key
MOST_KNOCKS = 200  # ExApps that are knocked at
AT_ONCE = 16
KNOCK = 6.0  # seconds
ASK_ENGINE = 8.0  # seconds
CONNECT = 3.0  # seconds
RECENT = 3600.0  # seconds in which a refusal is still news
WRONG_KEY = "shared key refused"
DEFAULT_SOCKETS = ("/var/run/docker.sock", "/run/docker.sock")


async def nextcloud_findings(examined: Examined, app: str) -> list[Finding]:
    """Reachable, key accepted, clocks agree. `app`: an ExApp that is installed, as the operator says, or ""."""
    url = examined.settings.nextcloud.url
    title = "Nextcloud answers HaRP"
    trouble = await examined.probe_nextcloud()
    clock = await asyncio.to_thread(clock_finding, url)
    if trouble:
        found = failed("nextcloud", title, f"{url}: {trouble}", nextcloud_fix(trouble))
        unknown = skipped("key", "Nextcloud accepts the shared key", "Nextcloud does not answer")
        return [found, unknown, clock]
    return [ok("nextcloud", title, url), await _key(examined, app), clock]


def nextcloud_fix(trouble: str) -> str:
    """Return what to do about trouble with Nextcloud, by its words."""
    for sign, fix in (
        ("AppAPI", fixes.APPAPI),
        ("trusted_domains", fixes.DOMAINS),
        ("maintenance", fixes.MAINTENANCE),
        ("certificate", fixes.TLS),
        ("answers 5", fixes.NEXTCLOUD_LOG),
    ):
        if sign in trouble:
            return fix
    return fixes.NEXTCLOUD_URL


async def _key(examined: Examined, app: str) -> Finding:
    """Only the record of an ExApp proves the key: a wrong one and an unknown ExApp get the same answer (A 5.1)."""
    title = "Nextcloud accepts the shared key"
    known = [line.app for line in examined.snapshot().apps]
    names = [app] if app else list(dict.fromkeys([*known, *examined.tunnel_names()]))[:MOST_ASKED]
    refused = []
    for name in names:
        fact = await examined.ask_record(name.lower())
        if isinstance(fact, ExApp):
            return _wrong_callers(examined) or ok("key", title, f"it has shown the record of ExApp {name}")
        if isinstance(fact, UnknownApp):
            refused.append(name)
        elif isinstance(fact, Trouble):
            return skipped("key", title, fact.reason)
    doubted = app or ", ".join(refused) or examined.key_doubted
    if doubted:
        cause = f"with this key Nextcloud knows no ExApp {doubted}: the key is wrong, or the ExApp is not installed"
        return failed("key", title, cause, fixes.KEY)
    return _wrong_callers(examined) or skipped(
        "key", title, "no ExApp is known yet, and nothing else proves it", fixes.PROVE_KEY
    )


def _wrong_callers(examined: Examined) -> Finding | None:
    """Return who sends another key than ours."""
    refused = [warned for warned in examined.recent_warnings(RECENT) if warned.event == WRONG_KEY]
    if not refused:
        return None
    cause = f"{refused[-1].source} has sent a shared key that is not HP_SHARED_KEY within the last hour"
    return warning("key", "Nextcloud accepts the shared key", cause, fixes.KEY)


def clock_finding(url: str) -> Finding:
    """Compare clocks. Blocks."""
    title = "the clocks of HaRP and Nextcloud agree"
    try:
        before = time.time()
        answer = Road(url, verify=False).ask("HEAD", "/status.php")
        ours = (before + time.time()) / 2
        theirs = parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except (RoadBroken, ValueError):
        return skipped("clock", title, "Nextcloud did not send the time")
    skew = theirs - ours
    if abs(skew) > SKEW:
        ahead = "ahead of" if skew > 0 else "behind"
        cause = f"Nextcloud's clock is {abs(skew):.0f} s {ahead} HaRP's"
        return failed("clock", title, cause, fixes.CLOCK)
    return ok("clock", title)


async def engine_findings(examined: Examined, named: Iterable[int]) -> list[Finding]:
    """Return every engine that is here, has a tunnel, or was added and has one."""
    snapshot = examined.snapshot()
    ports = {line.port for line in snapshot.engines if line.tunnel is not None}
    ports |= {line.port for line in snapshot.engines if line.port == LOCAL_ENGINE_PORT}
    connected = {port for tunnel in snapshot.tunnels for port in tunnel.ports}
    ports |= set(named) & connected
    return list(await asyncio.gather(*(_engine(examined, port) for port in sorted(ports))))


async def _engine(examined: Examined, port: int) -> Finding:
    local = port == LOCAL_ENGINE_PORT
    host = examined.settings.engines.host
    where = f"the engine of this host ({host})" if local else f"the engine of port {port}"
    check, title = f"engine:{port}", f"{where} answers"
    try:
        version, gpus = await examined.ask_engine(port, ASK_ENGINE)
    except HarpError as error:
        return engine_trouble(check, title, str(error), host, local=local)
    return ok(check, title, f"{version}; GPUs: {', '.join(gpus) or 'none'}")


def engine_trouble(check: str, title: str, cause: str, host: Address, *, local: bool) -> Finding:
    """Judge why an engine cannot be asked."""
    if local and host.path in DEFAULT_SOCKETS and "No such file" in cause:
        return skipped(check, title, "there is no socket, so HaRP deploys nothing on this host", fixes.SOCKET)
    fix = fixes.SOCKET_RIGHTS if "ermission denied" in cause else fixes.ENGINE if local else fixes.NO_ENGINE_TUNNEL
    return failed(check, title, cause, fix)


async def exapp_findings(examined: Examined, apps: Sequence[AppLine]) -> list[Finding]:
    """Knock at every ExApp that can be reached."""
    turns = asyncio.Semaphore(AT_ONCE)
    there = [app for app in apps if app.tunnel != "not connected"][:MOST_KNOCKS]
    return list(await asyncio.gather(*(_exapp(examined, app, turns) for app in there)))


async def _exapp(examined: Examined, app: AppLine, turns: asyncio.Semaphore) -> Finding:
    check, title = f"exapp:{app.app}", f"ExApp {app.app} answers"
    fix = fixes.SILENT if app.tunnel else fixes.EXAPP
    async with turns:
        try:
            async with asyncio.timeout(KNOCK):
                line = await examined.knock(app.app, app.host, app.port)
        except TunnelAway as error:
            return failed(check, title, str(error), fixes.NO_TUNNEL.replace("ID", app.app))
        except HarpError as error:
            return failed(check, title, str(error), fix)
        except TimeoutError:
            cause = "nothing listens behind its tunnel" if app.tunnel else f"{app.host}:{app.port} is silent"
            return failed(check, title, f"{cause}: no answer within {KNOCK:g} s", fix)
    if not line:
        cause = "nothing listens behind its tunnel" if app.tunnel else f"{app.host}:{app.port} answers nothing"
        return failed(check, title, f"{cause}: the connection is closed without an answer", fix)
    if not line.startswith("HTTP/"):
        return failed(check, title, f"{app.host}:{app.port} does not speak HTTP", fix)
    return ok(check, title, line)


def tunnel_port_findings(settings: Settings, *, wanted: bool) -> list[Finding]:
    """Try the tunnel port as clients do, here and, when a tunnel is `wanted` and away, from outside. Blocks."""
    findings = []
    for address in settings.listen.frp:
        check, title = f"tunnel port:{address}", f"the tunnel port {address} accepts clients"
        if address.path:
            continue
        here = Address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host), address.port)  # noqa: S104
        why = _tunnel_port(here, settings)
        fix = fixes.TUNNEL_CERTIFICATE if "certificate" in why else fixes.TUNNEL_PORT
        findings.append(failed(check, title, why, fix) if why else ok(check, title))
    host, ports = urlsplit(settings.public_url).hostname or "", [one.port for one in settings.listen.frp if one.port]
    if wanted and ports:
        outside = Address(host, ports[0])
        title = f"tunnel clients on other hosts reach {outside}"
        why = _tunnel_port(outside, settings)
        blocked = failed("tunnel port", title, f"{outside} cannot be reached: {why}", fixes.TUNNEL_OPEN)
        findings.append(blocked if why else ok("tunnel port", title))
    return findings


def _tunnel_port(address: Address, settings: Settings) -> str:
    """Connect as a tunnel client does; return what prevents it, or ""."""
    try:
        with socket.create_connection((address.host, address.port), CONNECT) as sock:
            if settings.tunnel.tls:
                context = client_context(settings.certs / "frp")
                with context.wrap_socket(sock, server_hostname=SERVER_NAME):
                    pass
    except TimeoutError:
        return f"no answer within {CONNECT:g} s"
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not trusted: {error.verify_message}"
    except (OSError, http.client.HTTPException) as error:
        return words_of(error) if isinstance(error, OSError) else str(error)
    return ""
