"""The verbs of a Docker engine: versions, errors, create, start, stop, remove."""

from __future__ import annotations

import asyncio
import json

import pytest

from harp.engines.docker import DockerEngine
from harp.engines.errors import (
    EngineConflict,
    EngineError,
    EngineMissing,
    EngineRefused,
    EngineTimeout,
    EngineUnreachable,
    ForeignOwner,
)
from harp.engines.replies import message_of
from harp.engines.verbs import CreatedContainer, DeletedImage
from harp.errors import TunnelAway
from harp.net.targets import Unix
from harp.policy.container import CreatePlan, Mount
from harp.policy.docker_api import ApiRange
from harp.policy.registries import Registries
from tests.engines.conftest import OWNER
from tests.engines.containers import APP, CONTAINER, RUNNING, waited
from tests.fakes.engine import EngineDialer, FakeEngine, serving
from tests.fakes.waiting import until

VOLUME = "nc_app_app_data"

PLAN = CreatePlan(APP, "image:1").checked()


# What the engine is


async def test_every_call_is_made_in_a_version_that_the_engine_takes(engine: DockerEngine, fake: FakeEngine) -> None:
    assert engine.facts is not None
    assert engine.facts.api == ApiRange((1, 24), (1, 41))
    await engine.exists(APP)
    assert {call.version for call in fake.calls} == {"1.41"}


@pytest.mark.parametrize(("low", "high", "version"), [("1.44", "1.52", "1.44"), ("1.24", "1.45", "1.44")])
async def test_newer_engines_are_spoken_to_in_what_we_are_written_for(low: str, high: str, version: str) -> None:
    fake = FakeEngine(low, high)
    async with serving(fake) as dialer:
        engine = DockerEngine("it", Unix("/x"), dialer, OWNER, None, connect=2.0)
        await engine.ask(2.0)
        await engine.exists(APP)
        await engine.close()
    assert fake.calls[-1].version == version


async def test_podman_is_known_by_its_components() -> None:
    fake = FakeEngine(podman=True)
    async with serving(fake) as dialer:
        engine = DockerEngine("it", Unix("/x"), dialer, OWNER, None, connect=2.0)
        facts = await engine.ask(2.0)
        await engine.create(CreatePlan(APP, "image:1", device="cuda"))
        await engine.close()
    assert facts.podman
    call = fake.called("POST", "/v4.0.0/libpod/containers/create")[0]
    assert call.version == ""
    assert json.loads(call.body)["devices"] == [{"path": "nvidia.com/gpu=all"}]


async def test_an_engine_that_was_replaced_by_a_newer_one_is_asked_again(
    engine: DockerEngine, fake: FakeEngine
) -> None:
    fake.low, fake.high = "1.44", "1.52"
    assert await engine.exists(APP) is None
    assert engine.facts is not None
    assert engine.facts.api == ApiRange((1, 44), (1, 52))


# Failures


async def test_the_engines_own_words_come_first(engine: DockerEngine, fake: FakeEngine) -> None:
    fake.errors["GET", f"/containers/{CONTAINER}/json"] = (500, "the disk is\nfull")
    with pytest.raises(EngineRefused, match=r"^the disk is full \(GET /containers/nc_app_app/json on the engine"):
        await engine.exists(APP)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, EngineRefused), (404, EngineMissing), (409, EngineConflict), (500, EngineRefused)]
)
async def test_a_status_decides_the_kind_of_error(
    engine: DockerEngine, fake: FakeEngine, status: int, kind: type[EngineError]
) -> None:
    fake.errors["GET", "/info"] = (status, "no")
    with pytest.raises(EngineRefused) as caught:
        await engine.api.call("GET", "/info")
    assert type(caught.value) is kind
    assert caught.value.status == status


async def test_an_engine_that_is_away_says_so(dialer: EngineDialer) -> None:
    engine = DockerEngine("the engine of port 24001", Unix("/x"), dialer, OWNER, None, connect=2.0)
    dialer.away = TunnelAway("no tunnel is connected for port 24001")
    with pytest.raises(EngineUnreachable, match=r"^the engine of port 24001 cannot be reached: no tunnel is connected"):
        await engine.exists(APP)
    await engine.close()


