"""`harp engine add NAME` and `harp engine register NAME`: which remote engine has which port, and what its host needs.

The bundle is a directory with frpc.toml, the tunnel's certificates and a compose.yaml: written as one, or printed as a
tar archive or as a shell command to paste, for a HaRP whose file system is read-only.
"""

from __future__ import annotations

import io
import re
import sys
import tarfile
import textwrap
import time
from base64 import encodebytes
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO
from urllib.parse import urlsplit

from harp.commands.admin import Admin
from harp.commands.engine_list import inventory
from harp.errors import HarpError, Unreachable, words_of
from harp.net import certificates
from harp.net.targets import Tcp, Unix
from harp.policy.keys import engine_key
from harp.policy.ports import ENGINE_PORTS, LOCAL_ENGINE_PORT, SERVER_NAME
from harp.settings import Settings
from harp.state.engine_names import EngineKeys, EngineNames, engines_directory
from harp.tunnel.client.frpc_config import ClientConfig, ClientProxy, ClientTls
from harp.tunnel.client.frpc_toml import written

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
LONGEST_NAME = 255  # characters of a name that a tunnel client may have chosen itself
CERTIFICATES = ("ca.crt", "client.crt", "client.key")
PRIVATE = frozenset({"frpc.toml", "client.key"})
DOCKER_SOCKET = "/var/run/docker.sock"


@dataclass(frozen=True, slots=True)
class EngineWish:
    """What `add` was asked for."""

    name: str
    port: int | None = None  # None = the one it has, or the first that is free
    address: str | None = None  # host or host:port of this HaRP as the remote host reaches it; None = Nextcloud's host
    image: str = "appapi-harp"
    fresh: bool = False  # give it another key: copies of the bundle that it had are worth nothing any more


@dataclass(frozen=True, slots=True)
class Bundle:
    """All that a remote host needs."""

    name: str
    port: int
    server: Tcp
    image: str
    files: Mapping[str, bytes]

    def write(self, directory: Path) -> None:
        """Write into a new directory: an existing one may belong to another engine. Raises HarpError."""
        try:
            directory.mkdir(parents=True)
            for name, content in self.files.items():
                path = directory / name
                path.touch(0o600 if name in PRIVATE else 0o644)
                path.write_bytes(content)
        except OSError as error:
            ways = f"add {self.name} --tar prints it as a tar archive, add {self.name} --paste as a shell command"
            raise HarpError(f"cannot write {directory}: {words_of(error)}; {ways}") from error

    def tar(self, stream: BinaryIO) -> None:
        """As an archive of a directory with the engine's name."""
        with tarfile.open(fileobj=stream, mode="w|") as archive:
            for name, content in self.files.items():
                entry = tarfile.TarInfo(f"{self.name}/{name}")
                entry.size, entry.mtime = len(content), int(time.time())
                entry.mode = 0o600 if name in PRIVATE else 0o644
                archive.addfile(entry, io.BytesIO(content))

    def paste(self) -> str:
        """As a command for any POSIX shell that makes the directory where it is pasted."""
        archive = io.BytesIO()
        self.tar(archive)
        return f"(umask 077; base64 -d | tar -xf -) <<'END'\n{encodebytes(archive.getvalue()).decode()}END\n"


def make(settings: Settings, wish: EngineWish) -> Bundle:
    """Give the engine its port, remember it, and make its bundle. Raises HarpError; then nothing is remembered."""
    if not NAME.fullmatch(wish.name):
        raise HarpError(f"{wish.name!r} is not a name for an engine; use letters, digits, . _ -")
    server = _server(settings, wish.address)
    with EngineNames(engines_directory(settings)).changing() as engines:
        port = _give(settings, engines, wish.name, wish.port)
        token = _key(settings, wish)
        files = {
            "frpc.toml": _frpc_toml(wish.name, port, server, token, tls=settings.tunnel.tls),
            "compose.yaml": _compose(wish),
            **_certificates(settings),
        }
    return Bundle(wish.name, port, server, wish.image, files)


