"""The texts of environment variables: cleaning, parsing, and error messages.

A parser takes the cleaned text and a `Note`, returns the value, and raises `Fault` with what is wrong and what to write
instead. The reader puts the variable's name in front, collects all faults, and continues.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from harp.errors import words_of
from harp.settings.reader import QUOTES, Fault, Note, Parser

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NEVER = float("inf")
PAIRS = {'"': '"', "'": "'", "“": "”", "„": "“", "‘": "’", "«": "»", "”": "”", "’": "’"}
SHOWN = 60  # characters of a faulty value that a message repeats


class Address(Struct, frozen=True):
    """Where to listen: host and port, or a unix socket's path (then host is "" and port 0).

    The host "::" means both families, unless `v6only`.
    """

    host: str
    port: int
    path: str = ""
    v6only: bool = False

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def shown(text: str) -> str:
    """Return a faulty value for a message: quoted, on one line, not too long."""
    short = text if len(text) <= SHOWN else text[:SHOWN] + "…"
    return '"' + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in short) + '"'


# --- words and numbers


def word(text: str, note: Note) -> str:
    """Any text on one line."""
    if not text.isprintable():
        raise Fault(f"{shown(text)} contains an unprintable character; type the value again")
    return text


def choice(*words: str) -> Parser[str]:
    """Return one of `words`, in any case."""

    def parse(text: str, note: Note) -> str:
        if text.lower() not in words:
            raise Fault(f"{shown(text)} is not known; write one of: {', '.join(words)}")
        return text.lower()

    return parse


def log_level(text: str, note: Note) -> str:
    """debug, info, warning or error; any other counts as warning (A 7.1)."""
    level = {"warn": "warning", "critical": "error", "fatal": "error"}.get(text.lower(), text.lower())
    if level not in {"debug", "info", "warning", "error"}:
        note(f"{shown(text)} is not a level and counts as warning; write one of: debug, info, warning, error")
        return "warning"
    return level


def boolean(text: str, note: Note) -> bool:
    """1, true, yes, on or 0, false, no, off; empty is false."""
    lower = text.lower()
    if lower in {"1", "true", "yes", "on"}:
        return True
    if lower in {"", "0", "false", "no", "off"}:
        return False
    raise Fault(f"{shown(text)} is neither true nor false; write true or false")


def exactly(wanted: str) -> Parser[bool]:
    """True for exactly `wanted`; anything else is False, with a warning when it looks like an attempt.

    For switches that weaken something: values that had no effect before must not get one.
    """
    other = {"true": "false", "false": "true"}[wanted]

    def parse(text: str, note: Note) -> bool:
        if text not in {wanted, other}:
            note(f"{shown(text)} counts as {other}; only {wanted} (in lower case) has an effect")
        return text == wanted

    return parse


def number(least: int, most: int) -> Parser[int]:
    """Return a whole number within limits."""

    def parse(text: str, note: Note) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
            raise Fault(f"{shown(text)} is not a whole number; write one from {least} to {most}")
        value = int(text)
        if not least <= value <= most:
            raise Fault(f"{value} is out of range; write a number from {least} to {most}")
        return value

    return parse


MOST_WORKERS = 64


def workers(text: str, note: Note) -> int:
    """Return a number of processes, or 0 for auto."""
    if text.lower() == "auto":
        return 0
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= MOST_WORKERS:
        raise Fault(f"{shown(text)} is not a number of processes; write one from 1 to {MOST_WORKERS}, or auto")
    return int(text)


SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def size(least: int, most: int) -> Parser[int]:
    """Bytes; k, m and g (also KiB, MB...) are powers of 1024."""

    def parse(text: str, note: Note) -> int:
        match = re.fullmatch(r"([0-9]{1,15})\s*([kmg]?)(?:i?b)?", text.lower())
        if match is None:
            raise Fault(f"{shown(text)} is not a size; write bytes or a size such as 64k or 1m")
        value = int(match[1]) * SIZES[match[2]]
        if not least <= value <= most:
            raise Fault(f"{value} bytes is out of range; write a size from {least} to {most} bytes")
        return value

    return parse


UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(bare: str = "ms", *, zero: float | None = None, most: float = NEVER) -> Parser[float]:
    """Seconds. Written as for HAProxy: a number and us, ms, s, m, h or d; `bare` is the unit of a number alone.

    `zero` is what 0 means: NEVER (no limit), 0.0, or None when 0 is a fault. `most` is in seconds.
    """

    def parse(text: str, note: Note) -> float:
        match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*(us|ms|s|m|h|d)?", text)
        if match is None:
            raise Fault(f"{shown(text)} is not a duration; write a number and us, ms, s, m, h or d, such as 30s")
        value = float(match[1]) * UNITS[match[2] or bare]
        if value == 0:
            if zero is None:
                raise Fault("0 is not allowed here; write a duration above 0, such as 30s")
            return zero
        if value > most:
            raise Fault(f"{text} is too long; write at most {most:g}s")
        if match[2] is None and bare == "ms":
            note(f"{text} has no unit and counts as milliseconds, as in HAProxy; write {text}ms or {text}s")
        return value

    return parse


# --- addresses


def address(text: str, note: Note) -> Address:
    """Return one listener in HAProxy's bind syntax: host:port, [v6]:port, :port, *:port, unix:/path or /path."""
    where, *parameters = text.split()
    for parameter in parameters:
        if parameter not in {"v4v6", "v6only"}:
            raise Fault(f"{shown(parameter)} after the address is not supported; write the address alone")
    if where.startswith(("/", "unix:", "unix@")):
        return _socket_path(word(where.removeprefix("unix:").removeprefix("unix@"), note))
    host, colon, port = where.removeprefix("ipv4@").removeprefix("ipv6@").rpartition(":")
    if not colon or (host.startswith("[") and not host.endswith("]")):
        raise Fault(f"{shown(text)} has no port; write host:port, such as 0.0.0.0:8780 or [::]:8780")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise Fault(f"{shown(port)} in {shown(text)} is not a port; write one number from 1 to 65535")
    return Address(_host(host, text), int(port), v6only="v6only" in parameters)