async def test_an_engine_that_is_silent_is_a_time_out(engine: DockerEngine, fake: FakeEngine) -> None:
    fake.silent.add(("GET", "/info"))
    with pytest.raises(EngineTimeout, match=r"GET /info on the engine of port 24000: no answer within 0\.05 s"):
        await engine.api.call("GET", "/info", limit=0.05)


async def test_an_answer_that_is_no_json_is_an_error_of_the_engine(engine: DockerEngine, fake: FakeEngine) -> None:
    container = fake.add(CONTAINER, "one")
    container.states = [{"Status": 5}]
    with pytest.raises(EngineError, match="not what its API promises"):
        await engine.exists(APP)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"message":"no such thing"}', "no such thing"),
        (b'{"cause":"a","message":"podman says","response":500}', "podman says"),
        (b"page not found\n", "page not found"),
        (b"", "no reason given"),
        (b'{"message":5}', '{"message":5}'),
    ],
)
def test_the_words_of_docker_and_podman_are_understood(body: bytes, text: str) -> None:
    assert message_of(body) == text


# exists


async def test_exists_tells_the_image_or_that_there_is_no_container(engine: DockerEngine, fake: FakeEngine) -> None:
    assert await engine.exists(APP) is None
    fake.add(CONTAINER, "one")
    assert await engine.exists(APP) == "image:1"


async def test_exists_of_an_image_without_a_name_tells_its_id(engine: DockerEngine, fake: FakeEngine) -> None:
    fake.add(CONTAINER, None).body["Image"] = ""
    assert await engine.exists(APP) == "sha256:0"


# create


async def test_create_makes_volume_and_container_with_our_labels_and_starts_nothing(
    engine: DockerEngine, fake: FakeEngine
) -> None:
    plan = CreatePlan(APP, "image:1", "net", ("A=1",), mounts=(Mount("/srv", "/data", "ro"),))
    assert await engine.create(plan) == CreatedContainer(f"id-of-{CONTAINER}", CONTAINER)
    assert [(call.method, call.path) for call in fake.calls] == [
        ("GET", f"/volumes/{VOLUME}"),
        ("POST", "/volumes/create"),
        ("POST", "/containers/create"),
    ]
    body = json.loads(fake.calls[-1].body)
    assert fake.calls[-1].query == {"name": CONTAINER}
    assert body == plan.body(body["Labels"])
    assert body["Labels"]["com.nextcloud.harp.instance"] == "one"
    assert fake.volumes[VOLUME] == body["Labels"]


async def test_a_volume_that_is_there_is_used(engine: DockerEngine, fake: FakeEngine) -> None:
    fake.volumes[VOLUME] = None  # made before owners were written down
    await engine.create(PLAN)
    assert not fake.called("POST", "/volumes/create")
    assert CONTAINER in fake.containers


async def test_a_volume_made_for_a_container_that_does_not_come_to_be_is_removed(
    engine: DockerEngine, fake: FakeEngine
) -> None:
    with pytest.raises(EngineRefused, match=r"^No such image: other:1") as caught:
        await engine.create(CreatePlan(APP, "other:1"))
    assert not isinstance(caught.value, EngineMissing)
    assert fake.volumes == {}


async def test_a_volume_that_was_there_survives_a_failed_create(engine: DockerEngine, fake: FakeEngine) -> None:
    fake.volumes[VOLUME] = {"com.nextcloud.harp.instance": "one"}
    with pytest.raises(EngineRefused):
        await engine.create(CreatePlan(APP, "other:1"))
    assert VOLUME in fake.volumes


async def test_a_taken_name_is_a_conflict_in_the_engines_words(engine: DockerEngine, fake: FakeEngine) -> None:
    fake.add(CONTAINER, "one")
    with pytest.raises(EngineConflict, match=r"^Conflict. The container name"):
        await engine.create(PLAN)
    assert fake.volumes == {}


async def test_a_taken_name_is_a_conflict_on_podman_as_well(engine: DockerEngine, fake: FakeEngine) -> None:
    fake.add(CONTAINER, "one")
    fake.errors["POST", "/containers/create"] = (500, "the container name is already in use")
    with pytest.raises(EngineConflict, match=r"^the container name is already in use"):
        await engine.create(PLAN)