def register(settings: Settings, name: str, port: int) -> None:
    """Remember that the engine `name`, whose tunnel client is configured elsewhere, has `port`. Raises HarpError."""
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise HarpError(f"{name!r} is not a name for an engine; use 1 to {LONGEST_NAME} printable characters")
    _check_port(settings, port)
    with EngineNames(engines_directory(settings)).changing() as engines:
        _move(engines, name, port)


def next_steps(settings: Settings, bundle: Bundle, place: str) -> str:
    """Return what to do with the bundle, which is at `place`."""
    name, port, server = bundle.name, bundle.port, bundle.server
    run = (
        f"docker run -d --name harp-engine-{name} --restart unless-stopped --no-healthcheck "
        f'-v "$PWD:/engine:ro" -w /engine -v {DOCKER_SOCKET}:{DOCKER_SOCKET} {bundle.image} tunnel -c frpc.toml'
    )
    loopback = settings.listen.frp[0].host in ("127.0.0.1", "::1", "localhost")
    listening = f" HP_FRP_ADDRESS is {settings.listen.frp[0]}, which no other host can reach." if loopback else ""
    text = f"""\
{name} has engine port {port}: {place}

1. Port {server.port} of {server.host} must be reachable from the remote host: publish it (docker run -p 8782:8782, or
   ports: in compose.yaml) and open it in the firewall.{listening}
2. Copy the directory {name} to the remote host. It contains the engine's own key: treat it as a password.
3. There, in this directory, run any frpc from version 0.52 on:

   frpc -c frpc.toml

   or HaRP's own client in a container:

   {run}

4. In Nextcloud, register a deploy daemon for it like the first one, with {port} as its Docker socket port.

`harp engine check {port}` reports whether it is connected."""
    return textwrap.dedent(text)


def _give(settings: Settings, engines: dict[int, str], name: str, wanted: int | None) -> int:
    """Return the port of the engine: the wanted one, the one it has, or the first free one."""
    if wanted is not None:
        _check_port(settings, wanted)
        holder = engines.get(wanted, name)
        if holder != name:
            raise HarpError(f"port {wanted} belongs to the engine {holder}; harp engine register changes that")
        _move(engines, name, wanted)
        return wanted
    known = next((port for port, holder in engines.items() if holder == name), None)
    if known is not None:
        return known
    taken = {*engines, *_connected(settings, name)}
    free = next((port for port in ENGINE_PORTS if port in settings.engines.ports and port not in taken), None)
    if free is None:
        raise HarpError("no engine port is free; widen HP_DOCKER_ENGINE_PORTS")
    engines[free] = name
    return free


def _move(engines: dict[int, str], name: str, port: int) -> None:
    for before in [other for other, holder in engines.items() if holder == name]:
        del engines[before]
    engines[port] = name


def _check_port(settings: Settings, port: int) -> None:
    if port not in ENGINE_PORTS or port not in settings.engines.ports:
        allowed = f"HP_DOCKER_ENGINE_PORTS above {LOCAL_ENGINE_PORT} are"
        raise HarpError(f"{port} is not a port for a remote engine; {allowed}")


def _connected(settings: Settings, name: str) -> set[int]:
    """Return ports that tunnels of other engines use now without having been assigned."""
    try:
        lines = inventory(settings)
    except Unreachable:
        return set()  # HaRP does not run
    return {line.port for line in lines if line.tunnel is None or line.tunnel.name != name}


def _server(settings: Settings, address: str | None) -> Tcp:
    """Return where the remote host finds the tunnel server."""
    split = urlsplit(f"//{address}" if address else settings.nextcloud.url)
    try:
        port = (split.port if address else None) or settings.listen.frp[0].port
    except ValueError:
        port = 0
    if not split.hostname or not port:
        raise HarpError(f"{address!r} is not an address; write host or host:port")
    return Tcp(split.hostname, port)


