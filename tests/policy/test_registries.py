"""Logins and mirrors of image registries."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64decode
from typing import Any

import msgspec
import pytest

from harp.policy.docker_api import ApiRange, EngineRequest, engine_request
from harp.policy.registries import NONE, Registries, full_name, registries_from

API = ApiRange((1, 24), (1, 41))
FILE = {
    "auths": {
        "ghcr.io": {"auth": b64encode(b"me:pass:word").decode()},
        "https://index.docker.io/v1/": {"username": "hubber", "password": "s3cret"},
        "registry.example:5000": {"identitytoken": "t0ken"},
    },
    "mirrors": {"ghcr.io": "registry.example:5000/ghcr/", "ghcr.io/nextcloud": "near.example", "docker.io": "hub.near"},
    "credHelpers": {"x": "y"},
}
REGISTRIES = registries_from(msgspec.json.encode(FILE))


def login(image: str) -> Any:
    value = REGISTRIES.login(image)
    return msgspec.json.decode(urlsafe_b64decode(value)) if value else None


def asked(method: bytes, target: bytes, query: bytes = b"", registries: Registries = REGISTRIES) -> tuple[bytes, bytes]:
    way = engine_request(method, target, query)
    assert isinstance(way, EngineRequest)
    way, header = registries.ask(way)
    return way.target(API), header


@pytest.mark.parametrize(
    ("reference", "full"),
    [
        ("redis", "docker.io/library/redis"),
        ("redis:7", "docker.io/library/redis:7"),
        ("nextcloud/app:1", "docker.io/nextcloud/app:1"),
        ("docker.io/nextcloud/app", "docker.io/nextcloud/app"),
        ("index.docker.io/nextcloud/app", "docker.io/nextcloud/app"),
        ("localhost/a", "localhost/a"),
        ("host:5000/a", "host:5000/a"),
        ("ghcr.io/a/b@sha256:0", "ghcr.io/a/b@sha256:0"),
    ],
)
def test_names_are_completed_as_docker_does(reference: str, full: str) -> None:
    assert full_name(reference) == full


@pytest.mark.parametrize(
    ("reference", "instead"),
    [
        ("ghcr.io/other/app:1", "registry.example:5000/ghcr/other/app:1"),
        ("ghcr.io/nextcloud/app:1", "near.example/app:1"),
        ("ghcr.io/nextcloud2/app", "registry.example:5000/ghcr/nextcloud2/app"),
        ("redis:7", "hub.near/library/redis:7"),
        ("quay.io/a:1", "quay.io/a:1"),
        ("registry.example:5000/ghcr/other/app:1", "registry.example:5000/ghcr/other/app:1"),
    ],
)
def test_the_longest_prefix_decides_where_to_ask(reference: str, instead: str) -> None:
    assert REGISTRIES.mirrored(reference) == instead


def test_logins_are_found_by_registry_however_the_file_spells_it() -> None:
    assert login("ghcr.io/a") == {
        "username": "me",
        "password": "pass:word",
        "identitytoken": "",
        "serveraddress": "ghcr.io",
    }
    assert login("redis")["username"] == "hubber"
    assert login("registry.example:5000/x")["identitytoken"] == "t0ken"
    assert login("quay.io/x") is None


def test_a_pull_goes_to_the_mirror_with_its_login_and_keeps_its_platform() -> None:
    target, header = asked(b"POST", b"/v1.44/images/create", b"?fromImage=ghcr.io%2Fa%2Fb&tag=1&platform=linux%2Farm64")
    assert target == (
        b"/v1.41/images/create?fromImage=registry.example%3A5000%2Fghcr%2Fa%2Fb%3A1&platform=linux%2Farm64"
    )
    assert b"t0ken" in urlsafe_b64decode(header)


def test_inspecting_an_image_means_the_same_image() -> None:
    target, header = asked(b"GET", b"/v1.44/images/ghcr.io/a/b:1/json")
    assert (target, header) == (b"/v1.41/images/registry.example:5000/ghcr/a/b:1/json", b"")


def test_without_a_mirror_a_request_is_left_as_it_is() -> None:
    query = b"?tag=1&fromImage=quay.io%2fa"
    assert asked(b"POST", b"/images/create", query) == (b"/images/create" + query, b"")
    assert asked(b"POST", b"/images/create", b"?fromImage=redis", NONE) == (b"/images/create?fromImage=redis", b"")
    assert asked(b"GET", b"/_ping") == (b"/_ping", b"")


def test_a_digest_stays_a_digest() -> None:
    target, _ = asked(b"POST", b"/images/create", b"?fromImage=ghcr.io/nextcloud/a&tag=sha256:00")
    assert target == b"/images/create?fromImage=near.example%2Fa%40sha256%3A00"


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b'{"auths": {"a": {"auth": "c2VjcmV0"}}}', b'{"auths": {"a": {"auth": "%%%"}}}', b'{"mirrors": [1]}'],
)
def test_a_file_that_cannot_be_used_is_told_without_its_secrets(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        registries_from(text)
    assert "c2VjcmV0" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_no_secret_is_shown() -> None:
    assert "s3cret" not in repr(REGISTRIES)
    assert "t0ken" not in repr(REGISTRIES)
