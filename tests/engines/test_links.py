"""Symbolic links on an engine's host: where a path leads that a list of directories allows."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from harp.engines.docker import DockerEngine
from harp.policy.ca_stores import File
from tests.fakes.engine import FakeEngine

IMAGE = "image:1"
ROOT = "/srv/data"


def on_the_host(fake: FakeEngine, *files: File) -> None:
    fake.host = {file.path: file for file in files}


async def test_a_path_without_links_leads_nowhere_else(engine: DockerEngine, fake: FakeEngine) -> None:
    on_the_host(fake, File(f"{ROOT}/app/models/one", b"x"))
    assert await engine.first_link(IMAGE, ROOT, f"{ROOT}/app/models") is None
    assert [call.query["path"] for call in fake.calls if call.method == "HEAD"] == [
        "/harp-look/app",
        "/harp-look/app/models",
    ]


@pytest.mark.parametrize(
    ("link", "leads"),
    [
        ("/etc", "/etc/models"),
        ("../../../etc", "/etc/models"),
        ("other", f"{ROOT}/other/models"),
        ("/", "/models"),
    ],
)
async def test_the_first_link_tells_where_the_whole_path_leads(
    engine: DockerEngine, fake: FakeEngine, link: str, leads: str
) -> None:
    on_the_host(fake, File(f"{ROOT}/app", link=link))
    assert await engine.first_link(IMAGE, ROOT, f"{ROOT}/app/models") == leads


async def test_what_is_not_there_yet_is_no_link(engine: DockerEngine) -> None:
    assert await engine.first_link(IMAGE, ROOT, f"{ROOT}/app/models") is None


async def test_the_container_that_looks_is_never_started_sees_only_the_root_and_is_removed(
    engine: DockerEngine, fake: FakeEngine
) -> None:
    await engine.first_link(IMAGE, ROOT, f"{ROOT}/app")
    (made,) = fake.called("POST", "/containers/create")
    assert b'{"Type":"bind","Source":"/srv/data","Target":"/harp-look","ReadOnly":true}' in made.body
    assert not [call for call in fake.calls if call.path.endswith("/start")]
    assert fake.containers == {}


async def test_an_engine_that_refuses_to_look_is_left_to_refuse_the_mount_itself(
    engine: DockerEngine, fake: FakeEngine
) -> None:
    fake.errors["POST", "/containers/create"] = (400, "invalid mount config: bind source path does not exist")
    assert await engine.first_link(IMAGE, ROOT, f"{ROOT}/app") is None


async def test_a_container_that_cannot_be_removed_is_named_in_the_log(engine: DockerEngine, fake: FakeEngine) -> None:
    fake.undeletable = True
    with capture_logs() as logged:
        assert await engine.first_link(IMAGE, ROOT, f"{ROOT}/app") is None
    (event,) = [event for event in logged if event["log_level"] == "warning"]
    assert (event["event"], event["engine"]) == ("container left behind", engine.api.name)
    assert "removal of container is in progress" in event["reason"]
