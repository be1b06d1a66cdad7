"""Several Nextclouds in one HaRP: each is served as if it were alone."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from harp.policy.keys import own_key
from tests.fakes.waiting import until
from tests.tenants_world import HOSTS, KEYS, NAMES, TwoClouds, two_clouds

pytestmark = pytest.mark.hasty

RED, BLUE = NAMES
RECORD = {"exapp_token": "t", "exapp_version": "1", "host": "127.0.0.1", "routes": [{"url": ".*", "access_level": 0}]}


def who(answer: tuple[int, str]) -> tuple[str, str]:
    """Whose ExApp has answered, and for whom: its token says whose it is, too."""
    status, text = answer
    assert status == 200, answer
    instance, authorization, _ = text.split(" ")
    user, _, token = b64decode(authorization).decode().partition(":")
    assert token == f"token of {instance}"
    return instance, user


async def test_a_request_goes_to_the_nextcloud_of_its_host(tmp_path: Path) -> None:
    async with two_clouds(tmp_path) as world:
        for name in NAMES:
            assert who(await world.get(HOSTS[name])) == (name, "")
            assert who(await world.get(f"{HOSTS[name].upper()}:8443")) == (name, "")


async def test_requests_of_one_connection_may_be_for_different_nextclouds(tmp_path: Path) -> None:
    async with two_clouds(tmp_path) as world:
        await world.get(HOSTS[RED])
        await world.get(HOSTS[BLUE])
        reader, writer = await asyncio.open_connection("127.0.0.1", world.harp.http_ports[0])
        order = [RED, BLUE, BLUE, RED, RED, BLUE] * 20
        for name in order:  # all at once, and each whole: what is known of one must not be used for the next
            writer.write(f"GET /exapps/hello/public HTTP/1.1\r\nHost: {HOSTS[name]}\r\n\r\n".encode())
        for name in order:
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            (length,) = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
            body = await reader.readexactly(int(length.partition(b":")[2]))
            assert body.startswith(name.encode())
        writer.close()


async def test_a_control_call_goes_to_the_nextcloud_of_its_key(tmp_path: Path) -> None:
    async with two_clouds(tmp_path) as world:
        port = world.apps[RED].port
        url = f"http://127.0.0.1:{world.harp.http_ports[0]}/exapps/app_api/exapp_storage/pushed"
        body = json.dumps({**RECORD, "port": port})
        async with world.client.post(url, data=body, headers={"harp-shared-key": KEYS[RED]}) as answer:
            assert answer.status == 204
        red, blue = world.harp.tenants
        assert red.instance.records.get("pushed") is not None
        assert blue.instance.records.get("pushed") is None
        assert (await world.get(HOSTS[BLUE], "/exapps/pushed/public"))[0] == 404
        async with world.client.delete(url, headers={"harp-shared-key": KEYS[BLUE]}) as answer:
            assert answer.status == 404
        assert red.instance.records.get("pushed") is not None


async def test_a_session_is_one_in_its_own_nextcloud_alone(tmp_path: Path) -> None:
    async with two_clouds(tmp_path) as world:
        cookies = {name: world.clouds[name].log_in("user") for name in NAMES}
        for name, other in ((RED, BLUE), (BLUE, RED), (RED, BLUE)):
            assert who(await world.get(HOSTS[name], "/exapps/hello/user", Cookie=cookies[name])) == (name, "user")
            assert (await world.get(HOSTS[name], "/exapps/hello/user", Cookie=cookies[other]))[0] == 403


async def test_a_ban_of_one_does_not_hold_in_the_other(tmp_path: Path) -> None:
    async with two_clouds(tmp_path, HP_BLACKLIST_COUNT="2") as world:
        for _ in range(2):
            assert (await world.get(HOSTS[RED], "/exapps/app_api/info", harp_shared_key="wrong"))[0] == 401
        assert (await world.get(HOSTS[RED], "/exapps/hello/login"))[0] == 429
        assert (await world.get(HOSTS[RED]))[0] == 429
        assert who(await world.get(HOSTS[BLUE])) == (BLUE, "")
        assert (await world.get("harp", "/exapps/app_api/heartbeat", harp_shared_key=KEYS[RED]))[0] == 200
        assert [(ban.instance, ban.address) for ban in world.harp.facts.bans()] == [(RED, "127.0.0.1")]


async def test_wrong_keys_at_no_nextclouds_host_are_banned_and_nobody_else_is(tmp_path: Path) -> None:
    async with two_clouds(tmp_path, HP_BLACKLIST_COUNT="2") as world:
        statuses = [(await world.get("harp", "/exapps/app_api/info", harp_shared_key="wrong"))[0] for _ in range(4)]
        assert statuses == [401, 401, 429, 429]
        for name in NAMES:
            assert who(await world.get(HOSTS[name])) == (name, "")
        assert (await world.get("harp", "/exapps/app_api/heartbeat", harp_shared_key=KEYS[RED]))[0] == 200
        assert [ban.instance for ban in world.harp.facts.bans()] == [""]
        assert world.harp.facts.lift("127.0.0.1")
        assert (await world.get("harp", "/exapps/app_api/info", harp_shared_key="wrong"))[0] == 401


async def test_what_is_for_no_nextcloud_is_told_so(tmp_path: Path) -> None:
    async with two_clouds(tmp_path) as world:
        status, text = await world.get("unknown.example")
        assert status == 421
        assert "no Nextcloud here has the host unknown.example" in text
        status, text = await world.get(HOSTS[BLUE], "/exapps/app_api/info", harp_shared_key=KEYS[RED])
        assert status == 421
        assert "the shared key is that of red, the host that of blue" in text
        status, text = await world.get("harp", "/exapps/app_api/info", harp_shared_key="wrong")
        assert (status, "is that of no Nextcloud here" in text) == (401, True)
        assert not world.harp.facts.bans()


@pytest.mark.parametrize(("trusted", "seen"), [("127.0.0.1", BLUE), ("192.0.2.1", RED)])
async def test_a_forwarded_host_counts_from_the_nextclouds_own_proxy_alone(
    tmp_path: Path, trusted: str, seen: str
) -> None:
    entries = {RED: 'trusted_proxies = ["127.0.0.1"]', BLUE: f'trusted_proxies = ["{trusted}"]'}
    async with two_clouds(tmp_path, **entries) as world:
        assert who(await world.get(HOSTS[RED], x_forwarded_host=HOSTS[BLUE]))[0] == seen


async def test_the_key_of_one_reaches_no_engine_of_the_other(tmp_path: Path) -> None:
    async with two_clouds(tmp_path, **{RED: 'engines = "24001"', BLUE: 'engines = "24002"'}) as world:
        path = "/exapps/app_api/v1.44/_ping"
        asked = {"harp_shared_key": KEYS[RED], "docker_engine_port": "24002"}
        status, text = await world.get("harp", path, **asked)
        assert status in (400, 403, 404), text
        assert world.harp.tenants.find(BLUE) is not None
        assert [line.instance for line in world.harp.facts.engines()] == [RED, BLUE]


async def connections(world: TwoClouds, name: str, count: int) -> list[int]:
    """The statuses of requests on new connections, all open at once."""
    opened = [await asyncio.open_connection("127.0.0.1", world.harp.http_ports[0]) for _ in range(count)]
    for _, writer in opened:
        writer.write(f"GET /exapps/hello/public HTTP/1.1\r\nHost: {HOSTS[name]}\r\n\r\n".encode())
    statuses = [int((await reader.readline()).split()[1]) for reader, _ in opened]
    for _, writer in opened:
        writer.close()
    return statuses


def load(world: TwoClouds, name: str) -> tuple[int, int]:
    """Requests under way, and those that wait."""
    (line,) = [line for line in world.harp.facts.snapshot().instances if line.instance == name]
    return line.running, line.waiting


async def test_beyond_its_connections_one_is_refused_and_the_other_served(tmp_path: Path) -> None:
    async with two_clouds(tmp_path, red="limits = { connections = 3 }") as world:
        statuses = await connections(world, RED, 5)
        assert sorted(statuses) == [200, 200, 200, 503, 503]
        assert await connections(world, BLUE, 5) == [200] * 5
        await until(lambda: [line.connections for line in world.harp.facts.snapshot().instances] == [0, 0])
        assert await connections(world, RED, 3) == [200] * 3  # those that have ended are counted no more


async def test_beyond_its_requests_one_waits_and_the_other_is_served(tmp_path: Path) -> None:
    async with two_clouds(tmp_path, red="limits = { requests = 2 }") as world:
        await world.get(HOSTS[RED])
        world.apps[RED].hold.clear()
        world.apps[RED].most_running = 0
        waiting = [asyncio.create_task(world.get(HOSTS[RED])) for _ in range(6)]
        await until(lambda: load(world, RED) == (2, 4))
        assert who(await world.get(HOSTS[BLUE]))[0] == BLUE
        world.apps[RED].hold.set()
        assert [who(answer)[0] for answer in await asyncio.gather(*waiting)] == [RED] * 6
        assert world.apps[RED].most_running == 2
        await until(lambda: load(world, RED) == (0, 0))


async def test_who_leaves_the_line_takes_nobodys_place(tmp_path: Path) -> None:
    async with two_clouds(tmp_path, red="limits = { requests = 1 }") as world:
        await world.get(HOSTS[RED])
        world.apps[RED].hold.clear()
        asked = [asyncio.create_task(world.get(HOSTS[RED])) for _ in range(4)]
        await until(lambda: load(world, RED) == (1, 3))
        for task in asked[1:3]:
            task.cancel()
        await asyncio.gather(*asked[1:3], return_exceptions=True)
        world.apps[RED].hold.set()
        assert [who(await asked[place])[0] for place in (0, 3)] == [RED, RED]
        await until(lambda: load(world, RED) == (0, 0))


async def test_metrics_name_the_instance(tmp_path: Path) -> None:
    async with two_clouds(tmp_path) as world:
        await world.get(HOSTS[RED])
        await world.get("unknown.example")
        page = (await world.harp.facts.metrics()).body.decode()
        families = {family.name: family for family in text_string_to_metric_families(page)}
        requests = {tuple(sorted(one.labels.items())): one.value for one in families["harp_requests"].samples}
        assert requests[("app", "hello"), ("instance", RED), ("status", "2xx")] == 1
        assert requests[("app", ""), ("instance", ""), ("status", "4xx")] == 1
        up = [(one.labels["instance"], one.value) for one in families["harp_nextcloud_up"].samples]
        assert up == [(RED, 1), (BLUE, 1)]


async def test_lists_are_of_all_or_of_one(tmp_path: Path) -> None:
    async with two_clouds(tmp_path) as world:
        for name in NAMES:
            await world.get(HOSTS[name])
        url = f"http://127.0.0.1:{world.harp.admin_ports[0]}/api/v1/apps"
        for query, names in (("", [RED, BLUE]), ("?instance=blue", [BLUE]), ("?instance=nobody", [])):
            async with world.client.get(url + query) as answer:
                assert [line["instance"] for line in (await answer.json())["apps"]] == names


async def test_without_a_password_nobody_comes_to_the_status_page_from_elsewhere(tmp_path: Path) -> None:
    async with two_clouds(tmp_path) as world:
        url = f"http://127.0.0.1:{world.harp.admin_ports[0]}/api/v1/apps"
        for key in ("", KEYS[RED]):
            lines = {"Authorization": f"Bearer {key}", "X-Forwarded-For": "192.0.2.1"}
            async with world.client.get(url, headers=lines) as answer:
                assert answer.status == 401


# The file changes while HaRP runs


async def reload(world: TwoClouds, *names: str) -> None:
    world.write(*names)
    await world.harp.tenants.reload(world.settings(), world.harp.tunnel)


async def test_what_is_the_same_goes_on_while_others_come_and_go(tmp_path: Path) -> None:
    async with two_clouds(tmp_path) as world:
        cookie = world.clouds[RED].log_in("user")
        assert who(await world.get(HOSTS[RED], "/exapps/hello/user", Cookie=cookie)) == (RED, "user")
        red = world.harp.tenants.find(RED)
        world.apps[RED].hold.clear()
        running = asyncio.create_task(world.get(HOSTS[RED]))
        await until(lambda: world.apps[RED].running == 1)
        await reload(world, RED)
        assert (await world.get(HOSTS[BLUE]))[0] == 421
        await reload(world, RED, BLUE)
        assert who(await world.get(HOSTS[BLUE]))[0] == BLUE
        world.apps[RED].hold.set()
        assert who(await running)[0] == RED
        assert world.harp.tenants.find(RED) is red


async def test_requests_of_one_that_is_removed_end(tmp_path: Path) -> None:
    async with two_clouds(tmp_path) as world:
        await world.get(HOSTS[BLUE])
        world.apps[BLUE].hold.clear()
        running = asyncio.create_task(world.get(HOSTS[BLUE]))
        await until(lambda: world.apps[BLUE].running == 1)
        await reload(world, RED)
        assert (await running)[0] == 421  # the client has asked again when its connection ended
        world.apps[BLUE].hold.set()
        assert who(await world.get(HOSTS[RED]))[0] == RED


async def test_hosts_limits_and_proxies_change_in_place_and_a_key_starts_it_again(tmp_path: Path) -> None:
    async with two_clouds(tmp_path) as world:
        red, blue = world.harp.tenants
        world.extra[RED] = "limits = { connections = 1 }"
        world.extra[BLUE] = 'docker_host = "tcp://127.0.0.1:9"'
        await reload(world, RED, BLUE)
        assert world.harp.tenants.find(RED) is red
        assert world.harp.tenants.find(BLUE) is not blue
        statuses = await connections(world, RED, 2)
        assert sorted(statuses) == [200, 503]
        assert who(await world.get(HOSTS[BLUE]))[0] == BLUE


async def test_the_doctor_examines_all_or_one(tmp_path: Path) -> None:
    async with two_clouds(tmp_path) as world:
        await world.clouds[BLUE].stop()
        url = f"http://127.0.0.1:{world.harp.admin_ports[0]}/api/v1/doctor"
        async with world.client.get(url) as answer:
            checks = {one["check"]: one["state"] for one in (await answer.json())["findings"]}
        assert checks["blue:nextcloud"] == "failed"
        assert "red:nextcloud" in checks
        async with world.client.get(f"{url}?instance=red") as answer:
            checks = {one["check"]: one["state"] for one in (await answer.json())["findings"]}
        assert "nextcloud" in checks
        async with world.client.get(f"{url}?instance=green") as answer:
            assert answer.status == 404


async def test_an_own_key_of_an_exapp_opens_a_tunnel_of_its_nextcloud_alone(tmp_path: Path) -> None:
    async with two_clouds(tmp_path) as world:
        red, blue = world.harp.tenants
        admit = world.harp.tenants.admit_tunnel
        assert admit("192.0.2.1", own_key(KEYS[RED], "hello")) is red.tunnels
        assert admit("192.0.2.1", own_key(KEYS[BLUE], "hello")) is blue.tunnels
        assert admit("192.0.2.1", KEYS[BLUE]) is blue.tunnels
        assert isinstance(admit("192.0.2.1", own_key("another key", "hello")), str)


async def test_the_status_page_tells_the_nextclouds_apart(tmp_path: Path) -> None:
    async with two_clouds(tmp_path, HP_BLACKLIST_COUNT="1") as world:
        for name in NAMES:
            await world.get(HOSTS[name])
        await world.get(HOSTS[RED], "/exapps/app_api/info", harp_shared_key="wrong")

        async def page(path: str) -> str:
            async with world.client.get(f"http://127.0.0.1:{world.harp.admin_ports[0]}{path}") as answer:
                assert answer.status == 200, path
                return await answer.text()

        overview = await page("/")
        for name in NAMES:
            assert HOSTS[name] in overview
            assert f'href="/apps/{name}%2Fhello"' in overview
            assert world.clouds[name].url in overview
        assert f":{world.apps[BLUE].port}" in await page("/apps/blue%2Fhello")
        assert f":{world.apps[RED].port}" not in await page("/apps/blue%2Fhello")
        assert 'name="instance" value="red"' in await page("/bans")
