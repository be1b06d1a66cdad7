"""A real Traefik, built by `make traefik`."""

from __future__ import annotations

import http.client
import os
import ssl
from pathlib import Path

from tests.live.peers import do_without
from tests.live.processes import Process

TRAEFIK = Path(__file__).parents[2] / ".cache" / "traefik" / "traefik"
CONFIG = """\
global: {{checkNewVersion: false, sendAnonymousUsage: false}}
entryPoints: {{websecure: {{address: "127.0.0.1:{port}"}}}}
providers: {providers}
"""


def start_traefik(folder: Path, port: int, providers: str) -> Process:
    """Start Traefik with an entry point for HTTPS and a certificate of its own; `providers` is YAML on one line."""
    if not TRAEFIK.exists():
        do_without("Traefik not found: make traefik builds it")
    (folder / "traefik.yml").write_text(CONFIG.format(port=port, providers=providers))
    environment = {"HOME": str(folder), "PATH": os.environ["PATH"]}
    return Process([str(TRAEFIK), f"--configFile={folder}/traefik.yml"], folder / "log", env=environment)


def reaches_harp(port: int, domain: str) -> bool:
    """Is a request over TLS answered by HaRP?"""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
    try:
        connection.request("GET", "/exapps/app_api/info", headers={"Host": domain})
        return connection.getresponse().status == 401
    except OSError:
        return False
    finally:
        connection.close()
