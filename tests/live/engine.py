"""A Docker engine of the tests' own: a real dockerd with its own data, socket and bridge, and images made on the spot.

Nothing is pulled: base images are trees of Debian packages and single static programs, imported into the engine. The
larger ones are kept in `.cache/images`. Containers reach this machine, and only it, at `Engine.gateway`.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.live.peers import do_without, path_of, require
from tests.live.processes import PATIENCE, Process

ENGINE_START = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """What the engine answered."""

    status: int
    body: bytes = field(repr=False)
    seconds: float = 0.0

    def json(self) -> Any:
        return json.loads(self.body)

    def ok(self, *expected: int) -> EngineAnswer:
        """Itself, when the status is one of `expected`."""
        assert self.status in expected, f"{self.status} instead of {expected}: {self.body[:2000]!r}"
        return self


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("engine", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Engine:
    """A running engine, spoken to directly, beside HaRP: to prepare, to look, and to clean up."""

    def __init__(self, path: Path, gateway: str) -> None:
        self.socket = path
        self.gateway = gateway  # this machine, as containers of the default network see it

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content: bytes | io.BufferedReader | None = None,
        timeout: float = 120,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> EngineAnswer:
        """One request: `body` as JSON, or `content` as a tar."""
        target = path if query is None else f"{path}?{urlencode(query, doseq=True)}"
        kind = "application/json" if content is None else "application/x-tar"
        data = (None if body is None else json.dumps(body)) if content is None else content
        began = time.monotonic()
        connection = UnixConnection(self.socket, timeout)
        try:
            connection.request(method, target, data, {"Content-Type": kind, **(headers or {})}, encode_chunked=False)
            answer = connection.getresponse()
            return EngineAnswer(answer.status, answer.read(), time.monotonic() - began)
        finally:
            connection.close()

    # Images

    def has_image(self, reference: str) -> bool:
        return self.call("GET", f"/images/{reference}/json").status == 200

    def import_image(self, reference: str, tree: bytes | io.BufferedReader, *changes: str) -> None:
        """Make an image of a tar; `changes` are lines of a Dockerfile, such as `CMD ["/bin/sh"]`."""
        repo, _, tag = reference.rpartition(":")
        self._stream("/images/create", tree, {"fromSrc": "-", "repo": repo, "tag": tag, "changes": list(changes)})

    def load(self, archive: io.BufferedReader) -> None:
        """Take an image out of an archive as `docker save` writes it."""
        self._stream("/images/load", archive, {"quiet": "true"})

    def build(self, reference: str, context: bytes, arguments: Mapping[str, str] | None = None) -> str:
        """Build a Dockerfile with the engine's own builder, without network. What it printed."""
        query = {"t": reference, "buildargs": json.dumps(dict(arguments or {})), "networkmode": "none", "forcerm": "1"}
        return self._stream("/build", context, query)

    def _stream(self, path: str, content: bytes | io.BufferedReader, query: Mapping[str, object]) -> str:
        """A POST that answers JSON lines; fails with what the engine says when one of them is an error."""
        answer = self.call("POST", path, content=content, timeout=300, query=query).ok(200)
        lines = [json.loads(line) for line in answer.body.splitlines() if line.strip()]
        text = "".join(line.get("stream", "") for line in lines)
        errors = [line["error"] for line in lines if "error" in line]
        assert not errors, f"{path}: {errors}\n{text}"
        return text

    def push(self, name: str, tag: str, auth: str = "e30=") -> None:
        """Push an image to the registry in its name; `auth` is base64 of JSON, by default of "{}"."""
        lines = self.call("POST", f"/images/{name}/push", query={"tag": tag}, headers={"X-Registry-Auth": auth}).ok(200)
        assert b'"error"' not in lines.body, lines.body

    # Containers

    def create(self, name: str, image: str, **settings: object) -> str:
        """Create a container, its own settings in the engine's words. Its id."""
        body = {"Image": image, **settings}
        return str(self.call("POST", "/containers/create", body, query={"name": name}).ok(201).json()["Id"])

    def run(self, name: str, image: str, **settings: object) -> str:
        """Create and start a container. Its id."""
        identifier = self.create(name, image, **settings)
        self.call("POST", f"/containers/{identifier}/start").ok(204)
        return identifier

    def inspect(self, name: str) -> Any:
        """All that the engine knows of a container."""
        return self.call("GET", f"/containers/{name}/json").ok(200).json()

    def address(self, name: str, network: str = "bridge") -> str:
        """The container's address in a network."""
        return str(self.inspect(name)["NetworkSettings"]["Networks"][network]["IPAddress"])

    def logs(self, name: str) -> str:
        """What the container has printed, both streams."""
        return _without_frames(
            self.call("GET", f"/containers/{name}/logs", query={"stdout": 1, "stderr": 1}).ok(200).body
        )

    def printed(self, name: str, words: str) -> str:
        """The container's log, as soon as it has these words in it."""
        end = time.monotonic() + PATIENCE
        while words not in (text := self.logs(name)):
            assert time.monotonic() < end, f"no {words!r} in the log of {name}:\n{text}"
            time.sleep(0.05)
        return text

    def execute(self, name: str, *argv: str, user: str = "") -> tuple[int, str]:
        """Run a command in a running container: exit code and output."""
        body = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(argv), "User": user}
        identifier = self.call("POST", f"/containers/{name}/exec", body).ok(201).json()["Id"]
        start = {"Detach": False, "Tty": False}
        output = _without_frames(self.call("POST", f"/exec/{identifier}/start", start).ok(200).body)
        return int(self.call("GET", f"/exec/{identifier}/json").ok(200).json()["ExitCode"]), output

    def read(self, name: str, path: str) -> tuple[tarfile.TarInfo, bytes]:
        """A file of a container, running or not: its entry and its content."""
        answer = self.call("GET", f"/containers/{name}/archive", query={"path": path}).ok(200)
        with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
            entry = archive.getmembers()[0]
            file = archive.extractfile(entry) if entry.isfile() else None
            return entry, b"" if file is None else file.read()

    def exists(self, name: str, path: str) -> bool:
        """Is there such a file or directory in the container?"""
        return self.call("HEAD", f"/containers/{name}/archive", query={"path": path}).status == 200

    def stop(self, name: str, grace: int = 5) -> int:
        """Stop a container. Its exit code."""
        self.call("POST", f"/containers/{name}/stop", query={"t": grace}).ok(204, 304)
        return int(self.inspect(name)["State"]["ExitCode"])

    def until_ended(self, name: str) -> int:
        """Wait for the end of a container. Its exit code."""
        return int(self.call("POST", f"/containers/{name}/wait").ok(200).json()["StatusCode"])

    def network(self, name: str) -> str:
        """A user network with names resolved. The address of this machine in it."""
        self.call("POST", "/networks/create", {"Name": name}).ok(201)
        return str(self.call("GET", f"/networks/{name}").ok(200).json()["IPAM"]["Config"][0]["Gateway"])

    def clear(self) -> None:
        """Remove every container, volume and user network. Images stay."""
        for container in self.call("GET", "/containers/json", query={"all": 1}).ok(200).json():
            self.call("DELETE", f"/containers/{container['Id']}", query={"force": 1}).ok(204, 404)
        for volume in self.call("GET", "/volumes").ok(200).json()["Volumes"] or []:
            self.call("DELETE", f"/volumes/{quote(volume['Name'])}").ok(204, 404)
        for network in self.call("GET", "/networks").ok(200).json():
            if network["Name"] not in {"bridge", "host", "none", "podman"}:
                self.call("DELETE", f"/networks/{network['Id']}").ok(204, 404)


