"""`harp check`: the settings in effect, and what `harp run` would stumble over.

Files are looked at as well; nothing is changed and nothing is opened for long.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from harp.commands.check_remarks import remarks_of
from harp.engines.inventory import local_engine, registries_of
from harp.errors import HarpError, SettingsError, words_of
from harp.logs import fingerprint
from harp.net.certificates import server_context
from harp.net.listen import https_context
from harp.settings import Settings, examine
from harp.status.doctor.report import Finding, worst

SHARED_KEY = "HP_SHARED_KEY"
LONG_SECRET = 12  # characters; a shorter one could be guessed from its fingerprint


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.epilog = "It reads every variable of `harp run` (see `harp run --help`)."
    parser.add_argument("--strict", action="store_true", help="fail for warnings as well")
    text = (
        "also ask ports, Nextcloud and the engine whether `harp run` would work; while it runs, `harp doctor` answers"
    )
    parser.add_argument("--live", action="store_true", help=text)
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def main(options: argparse.Namespace) -> int:
    """Check the environment; return the exit code. Raises SettingsError."""
    if options.json:
        return _check_as_json(os.environ, strict=options.strict, live=options.live)
    return check(os.environ, strict=options.strict, live=options.live)


def check(env: Mapping[str, str], *, strict: bool = False, live: bool = False) -> int:
    """Print the settings in `env` and the warnings about them; return the exit code. No secret is printed.

    Raises SettingsError with every problem of the settings and of the files they name.
    """
    reading = examine(env)
    problems = (*reading.problems, *problems_of(reading.settings))
    warnings = (*reading.warnings, *remarks_of(reading))
    print("Settings in effect (* = given, others are defaults):")
    width = max(len(value.name) for value in reading.values)
    for value in reading.values:
        text = _described_secret(value.text) if value.secret else value.text
        print(f"{'*' if value.given else ' '} {value.name:<{width}}  {text or 'none'}")
    if reading.settings.shared_key and not any(value.secret for value in reading.values if value.name == SHARED_KEY):
        print(f"  {'(the key in the file)':<{width}}  {_described_secret(reading.settings.shared_key)}")
    for one in reading.settings.instances:
        hosts, key = ", ".join(one.hosts), _described_secret(one.shared_key)
        print(f"  {'instance ' + one.instance:<{width}}  {one.nextcloud.url}, hosts {hosts}, key of {key}")
    if warnings:
        print(f"\n{_count(warnings, 'warning')}:")
        print("\n".join(f"  {warning}" for warning in warnings))
    sys.stdout.flush()
    if problems:
        print(file=sys.stderr)
        raise SettingsError(list(problems))
    if reading.settings.kubernetes.enabled:
        _check_cluster(reading.settings)
    findings = _live(reading.settings) if live else []
    if findings:
        from harp.commands.doctor import lines_of_findings  # noqa: PLC0415 - few need it

        print("\n" + "\n".join(lines_of_findings(findings, colour=False)))
    if strict and warnings:
        print("\nThese settings can be used, but for the warnings (--strict).")
        return 1
    print("\nThese settings can be used.")
    return 1 if worst(findings) == "failed" else 0


def _live(settings: Settings) -> list[Finding]:
    from harp.commands.check_live import findings_of  # noqa: PLC0415 - it loads half of HaRP

    return findings_of(settings)


def _check_as_json(env: Mapping[str, str], *, strict: bool, live: bool) -> int:
    """Print the same as one object; return the exit code."""
    reading = examine(env)
    problems = (*reading.problems, *problems_of(reading.settings))
    warnings = (*reading.warnings, *remarks_of(reading))
    findings = _live(reading.settings) if live and not problems else []
    settings = {
        value.name: {"value": _described_secret(value.text) if value.secret else value.text, "given": value.given}
        for value in reading.values
    }
    told = {"settings": settings, "problems": problems, "warnings": warnings, "findings": findings}
    print(msgspec.json.encode(told).decode())
    return 1 if problems or (strict and warnings) or worst(findings) == "failed" else 0


def _check_cluster(settings: Settings) -> None:
    """Print what the cluster allows; it may be unreachable from here."""
    from harp.engines.kubernetes.cluster import info_of  # noqa: PLC0415 - who has no cluster does not pay for it

    info = asyncio.run(info_of(settings))
    print(f"\nKubernetes {settings.kubernetes.api_server}: {info.error or 'reachable'}")
    for feature, text in (info.missing_rights or {}).items():
        print(f"  right missing ({feature}): {text}")
    if info.reachable and not info.missing_rights:
        print("  every right is there")


def _described_secret(secret: str) -> str:
    if len(secret) < LONG_SECRET:
        return f"{len(secret)} characters"
    return f"{len(secret)} characters, fingerprint {fingerprint(secret)}"


def _count(things: Sequence[str], word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


def problems_of(settings: Settings) -> list[str]:
    """Describe every problem with the files that the settings name, each with its variable."""
    certificates = [f"HP_CERTS_DIR: {problem}" for problem in (*_of_https(settings), *_of_tunnel(settings))]
    of_instances = [problem for one in settings.instances for problem in _of_engines(one)]
    return list(dict.fromkeys((*certificates, *_of_engines(settings), *of_instances)))


def _of_engines(settings: Settings) -> list[str]:
    """Return the client certificate for an engine, and the logins at registries."""
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
    """Check that an existing directory is readable, and that a missing one can be made (A 7.2)."""
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
        return [f"{directory}: {words_of(error)}"]
    return []


def _can_be_made(directory: Path) -> bool:
    """Return whether we may write into `directory`, or make it below its nearest parent that exists."""
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
