"""frpc's TOML -> ClientConfig: the part of it that ExApps and engines use (A 8.1, A 7.5), with frpc's defaults (F 7).

A configuration written for the stock frpc either works here the same way or is refused with a reason: nothing that
changes what goes over the wire is skipped silently.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from harp.errors import SettingsError, words_of
from harp.net.targets import Tcp, Unix
from harp.tunnel.client.servers import servers_of

T = TypeVar("T", bool, int, str)

ENVIRONMENT = re.compile(r"\{\{-?\s*\.Envs\.(\w+)\s*-?\}\}")  # of frpc's templates, the only part in common use
OTHER_TEMPLATE = re.compile(r"\{\{.*?\}\}")
# What concerns frpc's own process, not the tunnel.
IGNORED = ("log", "webServer", "clientID", "dnsServer", "udpPacketSize", "natHoleStunServer", "featureGates", "$schema")
SCOPES = ("HeartBeats", "NewWorkConns")
MAX_NAME = 255  # characters of a proxy name; our server takes no longer one (F 8.2)


class ClientTls(Struct, frozen=True):
    """TLS towards the server. Without `ca` nothing is verified, as frpc does it; "" is "not given"."""

    ca: str = ""
    certificate: str = ""
    key: str = ""
    server_name: str = ""  # for SNI and verification; "" is the server's address
    first_byte: bool = False  # send FRP's own 0x17 before the handshake (frpc < 0.50)


class ClientProxy(Struct, frozen=True):
    """One port to claim, and the local service behind it."""

    name: str
    remote_port: int
    target: Tcp | Unix


class ClientConfig(Struct, frozen=True):
    """The configuration of a tunnel client. Times are in seconds; infinity is never."""

    server: Tcp
    proxies: tuple[ClientProxy, ...]
    tls: ClientTls | None = ClientTls()
    mux: bool = True
    wire: int = 1  # FRP protocol version, 1 or 2
    pool_count: int = 1  # work connections to hold ready
    exit_on_failed_login: bool = True
    user: str = ""
    token: str = ""  # of the FRP protocol, normally empty; HaRP's key is metas["token"]
    metas: dict[str, str] = {}
    scopes: frozenset[str] = frozenset()  # which messages other than Login prove the token
    dial_timeout: float = 10.0
    ping_interval: float = float("inf")  # between FRP's own Ping messages
    ping_timeout: float = float("inf")  # without any Pong
    more: tuple[Tcp, ...] = ()  # further servers, which are one HaRP with the first

    @property
    def servers(self) -> tuple[Tcp, ...]:
        """All of them."""
        return (self.server, *self.more)

    def __repr__(self) -> str:
        return f"ClientConfig({self.server.host}:{self.server.port}, {[proxy.name for proxy in self.proxies]})"


def load(path: Path, env: Mapping[str, str]) -> ClientConfig:
    """Read a configuration file. Raises SettingsError with every problem, each with the file's name."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = words_of(error) if isinstance(error, OSError) else "is not UTF-8 text"
        raise SettingsError([f"{path}: {reason}"]) from error
    try:
        return parse(text, env)
    except SettingsError as error:
        raise SettingsError([f"{path}: {problem}" for problem in error.problems]) from error


def parse(text: str, env: Mapping[str, str]) -> ClientConfig:
    """Parse a configuration. `{{ .Envs.NAME }}` is filled in from `env`, as text, before TOML sees it.

    Raises SettingsError with every problem, one line each: the key, what is wrong, what to write instead.
    """
    problems: list[str] = []
    text = _fill_in(text, env, problems)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problems.append(f"not TOML: {error}")
        raise SettingsError(problems) from error
    if "common" in document:
        problems.append("[common]: this is frpc's old INI format; write TOML as frpc 0.52 and newer read it")
        raise SettingsError(problems)
    config = _config(_Table(document, "", problems))
    if problems:
        raise SettingsError(problems)
    return config


def _fill_in(text: str, env: Mapping[str, str], problems: list[str]) -> str:
    for name in sorted(set(ENVIRONMENT.findall(text)) - set(env)):
        problems.append(f"{{{{ .Envs.{name} }}}}: the environment has no {name}; set it")
    text = ENVIRONMENT.sub(lambda match: env.get(match[1], ""), text)
    for other in OTHER_TEMPLATE.findall(text):
        problems.append(f"{other}: only {{{{ .Envs.NAME }}}} is filled in; write the value")
    return text


