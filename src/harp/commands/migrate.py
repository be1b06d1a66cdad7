"""`harp migrate`: what already runs on this host, and the exact commands to move to this HaRP. It changes nothing."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Iterable, Mapping
from urllib.parse import quote

import msgspec
from msgspec import Struct

from harp.commands.arguments import reads
from harp.commands.migration import EngineContainer, MigrationPlan, MigrationStep, kind_of, plan_for
from harp.commands.tables import table
from harp.engines.docker import DockerEngine
from harp.engines.errors import EngineError
from harp.engines.inventory import EngineInventory
from harp.engines.replies import Reply, parse
from harp.errors import Unreachable
from harp.logs import configure
from harp.net.dial import Dialer
from harp.net.ports import PortTable
from harp.net.resolve import Resolver
from harp.policy.ports import LOCAL_ENGINE_PORT
from harp.settings import Logs, Settings, examine

PATIENCE = 10.0  # seconds for the engine
LARGEST_LIST = 8 << 20  # bytes
MOST = 500  # containers that are looked at


class Summary(Reply, frozen=True):
    """A container in the engine's list."""

    id: str = ""
    names: tuple[str, ...] = ()
    image: str = ""


class PortBinding(Struct, frozen=True):
    host_ip: str = msgspec.field(default="", name="HostIp")
    host_port: str = msgspec.field(default="", name="HostPort")


class RestartPolicy(Reply, frozen=True):
    name: str = ""


class HostConfig(Reply, frozen=True):
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    restart_policy: RestartPolicy = RestartPolicy()
    network_mode: str = ""


class MountPoint(Reply, frozen=True):
    type: str = ""
    name: str = ""
    source: str = ""
    destination: str = ""
    rw: bool = msgspec.field(default=True, name="RW")


class ContainerConfig(Reply, frozen=True):
    env: list[str] | None = None
    labels: dict[str, str] | None = None
    hostname: str = ""
    image: str = ""


class NetworkSettings(Reply, frozen=True):
    networks: dict[str, object] | None = None


class RunState(Reply, frozen=True):
    running: bool = False


class Inspection(Reply, frozen=True):
    """The parts of a container that matter here."""

    id: str = ""
    name: str = ""
    state: RunState = RunState()
    config: ContainerConfig = ContainerConfig()
    host_config: HostConfig = HostConfig()
    mounts: tuple[MountPoint, ...] = ()
    network_settings: NetworkSettings = NetworkSettings()

    def plain(self) -> EngineContainer:
        """As the plan reads it."""
        bindings = self.host_config.port_bindings or {}
        ports = [_published(inside, one) for inside, all_of_it in bindings.items() for one in all_of_it or ()]
        hostname = "" if self.id.startswith(self.config.hostname) else self.config.hostname
        return EngineContainer(
            name=self.name.removeprefix("/"),
            image=self.config.image,
            running=self.state.running,
            environment=dict(line.partition("=")[::2] for line in self.config.env or ()),
            labels=self.config.labels or {},
            ports=ports,
            mounts=[_mounted(mount) for mount in self.mounts if mount.type == "bind" or _is_named(mount)],
            networks=list(self.network_settings.networks or [self.host_config.network_mode or "bridge"]),
            hostname=hostname,
            restart=self.host_config.restart_policy.name,
        )


def _published(inside: str, binding: PortBinding) -> str:
    port = inside.removesuffix("/tcp")
    return ":".join(part for part in (binding.host_ip, binding.host_port, port) if part)


def _is_named(mount: MountPoint) -> bool:
    """Return whether a volume has a name of its own: anonymous ones have 64 hexadecimal digits."""
    return mount.type == "volume" and len(mount.name) != 64


def _mounted(mount: MountPoint) -> str:
    source = mount.source if mount.type == "bind" else mount.name
    return f"{source}:{mount.destination}{'' if mount.rw else ':ro'}"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    reads(parser, "HP_DOCKER_HOST", "HP_DOCKER_CERT_PATH")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--image", default="appapi-harp", help="HaRP's image on this host (default: appapi-harp)")
    text = "name of HaRP's deploy daemon in Nextcloud (default: harp)"
    parser.add_argument("--daemon", default="harp", metavar="NAME", help=text)


def main(options: argparse.Namespace) -> int:
    """Print the report; return the exit code. Asks the engine of HP_DOCKER_HOST and nobody else."""
    configure(Logs(level="error", format="text"))
    reading = examine(os.environ)  # on a host that has no HaRP yet, required variables are missing
    known = frozenset(value.name for value in reading.values)
    plan = plan_for(asyncio.run(_containers(reading.settings)), known, options.image, options.daemon)
    if options.json:
        print(msgspec.json.encode(plan).decode())
    else:
        print("\n".join(lines_of(plan)))
    return 0


def lines_of(plan: MigrationPlan) -> Iterable[str]:
    """Return the plan for people."""
    if not plan.found:
        yield "Nothing on this engine has to do with ExApps."
        return
    rows = [(one.name, one.kind, one.image, "running" if one.running else "stopped", one.owner) for one in plan.found]
    yield table(("container", "what it is", "image", "state", "Nextcloud"), rows)
    if not plan.steps:
        yield "\nThere is nothing to move."
    for number, step in enumerate(plan.steps, 1):
        yield from _step(f"{number}. {step.title}", step)
    for step in plan.back:
        yield from _step(step.title, step)


def _step(title: str, step: MigrationStep) -> Iterable[str]:
    yield f"\n{title}"
    if step.note:
        yield f"   {step.note}"
    for command in step.commands:
        yield f"\n   {command}"


async def _containers(settings: Settings) -> list[EngineContainer]:
    """Return every container of the local engine that is of interest. Raises Unreachable."""
    loop = asyncio.get_running_loop()
    resolver, ports = Resolver(loop.time), PortTable()
    inventory = EngineInventory(settings, Dialer(ports, resolver, connect=PATIENCE, hold=0), ports, loop.time)
    try:
        engine = await inventory.engine(LOCAL_ENGINE_PORT, PATIENCE)
        return [one for one in await _inspected(engine) if kind_of(one) is not None]
    except EngineError as error:
        raise Unreachable(f"{error}; HP_DOCKER_HOST says where the engine is, mount its socket") from error
    finally:
        await inventory.close()
        resolver.close()


async def _inspected(engine: DockerEngine) -> list[EngineContainer]:
    query: Mapping[str, str] = {"all": "1"}
    answer = await engine.api.call("GET", "/containers/json", query=query, largest=LARGEST_LIST)
    listed = parse(answer.body, list[Summary])[:MOST]
    names = {one.id: [name.removeprefix("/") for name in one.names] for one in listed}
    wanted = [
        one.id for one in listed if any(kind_of(EngineContainer(name, one.image, True, {})) for name in names[one.id])
    ]
    found = []
    for identifier in wanted:
        answer = await engine.api.call("GET", f"/containers/{quote(identifier)}/json")
        found.append(parse(answer.body, Inspection).plain())
    return sorted(found, key=lambda one: one.name)
