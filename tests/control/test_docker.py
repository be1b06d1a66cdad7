"""The control API's calls for containers: bodies in, verbs out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from io import BytesIO

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from harp.control.docker import register, shown_ports
from harp.control.failures import failures
from harp.control.payloads import LARGEST_BODY
from harp.engines.errors import (
    EngineConflict,
    EngineError,
    EngineMissing,
    EngineRefused,
    EngineTimeout,
    EngineUnreachable,
    ForeignOwner,
)
from harp.engines.verbs import CreatedContainer, DeletedImage, StartOutcome
from harp.policy.container import CreatePlan, Mount, Names, ResourceLimits
from harp.policy.keys import own_key
from harp.settings import load
from tests.control.deployer import APP, FakeDeployer

KEY = "a-shared-key-for-tests"

ENV = {"HP_SHARED_KEY": KEY, "NC_INSTANCE_URL": "http://cloud"}

CREATE = {"name": "app", "instance_id": "", "image_id": "img:1", "network_mode": "net", "start_container": True}

Client = TestClient[web.Request, web.Application]


@pytest.fixture
def deployer() -> FakeDeployer:
    return FakeDeployer()


def application(deployer: FakeDeployer, **variables: str) -> web.Application:
    app = web.Application(middlewares=[failures], client_max_size=LARGEST_BODY)
    register(app, deployer, load({**ENV, **variables}))
    return app


@pytest.fixture
async def client(deployer: FakeDeployer) -> AsyncIterator[Client]:
    async with TestClient(TestServer(application(deployer))) as client:
        yield client


async def post(client: Client, verb: str, body: object, port: str | None = "24000") -> tuple[int, str]:
    headers = {} if port is None else {"docker-engine-port": port}
    answer = await client.post(f"/docker/exapp/{verb}", json=body, headers=headers)
    return answer.status, await answer.text()


VERBS = ["exists", "create", "start", "stop", "wait_for_start", "remove", "image_remove", "install_certificates"]


@pytest.mark.parametrize("verb", VERBS)
async def test_without_a_port_or_with_one_that_is_none_every_verb_is_400(
    client: Client, deployer: FakeDeployer, verb: str
) -> None:
    assert await post(client, verb, {}, None) == (400, "Missing 'docker-engine-port' header.")
    for text in ("x", "0", "65536", "-1", "24000.0", "999999"):
        assert await post(client, verb, {}, text) == (400, f"Invalid 'docker-engine-port' header value: {text}")
    assert deployer.ports == []


async def test_a_port_that_is_not_an_engines_is_400_and_the_list_is_told(client: Client) -> None:
    assert await post(client, "exists", {"name": "app"}, "24100") == (
        400,
        "docker-engine-port 24100 is not in HP_DOCKER_ENGINE_PORTS (24000-24099)",
    )


def test_ports_are_told_as_they_are_written() -> None:
    assert shown_ports(frozenset((24000, 24001, 24002, 24010, 24020, 24021))) == "24000-24002,24010,24020-24021"


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "image_remove"])
@pytest.mark.parametrize(
    ("change", "field"),
    [({"name": "../x"}, "name"), ({"instance_id": "a/b"}, "instance_id"), ({"role_suffix": "a b"}, "role_suffix")],
)
async def test_names_that_are_none_are_400_before_any_engine_is_asked(
    client: Client, deployer: FakeDeployer, verb: str, change: dict[str, str], field: str
) -> None:
    status, text = await post(client, verb, {**CREATE, **change})
    assert status == 400
    assert text.startswith(f"Payload validation error: {field}: ")
    assert deployer.ports == []


async def test_a_body_that_is_no_json_or_not_the_right_one_is_400(client: Client) -> None:
    headers = {"docker-engine-port": "24000"}
    answer = await client.post("/docker/exapp/exists", data=b"{", headers=headers)
    assert (answer.status, await answer.text()) == (400, "Invalid JSON body")
    assert await post(client, "exists", {}) == (400, "Payload validation error: name: field required")
    assert await post(client, "exists", {"name": 5}) == (400, "Payload validation error: name: Expected str, got int")
    assert (await post(client, "exists", {"name": None}))[0] == 400


async def test_only_post_is_taken_and_only_these_verbs(client: Client) -> None:
    assert (await client.get("/docker/exapp/exists")).status == 405
    assert (await client.post("/docker/exapp/deploy")).status == 404


async def test_exists_is_200_with_and_without_a_container(client: Client, deployer: FakeDeployer) -> None:
    deployer.result = "img:1"
    assert await post(client, "exists", {"name": "app", "unknown": 1}) == (200, '{"exists":true,"image_ref":"img:1"}')
    deployer.result = None
    assert await post(client, "exists", {"name": "app"}, "24007") == (200, '{"exists":false}')
    assert deployer.ports == [24000, 24007]
    assert deployer.asked == [("exists", APP)] * 2


async def test_create_is_201_with_id_and_name(client: Client, deployer: FakeDeployer) -> None:
    deployer.result = CreatedContainer("abc", "nc_app_app")
    assert await post(client, "create", CREATE) == (201, '{"id":"abc","name":"nc_app_app"}')
    assert deployer.asked == [("create", CreatePlan(APP, "img:1", "net"))]


async def test_everything_of_a_create_arrives(client: Client, deployer: FakeDeployer) -> None:
    deployer.result = CreatedContainer("abc", "x")
    body = {
        "name": "app",
        "instance_id": "one",
        "role_suffix": "worker",
        "image": "img:1",
        "environment_variables": ["A=1", "B=2"],
        "restart_policy": "always",
        "compute_device": "cuda",
        "mount_points": [{"source": "/srv//data/", "target": "/data"}, {"source": "/a", "target": "/b", "mode": "ro"}],
        "resource_limits": {"memory": "1024", "nanoCPUs": 4099999999.9999995},
    }
    assert (await post(client, "create", body))[0] == 201
    assert deployer.asked[0][1] == CreatePlan(
        Names("app", "one", "worker"),
        "img:1",
        "bridge",
        ("A=1", "B=2"),
        "always",
        "cuda",
        (Mount("/srv/data", "/data"), Mount("/a", "/b", "ro")),
        ResourceLimits(1024, 4100000000),
    )


@pytest.mark.parametrize("limits", [{}, [], {"memory": None, "nanoCPUs": None}, {"other": 1}])
async def test_no_limits_are_no_limits_also_as_php_writes_them(
    client: Client, deployer: FakeDeployer, limits: object
) -> None:
    deployer.result = CreatedContainer("abc", "x")
    assert (await post(client, "create", {**CREATE, "resource_limits": limits}))[0] == 201
    plan = deployer.asked[0][1]
    assert isinstance(plan, CreatePlan)
    assert plan.limits == ResourceLimits()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"image_id": ""}, "image_id"),
        ({"network_mode": "container:x"}, "network_mode"),
        ({"network_mode": None}, "network_mode"),
        ({"environment_variables": None}, "environment_variables"),
        ({"environment_variables": [1]}, "environment_variables"),
        ({"restart_policy": "sometimes"}, "restart_policy"),
        ({"compute_device": "tpu"}, "compute_device"),
        ({"mount_points": [{"source": "/a"}]}, "mount_points[0].target"),
        ({"mount_points": [{"source": "a", "target": "/b"}]}, "mount_points[0].source"),
        ({"mount_points": [{"source": "/a", "target": "/../b"}]}, "mount_points[0].target"),
        ({"mount_points": [{"source": "/a", "target": "/b", "mode": "rw,z"}]}, "mount_points[0].mode"),
        ({"resource_limits": {"memory": -1}}, "resource_limits.memory"),
        ({"resource_limits": {"nanoCPUs": "many"}}, "resource_limits.nanoCPUs"),
        ({"resource_limits": [1]}, "resource_limits"),
    ],
)
async def test_a_create_that_cannot_be_is_400_and_names_the_field_without_its_value(
    client: Client, deployer: FakeDeployer, change: dict[str, object], field: str
) -> None:
    status, text = await post(client, "create", {**CREATE, **change})
    assert (status, text.partition(f"Payload validation error: {field}")[1] != "") == (400, True), text
    assert "sometimes" not in text
    assert deployer.ports == []


async def test_a_bind_mount_that_is_not_allowed_is_400_in_words_before_any_engine_is_asked(
    client: Client, deployer: FakeDeployer
) -> None:
    body = {**CREATE, "mount_points": [{"source": "/var/run/docker.sock", "target": "/sock", "mode": "ro"}]}
    status, text = await post(client, "create", body)
    assert (status, deployer.ports) == (400, [])
    rule = "HP_EXAPP_BIND_MOUNTS_DENIED (/var/run/docker.sock)"
    assert text == f"{rule} denies the bind mount /var/run/docker.sock:/sock:ro"


async def test_with_derived_keys_a_container_gets_its_own(deployer: FakeDeployer) -> None:
    deployer.result = CreatedContainer("abc", "x")
    environment = [f"HP_SHARED_KEY={KEY}", "APP_ID=app"]
    for keys, expected in (("shared", KEY), ("derived", own_key(KEY, "app"))):
        async with TestClient(TestServer(application(deployer, HP_EXAPP_KEYS=keys))) as client:
            await post(client, "create", {**CREATE, "environment_variables": environment})
        plan = deployer.asked[-1][1]
        assert isinstance(plan, CreatePlan)
        assert plan.environment == (f"HP_SHARED_KEY={expected}", "APP_ID=app")


@pytest.mark.parametrize(
    ("verb", "text"), [("start", "Container already started"), ("stop", "Container already stopped")]
)
async def test_start_and_stop_are_204_or_200_when_there_was_nothing_to_do(
    client: Client, deployer: FakeDeployer, verb: str, text: str
) -> None:
    deployer.result = True
    assert await post(client, verb, {"name": "app"}) == (204, "")
    deployer.result = False
    assert await post(client, verb, {"name": "app"}) == (200, text)
    assert deployer.asked == [(verb, APP)] * 2


@pytest.mark.parametrize(
    ("outcome", "json"),
    [
        (StartOutcome(True, "running", None), '{"started":true,"status":"running","health":null}'),
        (
            StartOutcome(False, "exited", None, "non-recoverable state: exited", 1, False, ["boom"]),
            '{"started":false,"status":"exited","health":null,"reason":"non-recoverable state: exited",'
            '"exit_code":1,"oom_killed":false,"logs":["boom"]}',
        ),
    ],
)
async def test_wait_for_start_is_200_whatever_became_of_it(
    client: Client, deployer: FakeDeployer, outcome: StartOutcome, json: str
) -> None:
    deployer.result = outcome
    assert await post(client, "wait_for_start", {"name": "app"}) == (200, json)


async def test_remove_keeps_the_data_unless_told(client: Client, deployer: FakeDeployer) -> None:
    assert await post(client, "remove", {"name": "app"}) == (204, "")
    assert await post(client, "remove", {"name": "app", "remove_data": True}) == (204, "")
    assert await post(client, "remove", {"name": "app", "remove_data": "true"}) == (204, "")
    assert [asked[2] for asked in deployer.asked] == [False, True, True]


async def test_image_remove_is_200_whatever_became_of_it(client: Client, deployer: FakeDeployer) -> None:
    deployer.result = DeletedImage(False, reason="in_use")
    assert await post(client, "image_remove", {"image_ref": "a:1"}) == (200, '{"deleted":false,"reason":"in_use"}')
    deployer.result = DeletedImage(True, 7)
    assert await post(client, "image_remove", {"image_ref": "a:1"}) == (200, '{"deleted":true,"bytes_freed":7}')
    status, text = await post(client, "image_remove", {"image_ref": ""})
    assert (status, text) == (400, "Payload validation error: image_ref: must be the name of an image")


@pytest.mark.parametrize(
    ("body", "bundle", "tunnel"),
    [
        ({}, "", True),
        ({"system_certs_bundle": None, "install_frp_certs": False}, "", False),
        ({"system_certs_bundle": "PEM"}, "PEM", True),
    ],
)
async def test_install_certificates_is_204(
    client: Client, deployer: FakeDeployer, body: dict[str, object], bundle: str, tunnel: bool
) -> None:
    assert await post(client, "install_certificates", {"name": "app", **body}) == (204, "")
    assert deployer.asked == [("install_certificates", APP, bundle, tunnel)]


async def test_a_bundle_of_ten_megabytes_is_taken(client: Client, deployer: FakeDeployer) -> None:
    body = BytesIO(b'{"name": "app", "system_certs_bundle": "%b"}' % (b"x" * (10 << 20)))
    headers = {"docker-engine-port": "24000"}
    assert (await client.post("/docker/exapp/install_certificates", data=body, headers=headers)).status == 204


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (EngineMissing(404, "No such container: nc_app_app", "GET /x"), 404),
        (EngineConflict(409, "the name is in use", "POST /x"), 409),
        (ForeignOwner("container nc_app_app belongs to another Nextcloud"), 409),
        (EngineRefused(500, "the disk is full", "POST /x"), 503),
        (EngineRefused(400, "client version 1.99 is too new", "POST /x"), 503),
        (EngineUnreachable("no tunnel is connected for port 24001"), 503),
        (EngineTimeout("no answer within 30 s"), 504),
    ],
)
@pytest.mark.parametrize("verb", VERBS)
async def test_what_an_engine_says_is_what_the_admin_reads(
    client: Client, deployer: FakeDeployer, verb: str, error: EngineError, status: int
) -> None:
    deployer.error = error
    answer = await post(client, verb, {**CREATE, "image_ref": "a:1"})
    assert answer == (status, str(error))


@pytest.mark.parametrize(
    "reference",
    [
        "../containers/x",
        "x/../../volumes/v",
        "..",
        "/x",
        "x/",
        "x//y",
        "x:",
        "x@",
        "docker-archive:/x",
        "oci:/x",
        "x y",
    ],
)
async def test_what_is_not_the_name_of_an_image_is_400_and_reaches_no_engine(
    client: Client, deployer: FakeDeployer, reference: str
) -> None:
    for verb, body in (("image_remove", {"image_ref": reference}), ("create", {"name": "app", "image_id": reference})):
        status, text = await post(client, verb, body)
        assert (status, "must be the name of an image" in text) == (400, True)
    assert deployer.asked == []


def mounting(source: str) -> dict[str, object]:
    return {"name": "app", "image_id": "image:1", "mount_points": [{"source": source, "target": "/d"}]}


@pytest.mark.parametrize(
    ("links", "reason"),
    [
        ({"/d/link": "/"}, "HP_EXAPP_BIND_MOUNTS_ALLOWED has no entry for the bind mount /:/d:rw"),
        ({"/d/link": "/d/other", "/d/other": "/etc"}, "no entry for the bind mount /etc:/d:rw"),
        ({"/d/link": "/d/link"}, "a chain of more than 8 links"),
    ],
)
async def test_a_link_below_an_allowed_directory_is_followed_and_refused(
    deployer: FakeDeployer, links: dict[str, str], reason: str
) -> None:
    deployer.links = links
    async with TestClient(TestServer(application(deployer, HP_EXAPP_BIND_MOUNTS_ALLOWED="/d"))) as client:
        status, text = await post(client, "create", mounting("/d/link"))
    assert status == 400
    assert text.startswith("/d/link ")
    assert reason in text
    assert deployer.asked == []


@pytest.mark.parametrize(
    ("allowed", "source", "looked"),
    [
        ("/d", "/d/a/b", [("image:1", "/d", "/d/a/b")]),
        ("/d", "/d", []),
        ("/", "/d/a", [("image:1", "/d", "/d/a")]),
        ("", "/srv/a", [("image:1", "/srv", "/srv/a")]),
        ("", "/srv", []),
    ],
)
async def test_links_are_looked_for_below_what_the_admin_has_chosen(
    deployer: FakeDeployer, allowed: str, source: str, looked: list[tuple[str, str, str]]
) -> None:
    deployer.result = CreatedContainer("id", "name")
    async with TestClient(
        TestServer(application(deployer, **({"HP_EXAPP_BIND_MOUNTS_ALLOWED": allowed} if allowed else {})))
    ) as client:
        status, _ = await post(client, "create", mounting(source))
    assert (status, deployer.looked) == (201, looked)


async def test_a_link_to_an_allowed_place_is_mounted_as_it_was_asked_for(deployer: FakeDeployer) -> None:
    deployer.links = {"/d/link": "/d/there"}
    deployer.result = CreatedContainer("id", "name")
    async with TestClient(TestServer(application(deployer, HP_EXAPP_BIND_MOUNTS_ALLOWED="/d"))) as client:
        assert (await post(client, "create", mounting("/d/link")))[0] == 201
    plan = deployer.asked[0][1]
    assert isinstance(plan, CreatePlan)
    assert plan.mounts == (Mount("/d/link", "/d", "rw"),)
