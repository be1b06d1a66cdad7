"""The configuration of reverse proxies in front of HaRP: one template per file, filled in for one site.

`harp setup` prints them, docs/reverse-proxies.md shows them, and the tests run the real reverse proxies with them.
A template's words between two "@" are fields of `ProxySite`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from harp.errors import HarpError

FOLDER = Path(__file__).parent
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\]").fullmatch
_ADDRESS = re.compile(r"(?P<host>[^:\[\]]+|\[[^\]]+\]):(?P<port>\d{1,5})").fullmatch
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)*").fullmatch


class UnknownSite(HarpError):
    """A site cannot be written into a configuration as it is; the text says what is wrong."""


class ReverseProxy(NamedTuple):
    """A kind of reverse proxy."""

    name: str  # for people
    files: tuple[str, ...]  # its templates
    reload: str  # what makes it read its configuration
    header: str = "x-forwarded-for"  # in which it reports clients' addresses


PROXIES: Mapping[str, ReverseProxy] = {
    "nginx": ReverseProxy("nginx", ("nginx-http.conf", "nginx-location.conf"), "nginx -t && nginx -s reload"),
    "apache": ReverseProxy("Apache", ("apache.conf",), "a2enmod proxy proxy_http headers && apachectl graceful"),
    "caddy": ReverseProxy("Caddy", ("Caddyfile",), "caddy reload"),
    "traefik-file": ReverseProxy("Traefik, with a file", ("traefik-file.yaml",), ""),
    "traefik-labels": ReverseProxy("Traefik, with labels", ("traefik-labels.yaml",), "docker compose up -d"),
    "nginx-proxy-manager": ReverseProxy("Nginx Proxy Manager", ("nginx-proxy-manager.conf",), ""),
    "cloudflared": ReverseProxy("Cloudflare Tunnel", ("cloudflared.yaml",), "", "CF-Connecting-IP"),
}


class ProxySite(NamedTuple):
    """A Nextcloud with a HaRP beside it. The defaults are those of the documentation."""

    harp: str = "127.0.0.1:8780"  # where the reverse proxy reaches HaRP
    domain: str = "cloud.example.com"  # of the Nextcloud, as browsers call it
    prefix: str = ""  # the subfolder that Nextcloud is in: "/nextcloud"
    nextcloud: str = "http://nextcloud:80"  # where cloudflared finds Nextcloud itself


def filled(file: str, site: ProxySite) -> str:
    """Return a template, filled in. Raises UnknownSite for what could break the configuration."""
    _check(site)
    text = (FOLDER / file).read_text("utf-8")
    values = {**site._asdict(), "port": site.harp.rpartition(":")[2]}
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def _check(site: ProxySite) -> None:
    address = _ADDRESS(site.harp)
    if address is None or not _HOST(address["host"]) or not 0 < int(address["port"]) < 65536:
        raise UnknownSite(f"{site.harp!r} is not an address such as 127.0.0.1:8780 or harp:8780")
    if not _HOST(site.domain):
        raise UnknownSite(f"{site.domain!r} is not a host name such as cloud.example.com")
    if not _PREFIX(site.prefix):
        raise UnknownSite(f"{site.prefix!r} is not a subfolder such as /nextcloud")
    if not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]_-]+(/[A-Za-z0-9._~/-]*)?", site.nextcloud):
        raise UnknownSite(f"{site.nextcloud!r} is not a URL such as http://nextcloud:80")