class Podman(Engine):
    """A podman, spoken to as a Docker engine. Containers use this machine's network."""

    def __init__(self, path: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
        super().__init__(path, "127.0.0.1")
        self._podman = list(command)
        self._environment = dict(environment)

    def import_image(self, reference: str, tree: bytes | io.BufferedReader, *changes: str) -> None:
        """As Engine's; by its own command, because its API leaves out the tag."""
        options = [option for change in changes for option in ("--change", change)]
        done = subprocess.run(
            [*self._podman, "import", "--quiet", *options, "-", reference],
            input=tree if isinstance(tree, bytes) else tree.read(),
            env=self._environment,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()


def _without_frames(stream: bytes) -> str:
    """The text in Docker's multiplex frames: kind, three zeros, length of four bytes, and so many bytes."""
    text = b""
    while len(stream) >= 8:
        size = int.from_bytes(stream[4:8], "big")
        text += stream[8 : 8 + size]
        stream = stream[8 + size :]
    return text.decode(errors="replace")


@contextmanager
def private_engine() -> Iterator[Engine]:
    """A dockerd that runs inside the block and leaves nothing behind. Skips, or fails in CI, where none can run."""
    require("docker.io", "dockerd", "ip", "umount")
    if os.geteuid() != 0:
        do_without("dockerd needs root")
    directory = Path(tempfile.mkdtemp(prefix="harp-engine-"))
    try:
        (directory / "none.json").write_text("{}")  # in place of the machine's own configuration
        with _bridge() as (bridge, subnet):
            process = Process(_command(directory, bridge, subnet), directory / "log", env=_environment(directory))
            engine = Engine(directory / "sock", f"{subnet}.0.1")
            try:
                _wait(process, engine)
                yield engine
            finally:
                if process.running and _answers(engine):
                    engine.clear()  # its networks are bridges of this machine, which it leaves behind
                process.stop(30)
    finally:
        _unmount(directory)
        shutil.rmtree(directory)


PODMAN = """\
[containers]
default_ulimits = ["nofile={files}:{files}", "nproc={files}:{files}"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{directory}/libpod"
"""


@contextmanager
def private_podman() -> Iterator[Podman]:
    """A podman service that runs inside the block and leaves nothing behind. Skips, or fails in CI, without podman."""
    program = path_of("podman", "podman")
    require("runc", "runc")
    if os.geteuid() != 0:
        do_without("podman needs root here")
    directory = Path(tempfile.mkdtemp(prefix="harp-podman-"))
    # podman wants to raise what it may not raise here; and it takes crun and systemd unless it is told otherwise.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = hard if hard != resource.RLIM_INFINITY else 1 << 20
    (directory / "containers.conf").write_text(PODMAN.format(directory=directory, files=files))
    environment = {**_environment(directory), "CONTAINERS_CONF": str(directory / "containers.conf")}
    places = ["--root", str(directory / "root"), "--runroot", str(directory / "run"), "--storage-driver", "vfs"]
    command = [program, *places]
    socket_path = directory / "sock"
    try:
        with Process(
            [*command, "system", "service", "--time=0", f"unix://{socket_path}"], directory / "log", env=environment
        ) as process:
            engine = Podman(socket_path, command, environment)
            _wait(process, engine)
            try:
                yield engine
            finally:
                engine.clear()
    finally:
        _end_monitors(directory)
        _unmount(directory)
        shutil.rmtree(directory)


def _command(directory: Path, bridge: str, subnet: str) -> list[str]:
    return [
        path_of("docker.io", "dockerd"),
        *("--host", f"unix://{directory / 'sock'}"),
        *("--data-root", str(directory / "data")),
        *("--exec-root", str(directory / "exec")),
        *("--pidfile", str(directory / "pid")),
        *("--bridge", bridge),
        *("--default-address-pool", f"base={subnet}.128.0/17,size=24"),
        # Without the firewall's help containers reach this machine and each other, and nothing else: that is enough.
        *("--iptables=false", "--ip6tables=false", "--ip-masq=false"),
        *("--config-file", str(directory / "none.json")),
        *("--log-level", "warn"),
    ]


def _environment(directory: Path) -> dict[str, str]:
    return {"PATH": f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin", "HOME": str(directory)}


def _end_monitors(directory: Path) -> None:
    """podman keeps the monitor of a command run in a container for five more minutes."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it may end while we look
            if f"{directory}/".encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


def _wait(process: Process, engine: Engine) -> None:
    """Wait until it answers; an engine that cannot run here is like one that is not installed."""
    try:
        process.until(lambda: _answers(engine), "engine", ENGINE_START)
    except AssertionError as error:
        do_without(f"no engine can run here: {error}")


def _answers(engine: Engine) -> bool:
    try:
        return engine.call("GET", "/_ping", timeout=5).status == 200
    except OSError:
        return False


@contextmanager
def _bridge() -> Iterator[tuple[str, str]]:
    """A bridge of our own with the address <subnet>.0.1: its name, and the first two numbers of its network."""
    ip = path_of("iproute2", "ip")
    taken = subprocess.run([ip, "-4", "route"], check=True, capture_output=True, text=True).stdout
    for number in range(100, 250):
        name, subnet = f"harp-test-{number}", f"10.{number}"
        if f"{subnet}." in taken:
            continue
        if subprocess.run([ip, "link", "add", name, "type", "bridge"], check=False, capture_output=True).returncode:
            continue  # another run beside this one has it
        try:
            subprocess.run([ip, "address", "add", f"{subnet}.0.1/24", "dev", name], check=True)
            subprocess.run([ip, "link", "set", name, "up"], check=True)
            yield name, subnet
        finally:
            subprocess.run([ip, "link", "delete", name], check=False)
        return
    pytest.fail("no network is free for a bridge")


def _unmount(directory: Path) -> None:
    """Whatever a killed engine has left mounted."""
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for point in sorted((point for point in points if point.startswith(f"{directory}/")), reverse=True):
        subprocess.run([path_of("mount", "umount"), "--lazy", point], check=False)
