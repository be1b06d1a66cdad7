"""What `harp run` would stumble over in the file system; nothing is changed and nothing is opened for long."""

from __future__ import annotations

import os
from pathlib import Path

from harp.engines.inventory import local_engine, registries_of
from harp.errors import HarpError, SettingsError
from harp.net.certificates import server_context
from harp.net.listen import https_context
from harp.settings import Settings


def problems_of(settings: Settings) -> list[str]:
    """Every problem with the files that the settings name, in words, each with its variable."""
    certificates = [f"HP_CERTS_DIR: {problem}" for problem in (*_of_https(settings), *_of_tunnel(settings))]
    return [*certificates, *_of_engines(settings)]


def _of_engines(settings: Settings) -> list[str]:
    """The client certificate for an engine, and the logins at registries."""
    problems = []
    for read in (local_engine, registries_of):
        try:
            read(settings.engines)
        except SettingsError as error:
            problems += error.problems
    return problems


def _of_https(settings: Settings) -> list[str]:
    certificate = settings.certs / "cert.pem"
    try:
        if certificate.exists():
            https_context(certificate)
    except (HarpError, OSError) as error:
        return [str(error)]
    return []


def _of_tunnel(settings: Settings) -> list[str]:
    """An existing directory must be readable, a missing one must be possible to make (A 7.2)."""
    directory = settings.certs / "frp"
    if not settings.tunnel.tls:
        return []
    try:
        if (directory / "server.crt").exists():
            server_context(directory)
        elif not _can_be_made(directory):
            way_out = "mount a volume, name another directory, or set HP_FRP_DISABLE_TLS=true"
            return [f"{directory} cannot be made; {way_out}"]
    except SettingsError as error:
        return error.problems
    except OSError as error:
        return [f"{directory}: {error.strerror or error}"]
    return []


def _can_be_made(directory: Path) -> bool:
    """May we write into `directory`, or make it below its nearest parent that exists?"""
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
