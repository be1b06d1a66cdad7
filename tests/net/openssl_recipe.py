"""The certificates that an existing installation has, made the way it made them (A 7.2)."""

from __future__ import annotations

import subprocess
from pathlib import Path

CONFIGURATION = """\
[req]
distinguished_name = req_distinguished_name
req_extensions = v3_req
prompt = no
[req_distinguished_name]
CN = {name}
[v3_req]
subjectAltName = DNS:{name}
"""


def make_with_openssl(directory: Path, days: int = 5000) -> None:
    """A CA and two leaves, RSA 2048 and SHA-256, with the left-overs. Needs the `openssl` program."""
    directory.mkdir(parents=True)
    openssl(directory, "genrsa", "-out", "ca.key", "2048")
    openssl(
        directory,
        *("req", "-x509", "-new", "-nodes", "-key", "ca.key", "-days", str(days), "-sha256"),
        *("-out", "ca.crt", "-subj", "/CN=harp.nc"),
    )
    for stem, name in (("server", "harp.nc"), ("client", "harp.client.nc")):
        settings = f"{stem}-openssl.cnf"
        (directory / settings).write_text(CONFIGURATION.format(name=name))
        openssl(directory, "genrsa", "-out", f"{stem}.key", "2048")
        openssl(directory, "req", "-new", "-key", f"{stem}.key", "-out", f"{stem}.csr", "-config", settings)
        sign_with_openssl(directory, stem, days)


def sign_with_openssl(directory: Path, stem: str, days: int) -> None:
    """Make the certificate of one leaf, as an admin does who renews it by hand."""
    openssl(
        directory,
        *("x509", "-req", "-in", f"{stem}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-out", f"{stem}.crt", "-days", str(days), "-sha256"),
        *("-extensions", "v3_req", "-extfile", f"{stem}-openssl.cnf"),
    )


def openssl(directory: Path, *arguments: str) -> str:
    """Run it in a directory; what it prints."""
    return subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True, text=True).stdout
