"""The certificates of the tunnel: a small CA of our own, one server and one client certificate (A 7.2).

Replicas show each other a third one, which nobody else has: `member_tls`.

All of it lives in one directory, normally `/certs/frp`. Admins copy `ca.crt`, `client.crt` and `client.key` from there
to remote engines, so existing files that match are used; missing ones are created, and certificates are renewed in
time. The CA and every key stay, so copies elsewhere keep working until they expire.

Files are read and written here: call everything off the event loop. A directory in order is seen to be so by OpenSSL
alone; only when it is not, `certificate_maker` is loaded.
"""

from __future__ import annotations

import fcntl
import os
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from msgspec import Struct

from harp.errors import SettingsError, words_of
from harp.lazy import load_now
from harp.net.tls_selfcheck import load_pair, selfcheck
from harp.policy.ports import SERVER_NAME

MAKER = "harp.net.certificate_maker"
MEMBERS = "harp.net.member_tls"
RENEW_BEFORE = timedelta(days=30)  # at most; a certificate of short life is renewed in its last third
PATIENCE = 30.0  # seconds for another process that makes the certificates
LOOK_AGAIN = 0.05  # seconds


class Report(Struct, frozen=True):
    """What `ensure` did and what needs attention; each a sentence for the log."""

    made: tuple[str, ...]  # files made or renewed: a context in use has to be read again
    warnings: tuple[str, ...]


def ensure(
    directory: Path, validity_days: int, now: datetime, *, member: bool = False, patience: float = PATIENCE
) -> Report:
    """Make `directory` usable: create what is missing, renew leaves that end soon, leave the rest alone.

    With `member` that includes the certificate of replicas. `now` is aware. A certificate lives `validity_days`, never
    longer than its CA. Each file is replaced as a whole, so a crash leaves a directory that the next call completes;
    one process at a time makes anything, others wait up to `patience` seconds. Raises SettingsError with every reason
    why the server cannot run with this directory.
    """
    if _in_order(directory, now, member):
        return Report((), ())
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _locked(directory, patience):
            if _in_order(directory, now, member):  # another process was faster
                return Report((), ())
            made: Report = load_now(MAKER).complete(directory, timedelta(days=validity_days), now, member=member)
            return made
    except OSError as error:
        raise SettingsError([f"{directory}: {words_of(error)}"]) from error


def server_context(directory: Path) -> ssl.SSLContext:
    """Return TLS for the tunnel server: clients must show a certificate of our CA; its name does not matter (F 1.2).

    A bare context on purpose: `ssl.create_default_context` sets VERIFY_X509_STRICT from Python 3.13 on, and a CA of the
    openssl recipe (A 7.2) fails that. Raises SettingsError naming the file.
    """
    context = _bare_context()
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(directory / "ca.crt")
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError([f"{directory / 'ca.crt'}: {words_of_file(error)}"]) from error
    try:
        load_pair(context, directory, "server")
    except OSError as error:
        raise SettingsError([f"{directory / 'server.crt'} and server.key: {words_of_file(error)}"]) from error
    return context


def throwaway_context(now: datetime) -> ssl.SSLContext:
    """Return TLS for plain mode: a certificate that exists in memory only, and none is asked of clients.

    A frpc configured without any TLS line uses TLS (default since 0.50) and does not verify, so a server without
    certificates still has to answer it (F 1.2).
    """
    context = _bare_context()
    with _as_file(load_now(MAKER).throwaway(now)) as path:
        context.load_cert_chain(path)
    return context


def ends_soon(begin: datetime, end: datetime, now: datetime) -> bool:
    """Return whether it is time to renew a certificate that is good from `begin` to `end`."""
    return end - now < min(RENEW_BEFORE, (end - begin) / 3)


def words_of_file(error: Exception) -> str:
    """Return what OpenSSL or the system says of a file, without numbers and file names."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return words_of(error) if isinstance(error, OSError) else str(error)


def _in_order(directory: Path, now: datetime, member: bool) -> bool:
    """Return whether everything exists, matches and is valid; the maker finds and reports the rest."""
    try:
        if (directory / "ca.key").exists():
            load_pair(_bare_context(), directory, "ca")
        lifetimes = selfcheck(server_context(directory), directory, SERVER_NAME)
        if member:
            lifetimes += load_now(MEMBERS).lifetimes(directory)
    except (OSError, SettingsError):
        return False
    return not any(ends_soon(life.begin, life.end, now) for life in lifetimes)


@contextmanager
def _locked(directory: Path, patience: float) -> Iterator[None]:
    """Keep other processes from making certificates in `directory` inside the block.

    The lock is one of the directory itself, so that it leaves no file, and it ends with the process. Some network file
    systems cannot lock directories: there, no lock is used. Raises SettingsError when somebody keeps it for too long.
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        until = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    text = f"{directory}: another process has been making certificates there for {patience:g} s"
                    raise SettingsError([text]) from None
                time.sleep(LOOK_AGAIN)
            except OSError:
                break
            else:
                break
        yield
    finally:
        os.close(handle)


def _bare_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A path OpenSSL can read `content` from, in memory where the system can: the file system may be read-only."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("harp"), "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
        return
    import tempfile  # noqa: PLC0415 - no Linux comes here, and it takes 0.6 MB

    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name
