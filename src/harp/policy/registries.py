"""Image registries: logins and mirrors (HP_REGISTRIES_FILE).

The file is Docker's own config.json, of which "auths" is read, and may have "mirrors" beside it:

{"auths": {"ghcr.io": {"auth": "<base64 of user:password>"}}, "mirrors": {"ghcr.io": "registry.example.com/ghcr"}}
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from binascii import Error, a2b_base64
from collections.abc import Mapping

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from harp.policy.docker_api import EngineRequest
from harp.wire.decoding import decoded

HUB = "docker.io"
_HUB_NAMES = frozenset(("index.docker.io", "registry-1.docker.io"))


class Credential(Struct, frozen=True):
    """A login at a registry."""

    username: str = ""
    password: str = ""
    identitytoken: str = ""

    def __repr__(self) -> str:
        return f"Credential({self.username!r})"


class Registries(Struct, frozen=True):
    """By registry, as full_name spells it."""

    credentials: Mapping[str, Credential] = {}
    mirrors: Mapping[str, str] = {}  # prefix of full names -> its replacement

    def mirrored(self, reference: str) -> str:
        """Return the image to ask for instead of `reference`; the longest prefix decides."""
        full = full_name(reference)
        fitting = [prefix for prefix in self.mirrors if full.startswith(f"{prefix}/")]
        if not fitting:
            return reference
        prefix = max(fitting, key=len)
        return self.mirrors[prefix] + full[len(prefix) :]

    def login(self, reference: str) -> bytes:
        """Return the value of X-Registry-Auth for an image, b"" without a login at its registry."""
        registry = full_name(reference).partition("/")[0]
        credential = self.credentials.get(registry)
        if credential is None:
            return b""
        return urlsafe_b64encode(msgspec.json.encode({**msgspec.to_builtins(credential), "serveraddress": registry}))

    def ask(self, way: EngineRequest) -> tuple[EngineRequest, bytes]:
        """Return a request for an image as the engine should get it, and the login to go with it if it is a pull."""
        if not way.image:
            return way, b""
        image = self.mirrored(way.image)
        login = self.login(image) if way.is_pull else b""
        return way if image == way.image else replace(way, instead=image), login


NONE = Registries()


def full_name(reference: str) -> str:
    """Return a reference with its registry, completed as Docker does."""
    first, slash, _ = reference.partition("/")
    if not slash:
        return f"{HUB}/library/{reference}"
    if "." not in first and ":" not in first and first != "localhost":
        return f"{HUB}/{reference}"
    return HUB + reference[len(first) :] if first in _HUB_NAMES else reference


class _Login(Struct, frozen=True):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""


class _File(Struct, frozen=True):
    auths: dict[str, _Login] = {}
    mirrors: dict[str, str] = {}


def registries_from(text: bytes) -> Registries:
    """Read the file. Raises ValueError with what is wrong with it, without repeating any of it."""
    file = decoded(text, _File, lambda error: ValueError(str(error).partition(" - ")[0]))
    credentials = {_registry(key): _credential(key, entry) for key, entry in file.auths.items()}
    return Registries(credentials, {key.rstrip("/"): place.rstrip("/") for key, place in file.mirrors.items()})


def _registry(key: str) -> str:
    """Keys are hosts, or URLs as `docker login` writes them for the hub."""
    host = key.partition("://")[2] or key
    host = host.partition("/")[0]
    return HUB if host in _HUB_NAMES else host


def _credential(key: str, entry: _Login) -> Credential:
    if not entry.auth:
        return Credential(entry.username, entry.password, entry.identitytoken)
    try:
        username, colon, password = a2b_base64(entry.auth).decode().partition(":")
    except (Error, UnicodeDecodeError):
        colon = ""
    if not colon:
        raise ValueError(f"the auth of {key} is not the base64 of user:password")
    return Credential(username, password, entry.identitytoken)