def _socket_path(path: str) -> Address:
    if not path.startswith("/"):
        raise Fault(f"{shown(path)} is not an absolute path; write unix:/run/harp/admin.sock")
    if len(path.encode()) > 107:  # sun_path of Linux, without the final NUL
        raise Fault(f"the socket path has {len(path.encode())} bytes; the system allows 107")
    return Address("", 0, path)


def _host(host: str, text: str) -> str:
    """`host` without brackets, "" and "*" as 0.0.0.0. Raises Fault unless it is an IP address or a name."""
    if host in {"", "*"}:
        return "0.0.0.0"  # noqa: S104 - what HAProxy's "*" means
    bare = host[1:-1] if host.startswith("[") else host
    looks_numeric = ":" in bare or re.fullmatch(r"[0-9.]+", bare)
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        if looks_numeric or not re.fullmatch(r"(?!-)[A-Za-z0-9._-]{1,253}", bare):
            raise Fault(
                f"{shown(host)} in {shown(text)} is neither an IP address nor a host name; "
                "write such as 0.0.0.0:8780, [::]:8780 or localhost:8780"
            ) from None
        return bare


def addresses(text: str, note: Note) -> tuple[Address, ...]:
    """Comma separated listeners, at least one. "[::]" beside "0.0.0.0" of the same port listens for IPv6 only."""
    found = [address(part.strip(), note) for part in text.split(",") if part.strip()]
    if not found:
        raise Fault(f"{shown(text)} is not an address; write host:port")
    v4 = {one.port for one in found if one.host == "0.0.0.0"}  # noqa: S104 - compared, not bound
    return tuple(replace(one, v6only=True) if one.host == "::" and one.port in v4 else one for one in found)


