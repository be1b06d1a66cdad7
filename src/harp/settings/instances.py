"""HP_INSTANCES_FILE: several Nextclouds. Each entry is read like variables, and becomes Settings of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from harp.errors import words_of
from harp.settings import parsers as v
from harp.settings.parsers import shown
from harp.settings.reader import Fault, Note, Parser, VariableReader

if TYPE_CHECKING:
    from harp.settings.model import Bans, Engines, Settings

MOST_BYTES = 1 << 20  # of the file
MOST_INSTANCES = 1000
ENTRY = "instance"
TABLES = {"bans": ("count", "window"), "limits": ("connections", "requests", "tunnels")}
KEYS = (
    *("name", "url", "key_file", "hosts", "public_url", "gateway_url", "trusted_proxies", "engines", "docker_host"),
    *("instance_id", "kubernetes_namespace", "session_lifetime", "registries_file", "mounts_allowed", *TABLES),
)
ANY_HOST = "*"

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?").fullmatch
_HOST = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?").fullmatch


class Shares(Struct, frozen=True):
    """The most that one of several Nextclouds may use. 0 = half of the total."""

    connections: int = 0
    requests: int = 0  # at once; more wait for their turn
    tunnels: int = 0


ALL = Shares()


def instances_of(path: Path, base: Settings) -> tuple[tuple[Settings, ...], list[str], list[str]]:
    """Return the Settings of every entry, the problems and the warnings; each names file, entry and key."""
    try:
        document = _document(path)
    except Fault as fault:
        return (), [f"HP_INSTANCES_FILE: {fault}"], []
    where = f"HP_INSTANCES_FILE: {path}"
    entries = document.pop(ENTRY, [])
    problems = [f"{where}: {key}: is not known here; begin each Nextcloud with [[{ENTRY}]]" for key in document]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return (), [*problems, f"{where}: {ENTRY}: is not a list of tables; begin each Nextcloud with [[{ENTRY}]]"], []
    if not 1 <= len(entries) <= MOST_INSTANCES:
        text = f"has {len(entries)} entries; write 1 to {MOST_INSTANCES}, each begins with [[{ENTRY}]]"
        return (), [*problems, f"{where}: {text}"], []
    found, warnings = [], []
    for number, entry in enumerate(entries, 1):
        reader = _EntryReader(entry)
        found.append(_settings(reader, base))
        named = (
            f"{where}: {ENTRY} {entry['name']}" if isinstance(entry.get("name"), str) else f"{where}: entry {number}"
        )
        problems += [f"{named}: {problem}" for problem in reader.problems]
        warnings += [f"{named}: {warning}" for warning in reader.warnings]
    problems += [f"{where}: {problem}" for problem in _clashes(found)]
    return tuple(found), problems, warnings


def _document(path: Path) -> dict[str, object]:
    import tomllib  # noqa: PLC0415 - most have no such file

    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise Fault(f"{path} is larger than {MOST_BYTES} bytes; is it the right file?")
        return tomllib.loads(content.decode())
    except OSError as error:
        raise Fault(f"{path} cannot be read ({words_of(error)}); mount the file or correct the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Fault(f"{path} is not TOML: {error}; begin each Nextcloud with [[{ENTRY}]]") from None


class _EntryReader(VariableReader):
    """Reads the keys of one entry like variables; those of its tables as `limits.connections`."""

    def __init__(self, entry: Mapping[str, object]) -> None:
        texts: dict[str, str] = {}
        faults: list[str] = []
        for key, value in _flat(entry):
            known = [*KEYS, *(f"{table}.{name}" for table, names in TABLES.items() for name in names)]
            if key not in known:
                from difflib import get_close_matches  # noqa: PLC0415 - slow to import, rarely needed

                near = get_close_matches(key, known, n=1, cutoff=0.6)
                hint = f"did you mean {near[0]}?" if near else f"an entry has {', '.join(KEYS)}"
                faults.append(f"{key}: is not known; {hint}")
            elif (text := _text(value)) is None:
                faults.append(f"{key}: is neither text, a number nor a list of texts; see docs/instances.md")
            else:
                texts[key] = text
        super().__init__(texts)
        self.problems += faults

    def required(self, name: str, parse: Parser[str], what: str) -> str:
        """Return the value of a key without which there is no instance."""
        if not self.given(name):
            self.problem(name, f"is missing; write {what}")
            return ""
        return self.optional(name, parse, "") or ""


def _flat(entry: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for key, value in entry.items():
        if key in TABLES and isinstance(value, dict):
            yield from ((f"{key}.{name}", part) for name, part in value.items())
        else:
            yield key, value


def _text(value: object) -> str | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    return None


def _settings(r: _EntryReader, base: Settings) -> Settings:
    many = v.number(1, 1_000_000)
    name = r.required("name", _name, 'such as name = "cloud"')
    url = r.required("url", v.nextcloud_url, 'such as url = "https://cloud.example.com"')
    namespace = r.read("kubernetes_namespace", "", v.word)
    proxies = r.optional("trusted_proxies", v.networks, "HP_TRUSTED_PROXY_IPS", empty_counts=True)
    lifetime = r.optional("session_lifetime", v.duration("s", zero=0.0, most=10), "HP_SESSION_LIFETIME")
    sessions = base.nextcloud.session_lifetime if lifetime is None else lifetime
    return replace(
        base,
        instance=name,
        hosts=r.optional("hosts", _hosts, "that of url") or _host_of(url),
        shared_key=r.required("key_file", v.shared_key_file, 'such as key_file = "/run/secrets/cloud-key"'),
        nextcloud=replace(base.nextcloud, url=url, session_lifetime=sessions),
        public_url=r.optional("public_url", v.nextcloud_url, "url") or url,
        gateway_url=r.optional("gateway_url", v.nextcloud_url, "none") or "",
        proxies=base.proxies if proxies is None else replace(base.proxies, trusted=proxies),
        bans=_bans(r, base.bans),
        engines=_engines(r, base.engines),
        kubernetes=replace(
            base.kubernetes,
            enabled=base.kubernetes.enabled and bool(namespace),
            namespace=namespace or base.kubernetes.namespace,
        ),
        shares=Shares(
            connections=r.optional("limits.connections", many, "half of all") or 0,
            requests=r.optional("limits.requests", many, "half of all") or 0,
            tunnels=r.optional("limits.tunnels", many, "half of all") or 0,
        ),
    )


def _bans(r: _EntryReader, base: Bans) -> Bans:
    count = r.optional("bans.count", v.number(0, 1_000_000), "HP_BLACKLIST_COUNT")
    window = r.optional("bans.window", v.duration("s", zero=0.0), "HP_BLACKLIST_WINDOW")
    return replace(base, count=base.count if count is None else count, window=base.window if window is None else window)


def _engines(r: _EntryReader, base: Engines) -> Engines:
    ports = r.optional("engines", _ports, "HP_DOCKER_ENGINE_PORTS")
    mounts = r.optional("mounts_allowed", v.mounts(suffix=False), "HP_EXAPP_BIND_MOUNTS_ALLOWED", empty_counts=True)
    return replace(
        base,
        ports=base.ports if ports is None else ports,
        host=r.optional("docker_host", v.engine_host, "HP_DOCKER_HOST") or base.host,
        instance=r.optional("instance_id", v.label, "derived from url") or "",
        registries=r.optional("registries_file", v.path, "HP_REGISTRIES_FILE") or base.registries,
        mounts_allowed=base.mounts_allowed if mounts is None else mounts,
    )


def _clashes(found: list[Settings]) -> Iterator[str]:
    """Yield values that two entries must not share."""
    fix = "every Nextcloud has its own"
    seen: dict[tuple[str, object], str] = {}
    for number, one in enumerate(found, 1):
        label = f"{ENTRY} {one.instance}" if one.instance else f"entry {number}"
        own: list[tuple[str, object, str]] = [
            ("name", one.instance, shown(one.instance)),
            ("url", one.nextcloud.url, shown(one.nextcloud.url)),
            ("key_file", one.shared_key, "the key in it"),
            *(("hosts", host, shown(host)) for host in one.hosts),
        ]
        if one.engines.instance:
            own.append(("instance_id", one.engines.instance, shown(one.engines.instance)))
        if one.kubernetes.enabled:
            own.append(("kubernetes_namespace", one.kubernetes.namespace, shown(one.kubernetes.namespace)))
        for key, value, text in own:
            if value:
                other = seen.setdefault((key, value), label)
                if other is not label:
                    yield f"{label}: {key}: {text} is that of {other} as well; {fix}"


# Parsers


def _name(text: str, note: Note) -> str:
    if not _NAME(text):
        raise Fault(f"{shown(text)} is not a name; use at most 63 lower-case letters, digits and -")
    return text


def _hosts(text: str, note: Note) -> tuple[str, ...]:
    hosts = tuple(dict.fromkeys(part.strip().rstrip(".").lower() for part in text.split(",") if part.strip()))
    for host in hosts:
        if host != ANY_HOST and not _HOST(host):
            raise Fault(f"{shown(host)} is not a host; write such as cloud.example.com or cloud.example.com:8443")
    return hosts


def _ports(text: str, note: Note) -> frozenset[int]:
    return frozenset() if text == "none" else v.ports(text, note)


def _host_of(url: str) -> tuple[str, ...]:
    host = urlsplit(url).hostname or ""
    return (f"[{host}]" if ":" in host else host,) if host else ()
