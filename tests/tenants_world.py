"""Two Nextclouds behind one HaRP in this process: the same app ids, the same ports, the same users."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from aiohttp import ClientSession, web

from harp.app import Harp
from harp.policy.exapp import ExApp, Level, Route
from harp.settings import Settings, load
from harp.testing.nextcloud import NextcloudStandIn
from harp.testing.serving import Served
from tests.fakes.waiting import until

NAMES = ("red", "blue")
KEYS = {name: f"{name}-key-of-the-tests-0123456789" for name in NAMES}
HOSTS = {name: f"{name}.example.com" for name in NAMES}
SMALL = {
    "HP_EXAPPS_ADDRESS": "127.0.0.1:0",
    "HP_FRP_ADDRESS": "127.0.0.1:0",
    "HP_ADMIN_ADDRESS": "127.0.0.1:0",
    "HP_FRP_DISABLE_TLS": "true",
    "HP_MAX_CONNECTIONS": "64",
}
ROUTES = (
    Route("^/public", Level.PUBLIC),
    Route("^/user", Level.USER),
    Route("^/login", Level.PUBLIC, frozenset({401})),
)


class NamedApp(Served):
    """An ExApp that says whose it is, and who it believes is calling."""

    def __init__(self, instance: str, port: int = 0, socket: Path | None = None) -> None:
        super().__init__(port=port, socket=socket)
        self.instance = instance
        self.running = 0
        self.most_running = 0
        self.hold = asyncio.Event()
        self.hold.set()

    def record(self, app_id: str = "hello", host: str = "127.0.0.1", port: int = 0) -> ExApp:
        return ExApp(app_id, f"token of {self.instance}", "1.0", host, port or self.port, ROUTES)

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_route("*", "/{rest:.*}", self._answer)
        return application

    async def _answer(self, request: web.Request) -> web.Response:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await self.hold.wait()
        self.running -= 1
        status = 401 if request.path == "/login" else 200
        authorization = request.headers.get("authorization-app-api", "")
        return web.Response(text=f"{self.instance} {authorization} {request.path_qs}", status=status)


class TwoClouds:
    """The HaRP, and what stands behind it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "instances.toml"
        self.apps = {name: NamedApp(name) for name in NAMES}
        self.clouds = {name: NextcloudStandIn(KEYS[name]) for name in NAMES}
        self.extra: dict[str, str] = dict.fromkeys(NAMES, "")
        self.harp: Harp
        self.client: ClientSession

    def entry(self, name: str) -> str:
        key = self.directory / f"{name}.key"
        key.write_text(KEYS[name])
        url = self.clouds[name].url
        return (
            f'[[instance]]\nname = "{name}"\nurl = "{url}"\nkey_file = "{key}"\n'
            f'hosts = ["{HOSTS[name]}"]\n{self.extra[name]}\n'
        )

    def write(self, *names: str) -> None:
        self.file.write_text("".join(self.entry(name) for name in names))

    def settings(self, **env: str) -> Settings:
        given = {**SMALL, "HP_CERTS_DIR": str(self.directory / "certs"), "HP_INSTANCES_FILE": str(self.file), **env}
        return load(given)

    async def get(self, host: str, path: str = "/exapps/hello/public", **headers: str) -> tuple[int, str]:
        lines = {"Host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
        async with self.client.get(f"http://127.0.0.1:{self.harp.http_ports[0]}{path}", headers=lines) as answer:
            return answer.status, await answer.text()


@asynccontextmanager
async def two_clouds(directory: Path, **env: str) -> AsyncIterator[TwoClouds]:
    world = TwoClouds(directory)
    world.extra |= {name: env.pop(name) for name in NAMES if name in env}
    async with AsyncExitStack() as stack:
        for name in NAMES:
            await stack.enter_async_context(world.clouds[name])
            await stack.enter_async_context(world.apps[name])
            world.clouds[name].register(world.apps[name].record())
        world.write(*NAMES)
        world.harp = Harp(world.settings(**env))
        await world.harp.start()
        stack.push_async_callback(world.harp.stop, drain=0)
        world.client = await stack.enter_async_context(ClientSession())
        await until(lambda: all(tenant.instance.reachable for tenant in world.harp.tenants))
        yield world
