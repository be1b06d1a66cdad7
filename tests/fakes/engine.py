"""A Docker engine in memory, over real HTTP: containers, volumes, images and files, in the engine's own statuses.

It knows API 1.24 to 1.41 unless told otherwise and answers other versions as Docker does. `calls` has every request;
`errors` are answered instead, by method and path without version.
"""

from __future__ import annotations

import asyncio
import io
import json
import posixpath
import tarfile
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from aiohttp.test_utils import TestServer
from msgspec.structs import replace

from harp.errors import Unreachable
from harp.net.ports import ProtocolFactory
from harp.net.race import Connected
from harp.net.targets import Target
from harp.policy.ca_stores import File

SYMLINK = 1 << 27  # os.ModeSymlink of Go


@dataclass
class FakeContainer:
    """One container. `states` are what the next looks at it see, the last one for good."""

    body: dict[str, Any]
    states: list[dict[str, Any]] = field(default_factory=lambda: [{"Status": "created", "Running": False}])
    restarts: int = 0
    log: bytes = b""
    files: dict[str, File] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        return bool(self.states[0].get("Running"))


@dataclass
class Call:
    """A request as it arrived."""

    method: str
    path: str  # without version
    version: str  # "1.41", "" = none
    query: dict[str, str]
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class FakeEngine:
    """The engine; `address` once it serves."""

    def __init__(self, low: str = "1.24", high: str = "1.41", *, podman: bool = False) -> None:
        self.low, self.high, self.podman = low, high, podman
        self.containers: dict[str, FakeContainer] = {}
        self.volumes: dict[str, dict[str, str] | None] = {}
        self.images: dict[str, int] = {"image:1": 1000}
        self.host: dict[str, File] = {}  # what bind mounts show
        self.image_in_use = False
        self.undeletable = False  # are containers?
        self.in_use: set[str] = set()  # volumes
        self.errors: dict[tuple[str, str], tuple[int, str]] = {}
        self.silent: set[tuple[str, str]] = set()
        self.bodies: dict[tuple[str, str], bytes] = {}  # answered with 200 instead, byte by byte as they are
        self.calls: list[Call] = []

    def called(self, method: str, path: str) -> list[Call]:
        return [call for call in self.calls if (call.method, call.path) == (method, path)]

    def add(self, name: str, owner: str | None, **state: Any) -> FakeContainer:
        """A container that is there already."""
        labels = {} if owner is None else {"com.nextcloud.harp.instance": owner}
        container = self.containers[name] = FakeContainer({"Image": "image:1", "Labels": labels})
        if state:
            container.states = [state]
        return container

    async def answer(self, request: web.Request) -> web.StreamResponse:
        version, path = "", request.raw_path.partition("?")[0]
        if path.startswith("/v1."):
            version, _, path = path[2:].partition("/")
            path = "/" + path
        call = Call(request.method, path, version, dict(request.query), request.headers, await request.read())
        self.calls.append(call)
        if (call.method, path) in self.silent:
            await asyncio.sleep(3600)
        if version and not _number(self.low or "0.0") <= _number(version) <= _number(self.high):
            return _error(400, f"client version {version} is not in {self.low} to {self.high}")
        if (call.method, path) in self.errors:
            return _error(*self.errors[call.method, path])
        if (call.method, path) in self.bodies:
            return web.Response(body=self.bodies[call.method, path], content_type="application/json")
        return self._answer(call)

    def _answer(self, call: Call) -> web.Response:
        parts = call.path.strip("/").split("/")
        if parts == ["_ping"]:
            return web.Response(text="OK", headers={"Api-Version": self.high, "Server": "Docker/20.10"})
        if parts == ["version"]:
            components = [{"Name": "Podman Engine" if self.podman else "Engine"}]
            said = {"Version": "20.10", "ApiVersion": self.high, "MinAPIVersion": self.low, "Components": components}
            return web.json_response(said)
        if parts[0] == "volumes":
            return self._volume(call, parts[1])
        if parts[0] == "images":
            return self._image(call, "/".join(parts[1:]).removesuffix("/json"))
        if parts[:2] == ["containers", "create"]:
            return self._create(call)
        if parts[:2] == ["containers", "json"]:
            label = json.loads(call.query["filters"])["label"][0]
            key, _, owner = label.partition("=")
            named = [name for name, one in self.containers.items() if (one.body["Labels"] or {}).get(key) == owner]
            return web.json_response([{"Id": name} for name in named])
        if parts[:2] == ["v4.0.0", "libpod"]:
            return web.json_response({"Id": "made"}, status=201)
        name = parts[1].removeprefix("id-of-")
        container = self.containers.get(name)
        if container is None:
            return _error(404, f"No such container: {parts[1]}")
        return self._container(call, container, name, parts[2] if len(parts) > 2 else "")

    def _volume(self, call: Call, name: str) -> web.Response:
        if name == "create":
            wanted = json.loads(call.body)
            labels = self.volumes.setdefault(wanted["Name"], wanted.get("Labels"))
            return web.json_response({"Name": wanted["Name"], "Labels": labels}, status=201)
        if name not in self.volumes:
            return _error(404, f"get {name}: no such volume")
        if call.method == "DELETE":
            if name in self.in_use:
                return _error(409, f"remove {name}: volume is in use")
            del self.volumes[name]
            return web.Response(status=204)
        return web.json_response({"Name": name, "Labels": self.volumes[name]})

    def _image(self, call: Call, name: str) -> web.Response:
        reference = unquote(name)
        if reference not in self.images:
            return _error(404, f"No such image: {reference}")
        if call.method == "DELETE":
            if self.image_in_use:
                return _error(409, f"conflict: unable to remove {reference}, a container uses it")
            del self.images[reference]
            return web.json_response([{"Untagged": reference}, {"Deleted": "sha256:0"}])
        return web.json_response({"Id": "sha256:0", "Size": self.images[reference]})

    def _create(self, call: Call) -> web.Response:
        name, body = call.query["name"], json.loads(call.body)
        if name in self.containers:
            return _error(409, f'Conflict. The container name "/{name}" is already in use')
        if body["Image"] not in self.images:
            return _error(404, f"No such image: {body['Image']}")
        container = self.containers[name] = FakeContainer(body)
        for mount in body.get("HostConfig", {}).get("Mounts") or ():
            source, target = mount.get("Source", ""), mount["Target"]
            for path, file in self.host.items() if mount["Type"] == "bind" else ():
                if path.startswith(f"{source}/"):
                    seen = target + path.removeprefix(source)
                    container.files[seen] = replace(file, path=seen)
        return web.json_response({"Id": f"id-of-{name}", "Warnings": []}, status=201)

    def _container(self, call: Call, container: FakeContainer, name: str, verb: str) -> web.Response:
        if call.method == "DELETE" and self.undeletable:
            return _error(409, "removal of container is in progress")
        if call.method == "DELETE":
            del self.containers[name]
            return web.Response(status=204)
        if verb == "json":
            state = container.states.pop(0) if len(container.states) > 1 else container.states[0]
            return web.json_response(
                {
                    "Id": f"id-of-{name}",
                    "Name": f"/{name}",
                    "Image": "sha256:0",
                    "RestartCount": container.restarts,
                    "State": state,
                    "Config": {key: container.body.get(key) for key in ("Image", "Labels", "StopTimeout")},
                }
            )
        if verb in ("start", "stop"):
            if container.running is (verb == "start"):
                return web.Response(status=304)
            container.states = [{"Status": "running" if verb == "start" else "exited", "Running": verb == "start"}]
            return web.Response(status=204)
        if verb == "logs":
            return web.Response(body=container.log)
        return self._archive(call, container, call.query["path"])

    def _archive(self, call: Call, container: FakeContainer, path: str) -> web.Response:
        if call.method == "PUT":
            unpack(call.body, container.files)
            return web.Response()
        parts = [one for place, one in container.files.items() if place == path or place.startswith(f"{path}/")]
        if not parts and path != "/":
            return _error(404, f"Could not find the file {path} in container")
        if call.method == "HEAD":
            mode = SYMLINK if path in container.files and container.files[path].link else 0o755
            stat = b64encode(json.dumps({"name": posixpath.basename(path), "mode": mode}).encode()).decode()
            return web.Response(headers={"X-Docker-Container-Path-Stat": stat})
        return web.Response(body=pack(path, parts), content_type="application/x-tar")


