"""`harp engine list`, `check` and `add NAME`: the Docker engines of this HaRP (A 7.5).

`list` and `check` ask the HaRP that runs with the settings of the environment; `add` writes everything that a remote
host needs to offer its engine through a tunnel.
"""

from __future__ import annotations

import http.client
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from harp.commands.health import connect
from harp.errors import HarpError, SettingsError, Unreachable
from harp.policy.ports import ENGINE_PORTS, LOCAL_ENGINE_PORT, SERVER_NAME
from harp.settings import Address, Settings
from harp.status.engines import EngineLine

PATIENCE = 10.0  # seconds for an answer
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
CERTIFICATES = ("ca.crt", "client.crt", "client.key")


@dataclass(frozen=True, slots=True)
class Bundle:
    """What `add` was told."""

    name: str
    directory: Path
    port: int | None  # None = the first that is free
    address: str | None  # host or host:port of this HaRP as the remote host reaches it; None = Nextcloud's host
    image: str


def show(settings: Settings) -> int:
    """Print the inventory; the exit code."""
    return _guarded(lambda: _show(_inventory(settings)))


def check(settings: Settings, ports: Sequence[int]) -> int:
    """Ask these engines, or every one of the inventory, through HaRP as AppAPI does. 1 when one does not answer."""
    return _guarded(lambda: _check(settings, ports or [line.port for line in _inventory(settings)]))


def add(settings: Settings, bundle: Bundle) -> int:
    """Write a bundle for a remote host; the exit code."""
    return _guarded(lambda: _add(settings, bundle))


def _guarded(work: Callable[[], int]) -> int:
    try:
        return work()
    except SettingsError as error:
        print("\n".join(error.problems), file=sys.stderr)
    except (HarpError, OSError) as error:
        print(error, file=sys.stderr)
    return 1


def _show(lines: Iterable[EngineLine]) -> int:
    print(f"{'port':<6}{'engine':<20}{'API':<14}{'seen':<10}{'tunnel':<24}{'round trip':<12}note")
    for line in lines:
        kind = ("podman " if line.podman else "Docker ") + line.version if line.version else "not asked yet"
        seen = "never" if line.last_seen is None else f"{_age(line.last_seen)} ago"
        tunnel, trip = ("none: local", "") if line.port == LOCAL_ENGINE_PORT else ("not connected", "")
        if line.tunnel is not None:
            tunnel = f"{line.tunnel.name} ({line.tunnel.address})"
            trip = "" if line.tunnel.round_trip is None else f"{line.tunnel.round_trip * 1000:.0f} ms"
        api = line.api.replace(" to ", "-")
        print(f"{line.port:<6}{kind:<20}{api:<14}{seen:<10}{tunnel:<24}{trip:<12}{line.trouble}".rstrip())
    return 0


def _age(moment: float) -> str:
    """How long ago, in one unit."""
    seconds = max(0, int(time.time() - moment))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _check(settings: Settings, ports: Sequence[int]) -> int:
    failed = 0
    for port in ports:
        began = time.monotonic()
        headers = {"harp-shared-key": settings.shared_key, "docker-engine-port": str(port)}
        answer = _get(settings.listen.http[0], "HTTP", "/exapps/app_api/v1.44/_ping", headers)
        took = (time.monotonic() - began) * 1000
        if answer.status == 200:
            print(f"{port}  ok       {took:.0f} ms, {answer.server or 'engine'}, API up to {answer.api}")
        else:
            failed += 1
            print(f"{port}  failing  {answer.status}: {answer.body.decode(errors='replace').splitlines()[0]}")
    return 1 if failed else 0


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    server: str  # the engine's own name and version
    api: str


def _get(address: Address, listener: str, target: str, headers: dict[str, str]) -> _Answer:
    """One request to the running HaRP. Raises Unreachable."""
    client = http.client.HTTPConnection("localhost", timeout=PATIENCE)
    try:
        client.sock = connect(address)
        client.sock.settimeout(PATIENCE)
        client.request("GET", target, headers=headers)
        answer = client.getresponse()
        return _Answer(
            answer.status, answer.read(), answer.getheader("Server", ""), answer.getheader("Api-Version", "")
        )
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(
            f"the {listener} listener {address} does not answer ({error}): does `harp run` run here?"
        ) from error
    finally:
        client.close()


def _inventory(settings: Settings) -> list[EngineLine]:
    answer = _get(settings.listen.admin[0], "admin", "/engines", {})
    if answer.status != 200:
        raise Unreachable(
            f"the admin listener {settings.listen.admin[0]} answers {answer.status}: is it another program?"
        )
    return msgspec.json.decode(answer.body, type=list[EngineLine])


# A bundle for a remote host