class _Table:
    """One TOML table: each value is taken out by its key and checked; what is left over at the end is a problem."""

    def __init__(self, values: dict[str, object], where: str, problems: list[str]) -> None:
        self._values = dict(values)
        self._where = where
        self._problems = problems

    def problem(self, key: str, text: str) -> None:
        self._problems.append(f"{self._where}{key}: {text}")

    def text(self, key: str, default: str = "") -> str:
        return self._take(key, default, "a string")

    def flag(self, key: str, *, default: bool) -> bool:
        return self._take(key, default, "true or false")

    def number(self, key: str, default: int, low: int, high: int) -> int:
        value = self._take(key, default, f"a number from {low} to {high}")
        if value != default and not low <= value <= high:
            self.problem(key, f"is {value}; write a number from {low} to {high}")
        return value

    def choice(self, key: str, choices: tuple[str, ...], why: str) -> str:
        """Return one of `choices`, the first being the default; `why` says what to do about any other."""
        value = self.text(key, choices[0])
        if value not in choices:
            self.problem(key, f'is "{value}"; {why}')
        return value

    def seconds(self, key: str, default: float) -> float:
        """Return a time in whole seconds; none or negative switches it off."""
        if key not in self._values:
            return default
        value = self._take(key, 0, "a number of seconds")
        return float(value) if value > 0 else float("inf")

    def refuse(self, key: str, off: bool | str, fix: str) -> None:
        """Only the value `off` is fine here."""
        value = self._values.pop(key, off)
        if value != off:
            self.problem(key, f"is not supported; {fix}")

    def ignore(self, *keys: str) -> None:
        for key in keys:
            self._values.pop(key, None)

    def table(self, key: str) -> _Table:
        value = self._values.pop(key, {})
        if not isinstance(value, dict):
            self.problem(key, "must be a table")
            value = {}
        return _Table(value, f"{self._where}{key}.", self._problems)

    def tables(self, key: str) -> list[_Table]:
        """Return an array of tables; problems in it are reported by name where there is one."""
        values = self._values.pop(key, [])
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            self.problem(key, f"must be written as [[{key}]]")
            return []
        return [
            _Table(value, f"{key}[{value.get('name', number)}].", self._problems)
            for number, value in enumerate(values, start=1)
        ]

    def texts(self, key: str) -> dict[str, str]:
        """Return a table of strings."""
        inner = self.table(key)
        return {name: inner.text(name) for name in list(inner._values)}

    def names(self, key: str, known: tuple[str, ...]) -> frozenset[str]:
        """Return an array of words, each one of `known`."""
        value = self._values.pop(key, [])
        words = frozenset(map(str, value)) if isinstance(value, list) else frozenset({str(value)})
        if words - set(known):
            self.problem(key, f"may hold {', '.join(known)} only")
        return words & set(known)

    def done(self) -> None:
        """Everything we know has been taken."""
        for key in self._values:
            self.problem(key, "is not supported by this client; remove it, or run the stock frpc")

    def _take(self, key: str, default: T, kind: str) -> T:
        value = self._values.pop(key, default)
        if type(value) is type(default):  # not isinstance: a bool is not a number here
            return value
        self.problem(key, f"must be {kind}")
        return default