async def test_an_image_of_a_mirror_is_the_image_that_was_pulled(dialer: EngineDialer, fake: FakeEngine) -> None:
    registries = Registries(mirrors={"ghcr.io": "near.example"})
    engine = DockerEngine("it", Unix("/x"), dialer, OWNER, None, registries, connect=2.0)
    fake.images["near.example/a:1"] = 5
    await engine.create(CreatePlan(APP, "ghcr.io/a:1"))
    assert await engine.exists(APP) == "near.example/a:1"
    assert await engine.image_remove("ghcr.io/a:1") == DeletedImage(True, 5)
    await engine.close()


# start, stop


async def test_start_and_stop_tell_whether_anything_changed(engine: DockerEngine, fake: FakeEngine) -> None:
    fake.add(CONTAINER, "one")
    assert await engine.start(APP) is True
    assert await engine.start(APP) is False
    assert await engine.stop(APP) is True
    assert await engine.stop(APP) is False


async def test_start_and_stop_of_nothing_are_missing(engine: DockerEngine, fake: FakeEngine) -> None:
    for verb in (engine.start, engine.stop):
        with pytest.raises(EngineMissing, match=r"^No such container: nc_app_app"):
            await verb(APP)


@pytest.mark.parametrize(("timeout", "grace"), [(None, "10"), (0, "10"), (60, "60"), (3600, "90")])
async def test_podman_is_told_a_containers_own_grace_or_it_would_have_none(timeout: int | None, grace: str) -> None:
    fake = FakeEngine(podman=True)
    fake.add(CONTAINER, "one", **RUNNING).body["StopTimeout"] = timeout
    async with serving(fake) as dialer:
        engine = DockerEngine("it", Unix("/x"), dialer, OWNER, None, connect=2.0)
        await engine.ask(2.0)
        await engine.stop(APP)
        await engine.close()
    assert fake.called("POST", f"/containers/{CONTAINER}/stop")[0].query == {"t": grace}


async def test_docker_knows_the_grace_itself(engine: DockerEngine, fake: FakeEngine) -> None:
    fake.add(CONTAINER, "one", **RUNNING)
    await engine.stop(APP)
    assert fake.called("POST", f"/containers/{CONTAINER}/stop")[0].query == {}


# remove


async def test_remove_takes_the_container_and_leaves_the_data(engine: DockerEngine, fake: FakeEngine) -> None:
    fake.add(CONTAINER, "one", **RUNNING)
    fake.volumes[VOLUME] = {"com.nextcloud.harp.instance": "one"}
    await engine.remove(APP, data=False)
    assert fake.containers == {}
    assert VOLUME in fake.volumes
    assert fake.called("POST", f"/containers/{CONTAINER}/stop")[0].query == {"t": "5"}
    assert fake.called("DELETE", f"/containers/{CONTAINER}")[0].query == {"force": "true"}


async def test_remove_with_data_takes_the_volume_too_container_or_not(engine: DockerEngine, fake: FakeEngine) -> None:
    fake.volumes[VOLUME] = None
    await engine.remove(APP, data=True)
    assert fake.volumes == {}


async def test_removing_nothing_is_fine(engine: DockerEngine) -> None:
    await engine.remove(APP, data=True)


async def test_a_volume_in_use_is_a_conflict(engine: DockerEngine, fake: FakeEngine) -> None:
    fake.volumes[VOLUME] = None
    fake.in_use.add(VOLUME)
    with pytest.raises(EngineConflict, match="volume is in use"):
        await engine.remove(APP, data=True)


async def test_a_removal_that_is_under_way_is_waited_for(engine: DockerEngine, fake: FakeEngine) -> None:
    fake.add(CONTAINER, "one")
    fake.errors["DELETE", f"/containers/{CONTAINER}"] = (409, "removal of container is already in progress")
    removing = asyncio.ensure_future(engine.remove(APP, data=False))
    await until(lambda: fake.called("DELETE", f"/containers/{CONTAINER}"))
    del fake.containers[CONTAINER]
    await removing


