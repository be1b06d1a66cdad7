"""What passes to an engine, and in which version of its API."""

from __future__ import annotations

import pytest

from harp.policy.docker_api import ApiRange, EngineRequest, engine_request, version_of

OLD = ApiRange((1, 12), (1, 41))  # Docker 20.10
NEW = ApiRange((1, 44), (1, 52))  # Docker 29


def sent(method: str, target: str, query: str = "", api: ApiRange = OLD) -> str:
    """The path that an engine would get; "" when the request does not pass. The query passes as it is."""
    way = engine_request(method.encode(), target.encode(), query.encode())
    if not isinstance(way, EngineRequest):
        return ""
    path, mark, rest = way.target(api).decode().partition("?")
    assert mark + rest == query
    return path


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/_ping"),
        ("HEAD", "/_ping"),
        ("GET", "/images/ghcr.io/nextcloud/app:1.2-cuda/json"),
        ("GET", "/images/localhost:5000/a/b@sha256:00ff/json"),
        ("GET", "/containers/nc_app_hello/json"),
        ("HEAD", "/containers/nc_app_hello.world-2_x/json"),
        ("GET", "/containers/nc_app_hello/logs"),
    ],
)
def test_what_appapi_reads_passes_with_and_without_a_version(method: str, target: str) -> None:
    assert sent(method, target, "?stdout=true") == target
    assert sent(method, f"/v1.41{target}", "?stdout=true") == f"/v1.41{target}"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/_ping"),
        ("GET", "/_pingX"),
        ("GET", "/_ping/"),
        ("GET", "/x/_ping"),
        ("GET", "/info"),
        ("GET", "/v1.41"),
        ("GET", "/v1.41/v1.41/_ping"),
        ("GET", "/vX/_ping"),
        ("GET", "/v1..41/_ping"),
        ("GET", "/containers/json"),
        ("GET", "/containers/other/json"),
        ("GET", "/containers/nc_app_/json"),
        ("GET", "/containers/nc_app_x/jsonZZ"),
        ("GET", "/containers/nc_app_x/y/json"),
        ("GET", "/containers/nc_app_x%2fy/json"),
        ("GET", "/containers/nc_app_x/archive"),
        ("POST", "/containers/nc_app_x/start"),
        ("POST", "/containers/create"),
        ("DELETE", "/containers/nc_app_x"),
        ("GET", "/images/json"),
        ("GET", "/images//json"),
        ("GET", "/images/a%00b/json"),
        ("GET", "/images/a/get"),
        ("DELETE", "/images/a"),
        ("POST", "/build"),
        ("GET", "//_ping"),
        ("GET", "/_ping\n"),
    ],
)
def test_everything_else_does_not(method: str, target: str) -> None:
    assert sent(method, target) == ""


def test_a_path_is_checked_decoded_and_sent_as_it_was_checked() -> None:
    assert sent("GET", "/%5fping") == "/_ping"
    assert sent("GET", "/v1%2e41/containers/nc%5Fapp_x/json") == "/v1.41/containers/nc_app_x/json"
    assert sent("GET", "/images/a%2Fb%3A1/json") == "/images/a/b:1/json"


@pytest.mark.parametrize(
    ("api", "asked", "got"),
    [
        (OLD, "v1.44", "v1.41"),
        (OLD, "v1.41", "v1.41"),
        (OLD, "v1.30", "v1.30"),
        (OLD, "v1.2", "v1.12"),
        (OLD, "v2", "v1.41"),
        (NEW, "v1.41", "v1.44"),
        (NEW, "v1.48", "v1.48"),
        (NEW, "v1.99", "v1.52"),
    ],
)
def test_the_version_is_brought_into_the_engines_range(api: ApiRange, asked: str, got: str) -> None:
    assert sent("GET", f"/{asked}/_ping", api=api) == f"/{got}/_ping"
    assert sent("GET", "/_ping", api=api) == "/_ping"


@pytest.mark.parametrize(
    "query",
    ["?fromImage=a", "?fromImage=ghcr.io%2Fa%2Fb%3A1&tag=&platform=linux%2Farm64", "?tag=latest&fromImage=a"],
)
def test_an_image_may_be_pulled(query: str) -> None:
    assert sent("POST", "/v1.44/images/create", query) == "/v1.41/images/create"


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?tag=1",
        "?fromSrc=-",
        "?fromImage=a&fromSrc=-",
        "?fromImage=a&fromsrc=-",
        "?fromImage=a&from%53rc=-",
        "?fromImage=a;fromSrc=-",
        "?fromImage=a&repo=b",
        "?fromImage=a&message=b",
        "?fromImage=a&changes=ENV",
        "?fromImage=a&fromImage=b",
        "?fromImage=a" + "&tag=b" * 20,
    ],
)
def test_an_image_may_not_be_made_of_anything_but_a_registrys(query: str) -> None:
    way = engine_request(b"POST", b"/v1.44/images/create", query.encode())
    assert isinstance(way, str)
    assert len(way) <= 120


def test_images_create_must_be_the_whole_path_and_a_post() -> None:
    assert sent("POST", "/images/createX", "?fromImage=a") == ""
    assert sent("GET", "/images/create", "?fromImage=a") == ""


def test_a_version_is_two_numbers() -> None:
    assert version_of("1.41") == (1, 41)
    for text in ("", "1", "1.41.0", "1.x", "4.3.1-dev"):
        assert version_of(text) is None


def test_a_range_reads_well() -> None:
    assert str(OLD) == "1.12 to 1.41"