def pack(path: str, files: list[File]) -> bytes:
    """As an engine does: names begin with the last segment of `path`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file in files:
            member = tarfile.TarInfo(posixpath.relpath(file.path, posixpath.dirname(path)))
            member.mode, member.uid, member.gid = file.mode, file.uid, file.gid
            if file.link:
                member.type, member.linkname = tarfile.SYMTYPE, file.link
            member.size = len(file.content)
            tar.addfile(member, io.BytesIO(file.content))
    return buffer.getvalue()


def unpack(data: bytes, files: dict[str, File]) -> None:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            path = "/" + member.name
            if member.isdir():
                files[f"{path}/."] = File(f"{path}/.", mode=member.mode)  # only to be seen as present
            elif member.issym():
                files[path] = File(path, link=member.linkname, mode=member.mode)
            else:
                content = tar.extractfile(member)
                assert content is not None
                files[path] = File(path, content.read(), "", member.mode, member.uid, member.gid)


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)


class EngineDialer:
    """Connects every target to one engine; `away` is raised instead."""

    def __init__(self, host: str, port: int) -> None:
        self._place = (host, port)
        self.away: Unreachable | None = None
        self.targets: list[Target] = []

    async def dial(self, target: Target, factory: ProtocolFactory) -> Connected:
        self.targets.append(target)
        if self.away is not None:
            raise self.away
        return await asyncio.get_running_loop().create_connection(factory, *self._place)


@asynccontextmanager
async def serving(engine: FakeEngine) -> AsyncIterator[EngineDialer]:
    """Serve an engine on loopback."""
    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{path:.*}", engine.answer)
    async with TestServer(app) as server:
        assert server.port is not None
        yield EngineDialer("127.0.0.1", server.port)
