"""HP_CLUSTER_*: the store where replicas find each other, and what each of them is called there."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct
from msgspec.structs import replace

from harp.settings import parsers as v
from harp.settings.parsers import Address, shown
from harp.settings.reader import Fault, Note, Parser, Value, VariableReader

URL, URL_FILE, NAME, ADDRESS = "HP_CLUSTER_URL", "HP_CLUSTER_URL_FILE", "HP_CLUSTER_NAME", "HP_CLUSTER_ADDRESS"
EXAMPLE = "redis://redis:6379 or redis+sentinel://host1:26379,host2:26379/mymaster"
PORT, SENTINEL_PORT = 6379, 26379
TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")  # as redis-py calls them
OPTIONS = ("db", "sentinel_username", "sentinel_password", *TLS_FILES)
LONGEST_URL_FILE = 64 << 10  # bytes

Place = tuple[str, int]


class StoreSettings(Struct, frozen=True):
    """A Redis or Valkey. Its text is the URL without passwords."""

    places: tuple[Place, ...]  # the store; with a `service`, the sentinels; none with a `path`
    path: str = ""  # of a unix socket
    service: str = ""  # what sentinels call the store
    tls: bool = False
    database: int = 0
    user: str = ""
    password: str = ""
    sentinel_user: str = ""
    sentinel_password: str = ""
    ca_certs: Path | None = None  # None = the CAs of the system
    certificate: Path | None = None
    key: Path | None = None

    @property
    def secrets(self) -> list[str]:
        """What no log may show."""
        return [one for one in (self.password, self.sentinel_password) if one]

    def __repr__(self) -> str:
        return f"StoreSettings({str(self)!r})"

    def __str__(self) -> str:
        login = f"{self.user}@" if self.user else ""
        if self.path:
            return f"unix://{login}{self.path}?db={self.database}"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.places)
        scheme = ("rediss" if self.tls else "redis") + ("+sentinel" if self.service else "")
        service = f"/{self.service}" if self.service else ""
        return f"{scheme}://{login}{hosts}{service}/{self.database}"


class ClusterSettings(Struct, frozen=True):
    """Replicas that are one HaRP."""

    store: StoreSettings  # HP_CLUSTER_URL
    name: str  # HP_CLUSTER_NAME: ours among them
    address: Address | None  # HP_CLUSTER_ADDRESS: where they reach us; None = see `port`
    host: str  # of HP_FRP_ADDRESS, "" when it is any: then our address on the way to the store
    port: int  # of HP_FRP_ADDRESS
    prefix: str  # HP_CLUSTER_PREFIX, of all keys


def cluster(r: VariableReader, frp: tuple[Address, ...]) -> ClusterSettings | None:
    """Read what makes this process a replica; None = it is alone. `frp` is where we listen for tunnels and links."""
    url = r.secret(URL, _url)
    if url:  # without passwords there is nothing to hide
        r.values[-1] = Value(URL, str(store(url)), given=True)
    from_file = r.optional(URL_FILE, _url_file, "not set")
    name = r.optional(NAME, _name, "the host name")
    address = r.optional(ADDRESS, _address(frp), "our address on the way to the store, port of HP_FRP_ADDRESS")
    prefix = r.read("HP_CLUSTER_PREFIX", "harp:", _prefix)
    if r.given(URL) and r.given(URL_FILE):
        r.problem(URL, f"{URL_FILE} is set as well; remove one of the two")
    if not url and not from_file:
        if not r.given(URL) and not r.given(URL_FILE):
            for other in (one for one in (NAME, ADDRESS) if r.given(one)):
                r.warn(other, f"has no effect without {URL}")
        return None
    reached = next((one for one in frp if one.port), None)
    if reached is None and address is None and not r.given(ADDRESS):
        r.problem(ADDRESS, "is not set, and HP_FRP_ADDRESS names no port; write where other replicas reach this one")
    host = "" if reached is None or reached.host in {"0.0.0.0", "::"} else reached.host  # noqa: S104 - compared
    port = 0 if reached is None else reached.port
    return ClusterSettings(store(url or from_file or ""), name or _host_name(), address, host, port, prefix)


def store(url: str) -> StoreSettings:
    """Return what a URL means. Raises Fault with a text that repeats no password."""
    scheme, _, rest = url.partition("://")
    kind = scheme.lower().replace("valkey", "redis", 1)
    if kind == "unix" or not rest:
        return _of_socket(url, kind)
    if kind not in {"redis", "rediss", "redis+sentinel", "rediss+sentinel"}:
        raise Fault(f"{shown(scheme)} is not a kind of store; write such as {EXAMPLE}")
    location, _, query = rest.partition("?")
    authority, _, path = location.partition("/")
    login, _, hosts = authority.rpartition("@")
    found = _with_options(StoreSettings(_places(hosts, kind)), query)
    parts = [unquote(part) for part in path.split("/") if part]
    if kind.endswith("sentinel"):
        if not parts:
            raise Fault("names no service; write redis+sentinel://host1:26379,host2:26379/mymaster")
        found = replace(found, service=parts.pop(0))
    elif len(found.places) > 1:
        raise Fault("names several hosts; replicas of a store are found through redis+sentinel://")
    if parts:
        found = replace(found, database=_database("/".join(parts)))
    return _logged_in(replace(found, tls=kind.startswith("rediss")), login)


def _of_socket(url: str, kind: str) -> StoreSettings:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if kind != "unix" or not parts.path.startswith("/") or len(parts.path) == 1:
        raise Fault(f"is not the URL of a store; write such as {EXAMPLE}")
    login = parts.netloc.rpartition("@")[0]
    return _logged_in(_with_options(StoreSettings((), path=unquote(parts.path)), parts.query), login)


def _logged_in(found: StoreSettings, login: str) -> StoreSettings:
    user, colon, password = login.partition(":")
    if user and not colon:  # a password alone is written ":password@"
        raise Fault("has a user name without a password; write redis://user:password@host or redis://:password@host")
    return replace(found, user=unquote(user), password=unquote(password))


def _places(hosts: str, kind: str) -> tuple[Place, ...]:
    usual = SENTINEL_PORT if kind.endswith("sentinel") else PORT
    found = []
    for one in hosts.split(","):
        match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?", one.strip())
        if match is None or not 1 <= int(match[2] or usual) <= 65535:
            # not repeated: with a "/" or "?" in it that is not escaped, a part of a password stands here
            raise Fault(f"has no host:port; escape / ? # @ in passwords (%2F %3F %23 %40), and write such as {EXAMPLE}")
        found.append((match[1].strip("[]"), int(match[2] or usual)))
    return tuple(found)


def _with_options(found: StoreSettings, query: str) -> StoreSettings:
    options = dict(parse_qsl(query.partition("#")[0], keep_blank_values=True))
    for name in options:
        if name not in OPTIONS:
            raise Fault(f"the option {shown(name)} is not supported; there are {', '.join(OPTIONS)}")
    files = [Path(options[name]) if options.get(name) else None for name in TLS_FILES]
    return replace(
        found,
        database=_database(options.get("db", "0")),
        sentinel_user=options.get("sentinel_username", ""),
        sentinel_password=options.get("sentinel_password", ""),
        ca_certs=files[0],
        certificate=files[1],
        key=files[2],
    )


def _database(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise Fault(f"{shown(text)} is not the number of a database; write /0 or another number after the host")
    return int(text)


def _url(text: str, note: Note) -> str:
    url = v.secret(text, note)
    store(url)
    return url


def _url_file(text: str, note: Note) -> str:
    url = v.content(text, LONGEST_URL_FILE).strip()
    if not url:
        raise Fault(f"{shown(text)} is empty; write the store's URL into it")
    return _url(url, note)


def _name(text: str, note: Note) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text):
        raise Fault(f"{shown(text)} is not a replica's name; use at most 64 letters, digits, . _ -")
    return text


def _host_name() -> str:
    """Return the name of this host, fit to be a replica's."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", os.uname().nodename).lstrip("-._")[:64] or "harp"


def _address(frp: tuple[Address, ...]) -> Parser[Address]:
    def parse(text: str, note: Note) -> Address:
        """Return host:port, [v6]:port, or a host alone."""
        port = next((one.port for one in frp if one.port), 0)
        bare = text.removeprefix("[").removesuffix("]")
        if re.fullmatch(r"[^:/\[\]]+", text):
            text = f"{text}:{port}"
        elif re.fullmatch(r"[0-9A-Fa-f]*(:[0-9A-Fa-f]*){2,7}", bare):
            text = f"[{bare}]:{port}"
        found = v.address(text, note)
        if found.path or not found.port or found.host in {"0.0.0.0", "::"}:  # noqa: S104 - compared
            raise Fault(f"{shown(text)} cannot be dialled; write host:port where other replicas reach this one")
        return found

    return parse


def _prefix(text: str, note: Note) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._:/-]{1,64}", text):
        raise Fault(f"{shown(text)} is not a prefix of keys; use at most 64 letters, digits, . _ : / -")
    return text