def clash(one: Address, other: Address) -> bool:
    """Would the second of the two find its place taken?"""
    if one.path or other.path:
        return one.path == other.path
    any_host = {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
    return one.port == other.port != 0 and (one.host == other.host or bool(any_host & {one.host, other.host}))


def networks(text: str, note: Note) -> tuple[Network, ...]:
    """IP addresses and networks, separated by commas or spaces.

    Invalid entries are reported and skipped: a bad entry must not stop a HaRP that worked before (A 7.1).
    """
    found = []
    for entry in (part.strip(QUOTES) for part in re.split(r"[,\s]+", text)):
        if entry:
            network = _network(entry, note)
            if network is None:
                note(f"{shown(entry)} is not an IP address or network such as 10.0.0.0/8 and is skipped")
            else:
                found.append(network)
    return tuple(found)


def _network(entry: str, note: Note) -> Network | None:
    try:
        network: Network = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped:
        network = ipaddress.IPv4Network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    elif "/" in entry and ipaddress.ip_address(entry.partition("/")[0]) != network.network_address:
        note(f"{shown(entry)} has bits set after its prefix and counts as {network}")
    if network.prefixlen == 0:
        note(f"{network} lets every client choose the address it is seen under; list your own proxies instead")
    return network


def header_name(text: str, note: Note) -> str:
    """Return the name of an HTTP header, lower case (RFC 9110 section 5.6.2)."""
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", text):
        raise Fault(f"{shown(text)} is not the name of a header; write such as X-Forwarded-For or CF-Connecting-IP")
    return text.lower()


def web_url(text: str, note: Note) -> str:
    """Return an http or https URL without trailing "/"."""
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise Fault(f"{shown(text)} is not a URL; write such as https://cloud.example.com") from None
    if parts.username is not None or parts.password is not None:
        raise Fault("contains a user name or password; write the URL without them")
    if parts.scheme.lower() not in {"http", "https"} or not host:
        raise Fault(f"{shown(text)} is not a URL; write such as https://cloud.example.com")
    if parts.query or parts.fragment or not text.isprintable() or " " in text:
        raise Fault(
            f"{shown(text)} contains more than scheme, host and path; write, for example, https://cloud.example.com"
        )
    return text.rstrip("/")


def nextcloud_url(text: str, note: Note) -> str:
    """Return a web URL, also without trailing "/index.php" (A 5)."""
    return web_url(text, note).removesuffix("/index.php").rstrip("/")


# --- files and engines


def path(text: str, note: Note) -> Path:
    """Return a path of the file system."""
    return Path(word(text, note))


def _ranges(text: str) -> list[range]:
    """Return comma separated ports and ascending ranges, at least one, as they are written."""
    found = []
    for entry in (part.strip().strip(QUOTES).strip() for part in text.split(",")):
        match = re.fullmatch(r"([0-9]{1,5})(?:\s*-\s*([0-9]{1,5}))?", entry)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= 65535:
            raise Fault(f"{shown(entry)} is not a port or range; write such as 24000-24099 or 24000,24001")
        found.append(range(first, last + 1))
    return found


def ports(text: str, note: Note) -> frozenset[int]:
    """Comma separated ports and ascending ranges, at least one (A 10)."""
    return frozenset().union(*_ranges(text))


def local_ports(text: str, note: Note) -> tuple[range, ...]:
    """Comma separated ports and ascending ranges, in order and without overlaps; "none" is none."""
    if text.strip().lower() == "none":
        return ()
    merged: list[range] = []
    for one in sorted(_ranges(text), key=lambda ports: ports.start):
        if merged and one.start <= merged[-1].stop:
            merged[-1] = range(merged[-1].start, max(one.stop, merged[-1].stop))
        else:
            merged.append(one)
    return tuple(merged)


def engine_host(text: str, note: Note) -> Address:
    """Return where the engine of this host is: /path, unix:///path or tcp://host:port, as in DOCKER_HOST."""
    if text.startswith("unix://"):
        text = text.removeprefix("unix://")
    elif text.startswith("tcp://"):
        text = text.removeprefix("tcp://").rstrip("/")
    elif not text.startswith("/"):
        raise Fault(f"{shown(text)} is not an engine's address; write unix:///var/run/docker.sock or tcp://host:2375")
    return address(text, note)


def label(text: str, note: Note) -> str:
    """Return a short id that fits into a container's label; "" for none."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{0,64}", text):
        raise Fault(f"{shown(text)} is not an id; use at most 64 letters, digits, . _ -")
    return text


def mounts(*, suffix: bool) -> Parser[tuple[str, ...]]:
    """Comma separated absolute paths, normalised; with `suffix` each may end in ":rw" (A 10)."""

    def parse(text: str, note: Note) -> tuple[str, ...]:
        entries = (part.strip().strip(QUOTES).strip() for part in text.split(","))
        return tuple(_mount(entry, suffix=suffix) for entry in entries if entry)

    return parse


def _mount(entry: str, *, suffix: bool) -> str:
    place, mode = (entry.removesuffix(":rw"), ":rw") if suffix and entry.endswith(":rw") else (entry, "")
    if re.search(r"\s/", place):
        raise Fault(f"{shown(entry)} contains several paths; separate them by commas")
    if not place.startswith("/") or ":" in place or ".." in place.split("/") or not place.isprintable():
        raise Fault(f'{shown(entry)} is not an absolute path without ".." and ":"; write such as /srv/data')
    return "/" + posixpath.normpath(place).lstrip("/") + mode


def host_aliases(text: str, note: Note) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """`name:ip,...`, grouped by IP address in the order of their first appearance (A 7.1)."""
    found: dict[str, list[str]] = {}
    for entry in (part.strip() for part in text.split(",")):
        if entry:
            name, _, ip = entry.partition(":")  # a name contains no colon, an IPv6 address does
            try:
                found.setdefault(str(ipaddress.ip_address(ip.strip())), []).append(name.strip())
            except ValueError:
                raise Fault(f"{shown(entry)} is not name:ip; write such as cloud.example.com:10.0.0.5") from None
    return tuple((ip, tuple(names)) for ip, names in found.items())


# --- secrets


def secret(text: str, note: Note) -> str:
    """Return a secret of printable characters. No message repeats any of it.

    Spaces around it cannot be sent in a header (RFC 9110 section 5.5), and one pair of quotes around it comes from
    a compose list; both are removed.
    """
    key = text.strip()
    if key != text:
        note("the spaces around it were removed")
    if len(key) >= 2 and PAIRS.get(key[0]) == key[-1]:
        key = key[1:-1]
        note("the quotes around it were removed; in a compose list write it without quotes")
    if not key or key != key.strip():
        raise Fault("is empty or has spaces inside its quotes; write it without quotes and without spaces around it")
    if not key.isprintable():
        raise Fault("contains an unprintable character; use letters, digits and punctuation on one line")
    return key


def shared_key(text: str, note: Note) -> str:
    """Return the key that we share with Nextcloud."""
    key = secret(text, note)
    if len(key) < 12:
        note("is short enough to be guessed; use a long random text, such as from: openssl rand -hex 32")
    return key


# --- values from files

LARGEST_KEY_FILE = 64 << 10  # bytes
LARGEST_NETWORKS_FILE = 1 << 20  # bytes


def shared_key_file(text: str, note: Note) -> str:
    """Return the key in the file of that path, trailing line ends dropped."""
    key = content(text, LARGEST_KEY_FILE).rstrip("\r\n")
    if not key.strip():
        raise Fault(f"{shown(text)} is empty; write the key into it")
    return shared_key(key, note)


def networks_file(text: str, note: Note) -> tuple[Network, ...]:
    """IP addresses and networks in the file of that path, any number a line; "#" begins a comment."""
    lines = content(text, LARGEST_NETWORKS_FILE).splitlines()
    return networks("\n".join(line.partition("#")[0] for line in lines), note)


def content(text: str, most: int) -> str:
    """Return what is in the file of that path. Raises Fault when it cannot be read or has more than `most` bytes."""
    try:
        with Path(text).open("rb") as file:
            content = file.read(most + 1)
    except (OSError, ValueError) as error:
        reason = words_of(error) if isinstance(error, OSError) else "not a path"
        raise Fault(f"{shown(text)} cannot be read ({reason}); mount the file or correct the path") from None
    if len(content) > most:
        raise Fault(f"{shown(text)} is larger than {most} bytes; is it the right file?")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise Fault(f"{shown(text)} is not UTF-8 text; is it the right file?") from None