# image_remove


async def test_an_image_is_removed_and_its_size_told(engine: DockerEngine, fake: FakeEngine) -> None:
    fake.images["ghcr.io/a/b:1"] = 77
    assert await engine.image_remove("ghcr.io/a/b:1") == DeletedImage(True, 77)
    assert fake.called("DELETE", "/images/ghcr.io%2Fa%2Fb%3A1")


async def test_an_image_that_is_gone_counts_as_removed(engine: DockerEngine) -> None:
    assert await engine.image_remove("x") == DeletedImage(True, 0, "not_found")


async def test_an_image_in_use_stays(engine: DockerEngine, fake: FakeEngine) -> None:
    fake.image_in_use = True
    assert await engine.image_remove("image:1") == DeletedImage(False, reason="in_use")
    assert "image:1" in fake.images


async def test_other_trouble_with_an_image_is_the_engines_error(engine: DockerEngine, fake: FakeEngine) -> None:
    fake.errors["DELETE", "/images/image%3A1"] = (500, "broken")
    with pytest.raises(EngineRefused, match=r"^broken"):
        await engine.image_remove("image:1")


# Owners


async def test_anothers_container_is_not_touched_by_any_verb(engine: DockerEngine, fake: FakeEngine) -> None:
    fake.add(CONTAINER, "two", **RUNNING)
    fake.volumes[VOLUME] = None
    for work in (
        engine.create(PLAN),
        engine.start(APP),
        engine.stop(APP),
        engine.wait_for_start(APP),
        engine.remove(APP, data=False),
        engine.remove(APP, data=True),
        engine.install_certificates(APP, "", tunnel=True),
    ):
        with pytest.raises(
            ForeignOwner, match=r"container nc_app_app belongs to another Nextcloud.*HP_INSTANCE_ID=two"
        ):
            await work
    assert fake.containers[CONTAINER].running
    assert VOLUME in fake.volumes
    changes = {(call.method, call.path) for call in fake.calls} - {("POST", "/containers/create")}
    assert {method for method, _ in changes} == {"GET"}


async def test_anothers_volume_is_neither_mounted_nor_removed(engine: DockerEngine, fake: FakeEngine) -> None:
    fake.volumes[VOLUME] = {"com.nextcloud.harp.instance": "two"}
    with pytest.raises(ForeignOwner, match="volume nc_app_app_data"):
        await engine.create(PLAN)
    fake.add(CONTAINER, "one")
    with pytest.raises(ForeignOwner, match="volume nc_app_app_data"):
        await engine.remove(APP, data=True)
    assert VOLUME in fake.volumes
    assert CONTAINER in fake.containers  # nothing happens by halves


async def test_what_was_made_before_owners_is_adopted(engine: DockerEngine, fake: FakeEngine) -> None:
    fake.add(CONTAINER, None)
    fake.volumes[VOLUME] = None
    assert await engine.start(APP)
    await engine.remove(APP, data=True)
    assert (fake.containers, fake.volumes) == ({}, {})


@pytest.mark.parametrize("owner", ["two"])
async def test_whether_another_nextclouds_container_exists_is_not_said(
    engine: DockerEngine, fake: FakeEngine, owner: str
) -> None:
    fake.add(CONTAINER, owner)
    with pytest.raises(ForeignOwner, match="HP_INSTANCE_ID=two"):
        await engine.exists(APP)


async def test_a_log_that_is_too_large_is_left_out(engine: DockerEngine, fake: FakeEngine) -> None:
    outcome = await waited(engine, fake, {"Status": "exited", "ExitCode": 1}, log=b"x\n" * (200 << 10))
    assert (outcome.reason, outcome.logs) == ("non-recoverable state: exited, exit code 1", [])


async def test_a_container_with_labels_without_end_is_an_error_of_the_engine(
    engine: DockerEngine, fake: FakeEngine
) -> None:
    container = fake.add(CONTAINER, "one")
    container.body["Labels"] = {str(number): "x" for number in range(100_000)}
    with pytest.raises(EngineError, match="an answer of more than 1048576 bytes"):
        await engine.inspect(APP)