def _add(settings: Settings, bundle: Bundle) -> int:
    if not NAME.fullmatch(bundle.name):
        raise SettingsError([f"{bundle.name!r} is no name for an engine; use letters, digits, . _ -"])
    port = _port(settings, bundle.port)
    host, frp_port = _server(settings, bundle.address)
    certificates = _certificates(settings)
    bundle.directory.mkdir(parents=True)  # never into an existing one: there may be another engine's bundle
    for name, content in certificates.items():
        (bundle.directory / name).write_bytes(content)
    _write_private(bundle.directory / "frpc.toml", _frpc_toml(settings, bundle.name, port, host, frp_port))
    (bundle.directory / "compose.yaml").write_text(_compose(bundle))
    print(_next_steps(bundle, port, host, frp_port))
    return 0


def _port(settings: Settings, wanted: int | None) -> int:
    remote = [port for port in ENGINE_PORTS if port in settings.engines.ports]
    if wanted is not None:
        if wanted not in remote:
            raise SettingsError(
                [f"{wanted} is not a port for a remote engine; HP_DOCKER_ENGINE_PORTS above {LOCAL_ENGINE_PORT} are"]
            )
        return wanted
    try:
        taken = {line.port for line in _inventory(settings)}
    except Unreachable:
        taken = set()  # HaRP does not run: nothing is known of others
    free = [port for port in remote if port not in taken]
    if not free:
        raise SettingsError(["no engine port is free; widen HP_DOCKER_ENGINE_PORTS"])
    return free[0]


def _server(settings: Settings, address: str | None) -> tuple[str, int]:
    """Where the remote host finds the tunnel server."""
    split = urlsplit(f"//{address}" if address else settings.nextcloud.url)
    if not split.hostname:
        raise SettingsError([f"{address!r} is no address; write host or host:port"])
    return split.hostname, (split.port if address else None) or settings.listen.frp[0].port


def _certificates(settings: Settings) -> dict[str, bytes]:
    """The client's files of the tunnel, made if this HaRP never ran; none without TLS."""
    if not settings.tunnel.tls:
        return {}
    from harp.net import certificates  # noqa: PLC0415 - `list` needs none

    directory = settings.certs / "frp"
    certificates.ensure(directory, settings.tunnel.validity_days, datetime.now(UTC))
    return {name: (directory / name).read_bytes() for name in CERTIFICATES}


def _write_private(path: Path, text: str) -> None:
    path.touch(0o600)
    path.write_text(text)


def _frpc_toml(settings: Settings, name: str, port: int, host: str, frp_port: int) -> str:
    """What a stock frpc and our own client read. JSON's strings are TOML's."""
    tls = f"""\
transport.tls.enable = true
transport.tls.certFile = "/engine/client.crt"
transport.tls.keyFile = "/engine/client.key"
transport.tls.trustedCaFile = "/engine/ca.crt"
transport.tls.serverName = "{SERVER_NAME}"
"""
    return f"""\
# The engine "{name}" for HaRP, engine port {port}. The token below is HaRP's shared key: keep this file to yourself.
serverAddr = {json.dumps(host)}
serverPort = {frp_port}
loginFailExit = false
{tls if settings.tunnel.tls else "transport.tls.enable = false"}
metadatas.token = {json.dumps(settings.shared_key)}

[[proxies]]
name = {json.dumps(name)}
type = "tcp"
remotePort = {port}
[proxies.plugin]
type = "unix_domain_socket"
unixPath = "/var/run/docker.sock"
"""


def _compose(bundle: Bundle) -> str:
    return f"""\
# On the remote host, in this directory: docker compose up -d
services:
  tunnel:
    image: {bundle.image}
    container_name: harp-engine-{bundle.name}
    restart: unless-stopped
    command: [tunnel, -c, /engine/frpc.toml]
    volumes:
      - .:/engine:ro
      - /var/run/docker.sock:/var/run/docker.sock
    read_only: true
    tmpfs: [/tmp]
    healthcheck: {{disable: true}}
"""


def _next_steps(bundle: Bundle, port: int, host: str, frp_port: int) -> str:
    run = (
        f"docker run -d --name harp-engine-{bundle.name} --restart unless-stopped --no-healthcheck "
        f'-v "$PWD/{bundle.directory.name}:/engine:ro" -v /var/run/docker.sock:/var/run/docker.sock '
        f"{bundle.image} tunnel -c /engine/frpc.toml"
    )
    return f"""\
Wrote {bundle.directory}/ for engine port {port}; tunnels go to {host}:{frp_port}.

1. Copy the directory to the remote host. It holds the shared key: keep it to yourself.
2. There, beside it (any frpc from 0.52 on will do as well, with the directory at /engine):

   {run}

3. In Nextcloud register a deploy daemon for it like the first one, with {port} as its Docker socket port.

`harp engine check {port}` tells when it is there."""