def _config(top: _Table) -> ClientConfig:
    top.ignore(*IGNORED)
    auth, transport = top.table("auth"), top.table("transport")
    auth.choice("method", ("token",), 'only "token" is supported')
    tls = _tls(transport.table("tls"))
    mux = transport.flag("tcpMux", default=True)
    server, *more = _servers(top)
    config = ClientConfig(
        server=server,
        more=tuple(more),
        exit_on_failed_login=top.flag("loginFailExit", default=True),
        user=top.text("user"),
        metas=top.texts("metadatas"),
        token=auth.text("token"),
        scopes=auth.names("additionalScopes", SCOPES),
        tls=tls,
        mux=mux,
        wire=2 if transport.choice("wireProtocol", ("v1", "v2"), 'write "v1" or "v2"') == "v2" else 1,
        pool_count=transport.number("poolCount", 1, 0, 1000),
        dial_timeout=transport.seconds("dialServerTimeout", 10.0),
        # A server without multiplexing drops who sends no Ping for 90 s; with it, yamux pings are enough (F 5.7).
        ping_interval=transport.seconds("heartbeatInterval", float("inf") if mux else 30.0),
        ping_timeout=transport.seconds("heartbeatTimeout", float("inf") if mux else 90.0),
        proxies=_proxies(top),
    )
    transport.choice("protocol", ("tcp",), 'only "tcp" is supported; kcp, quic and websocket are not')
    transport.refuse("proxyURL", "", "connect without a proxy, or run the stock frpc")
    transport.ignore("dialServerKeepalive", "tcpMuxKeepaliveInterval", "quic")
    for table in (auth, transport, top):
        table.done()
    return config


def _servers(top: _Table) -> tuple[Tcp, ...]:
    """Return one, or several where serverAddr has commas, which frpc does not know."""
    address, port = top.text("serverAddr", "0.0.0.0"), top.number("serverPort", 7000, 1, 65535)  # noqa: S104
    try:
        return servers_of(address, port)
    except ValueError as error:
        top.problem("serverAddr", str(error))
        return (Tcp("", port),)


def _tls(table: _Table) -> ClientTls | None:
    enable = table.flag("enable", default=True)
    tls = ClientTls(
        ca=table.text("trustedCaFile"),
        certificate=table.text("certFile"),
        key=table.text("keyFile"),
        server_name=table.text("serverName"),
        first_byte=not table.flag("disableCustomTLSFirstByte", default=True),
    )
    if bool(tls.certificate) != bool(tls.key):
        table.problem("keyFile" if tls.certificate else "certFile", "is missing; a certificate and its key go together")
    table.done()
    return tls if enable else None


def _proxies(top: _Table) -> tuple[ClientProxy, ...]:
    proxies = tuple(proxy for table in top.tables("proxies") if (proxy := _proxy(table)))
    names = [proxy.name for proxy in proxies]
    for name in sorted({name for name in names if names.count(name) > 1}):
        top.problem("proxies", f'"{name}" is there {names.count(name)} times; give each proxy a name of its own')
    return proxies


def _proxy(table: _Table) -> ClientProxy | None:
    """Return one proxy, or None if it is disabled."""
    enabled = table.flag("enabled", default=True)
    name = table.text("name")
    if not 1 <= len(name) <= MAX_NAME:
        table.problem("name", f"must have 1 to {MAX_NAME} characters")
    table.choice("type", ("tcp",), 'only "tcp" is supported')
    remote_port = table.number("remotePort", 0, 1, 65535)
    if not remote_port:
        table.problem("remotePort", "is missing; write the port that the server is to offer")
    transport = table.table("transport")
    for option in ("useEncryption", "useCompression"):
        transport.refuse(option, off=False, fix="write false; TLS protects the whole tunnel")
    transport.choice("bandwidthLimitMode", ("client", "server"), 'write "client" or "server"')
    transport.refuse("bandwidthLimit", "", "remove it, or run the stock frpc")
    transport.refuse("proxyProtocolVersion", "", "remove it, or run the stock frpc")
    transport.done()
    target = _target(table)
    table.ignore("metadatas", "annotations")
    table.done()
    return ClientProxy(name, remote_port, target) if enabled else None


def _target(table: _Table) -> Tcp | Unix:
    plugin = table.table("plugin")
    kind = plugin.text("type")
    path = plugin.text("unixPath")
    host, port = table.text("localIP", "127.0.0.1").strip("[]"), table.number("localPort", 0, 1, 65535)
    if not kind:
        if not port:
            table.problem("localPort", 'is missing; write it, or a plugin of type "unix_domain_socket"')
        plugin.done()
        return Tcp(host, port)
    if kind != "unix_domain_socket":
        plugin.problem("type", f'is "{kind}"; only "unix_domain_socket" is supported')
        return Unix(path)
    if not path:
        plugin.problem("unixPath", "is missing; write the path of the service's socket")
    plugin.done()
    return Unix(path)