def _certificates(settings: Settings) -> dict[str, bytes]:
    """Return the tunnel client's files, created if this HaRP has never run; none without TLS."""
    if not settings.tunnel.tls:
        return {}
    directory = settings.certs / "frp"
    certificates.ensure(directory, settings.tunnel.validity_days, datetime.now(UTC))
    return {name: (directory / name).read_bytes() for name in CERTIFICATES}


def _key(settings: Settings, wish: EngineWish) -> str:
    """Return the engine's own key: the existing one, or a new one."""
    with EngineKeys(engines_directory(settings)).changing() as salts:
        if wish.fresh or wish.name not in salts:
            salts[wish.name] = token_hex(16)
        return engine_key(settings.shared_key, wish.name, salts[wish.name])


def remove(settings: Settings, name: str) -> str:
    """Forget an engine and end its tunnel; return what happened to it. Raises HarpError if there is no such engine."""
    with EngineNames(engines_directory(settings)).changing() as engines:
        ports = [port for port, holder in engines.items() if holder == name]
        if not ports:
            raise HarpError(f"no engine is named {name}; harp engine list shows those that are connected")
        for port in ports:
            del engines[port]
    with EngineKeys(engines_directory(settings)).changing() as salts:
        keyed = salts.pop(name, None) is not None
    ended = end_tunnel(settings, name)
    if keyed:
        return f"Its key is worth nothing any more. {ended}"
    fix = "change HP_SHARED_KEY, or set HP_TUNNEL_CLAIMS=strict"
    return f"{ended} It has the shared key, so it may connect again: {fix}."


def end_tunnel(settings: Settings, name: str) -> str:
    """Have the running HaRP end the tunnel of an engine; return what happened."""
    try:
        ended = Admin(settings).end_engine(name)
    except Unreachable:
        return "HaRP does not run here, so no tunnel of it can be connected."
    return "Its tunnel was ended." if ended else "It was not connected."


def _frpc_toml(name: str, port: int, server: Tcp, token: str, *, tls: bool) -> bytes:
    """Return what a stock frpc and our own client read, started in the bundle's directory."""
    config = ClientConfig(
        server=server,
        proxies=(ClientProxy(name, port, Unix(DOCKER_SOCKET)),),
        tls=ClientTls("ca.crt", "client.crt", "client.key", SERVER_NAME) if tls else None,
        exit_on_failed_login=False,
        metas={"token": token},
    )
    comment = f'The engine "{name}" of HaRP, engine port {port}. The token is its own key: keep it secret.'
    return written(config, comment).encode("utf-8", "surrogateescape")


def _compose(wish: EngineWish) -> bytes:
    return f"""\
# On the remote host, in this directory: docker compose up -d
services:
  tunnel:
    image: {wish.image}
    container_name: harp-engine-{wish.name}
    restart: unless-stopped
    command: [tunnel, -c, frpc.toml]
    working_dir: /engine
    volumes:
      - .:/engine:ro
      - {DOCKER_SOCKET}:{DOCKER_SOCKET}
    read_only: true
    tmpfs: [/tmp]
    healthcheck: {{disable: true}}
""".encode()


def add(settings: Settings, wish: EngineWish, directory: Path | None, form: str) -> int:
    """Run `harp engine add`: `form` is "directory", "tar" or "paste"; return the exit code."""
    if form == "tar" and sys.stdout.isatty():
        raise HarpError("a tar archive is not for a terminal; redirect it: ... --tar >FILE, or use --paste")
    bundle = make(settings, wish)
    if form == "tar":
        bundle.tar(sys.stdout.buffer)
        print(next_steps(settings, bundle, "the archive on standard output"), file=sys.stderr)
    elif form == "paste":
        print(bundle.paste(), end="")
        place = "paste the command above into a shell on the remote host, it makes the directory"
        print(next_steps(settings, bundle, place), file=sys.stderr)
    else:
        directory = directory or Path(wish.name)
        bundle.write(directory)
        print(next_steps(settings, bundle, f"the bundle is in {directory}"))
    return 0
