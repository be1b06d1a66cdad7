"""What an engine already runs, and the commands to move from there to this HaRP. Pure.

Three things are known: the existing HaRP, which this one replaces in place; docker-socket-proxy, whose ExApps have to
be registered again because it does not support tunnels; and HaRP inside Nextcloud AIO, which AIO manages.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from harp.logs import is_secret_name
from harp.policy.container import OWNER_LABEL, PREFIX

Kind = Literal["harp", "old harp", "socket proxy", "aio", "exapp", "exapp of socket proxy"]

OLD_HARP = "nextcloud-appapi-harp"
SOCKET_PROXY = ("nextcloud-appapi-dsp", "aio-docker-socket-proxy")
AIO = "aio-harp"
OURS = "appapi-harp"
ASIDE = "-before"  # what the old container's name gets
OPTIONS_OF_HOST = ("host", "none")


class EngineContainer(Struct, frozen=True):
    """A container as an engine describes it."""

    name: str
    image: str
    running: bool
    environment: Mapping[str, str]
    labels: Mapping[str, str] = {}
    ports: Sequence[str] = ()  # as for docker run -p
    mounts: Sequence[str] = ()  # as for docker run -v
    networks: Sequence[str] = ()
    hostname: str = ""
    restart: str = ""


class FoundContainer(Struct, frozen=True):
    """A container that matters for the move."""

    name: str
    kind: Kind
    image: str
    running: bool
    owner: str = ""  # the Nextcloud that it is labelled with


class MigrationStep(Struct, frozen=True):
    """One step; `commands` are to be typed, in order."""

    title: str
    commands: Sequence[str]
    note: str = ""


class MigrationPlan(Struct, frozen=True):
    """What was found, what to do, and how to go back."""

    found: Sequence[FoundContainer]
    steps: Sequence[MigrationStep]
    back: Sequence[MigrationStep]


def plan_for(containers: Sequence[EngineContainer], known: frozenset[str], image: str, daemon: str) -> MigrationPlan:
    """Return the plan. `known` are the variables that we read, `image` is ours, `daemon` HaRP's name in Nextcloud."""
    found = [(kind, container) for container in containers if (kind := kind_of(container)) is not None]
    steps: list[MigrationStep] = []
    back: list[MigrationStep] = []
    for kind, container in found:
        if kind == "old harp":
            steps += _replace(container, known, image)
            back.append(_return(container))
        elif kind == "aio":
            note = "AIO creates this container itself: wait for an AIO that offers this HaRP."
            steps.append(MigrationStep(f"{container.name} belongs to Nextcloud AIO", (), note))
    moving = [container for kind, container in found if kind == "exapp of socket proxy"]
    proxies = [container for kind, container in found if kind == "socket proxy"]
    if moving or proxies:
        steps += _leave_socket_proxy(moving, proxies, daemon)
    if steps:
        check = ("docker exec appapi-harp harp check --strict", "docker exec appapi-harp harp doctor")
        steps.append(MigrationStep("See whether everything works", check))
    lines = [
        FoundContainer(one.name, kind, one.image, one.running, one.labels.get(OWNER_LABEL, "")) for kind, one in found
    ]
    return MigrationPlan(lines, steps, back)


def kind_of(container: EngineContainer) -> Kind | None:
    """Return what a container is, None when it has nothing to do with ExApps."""
    image = container.image.rpartition("/")[2].partition("@")[0].partition(":")[0]
    if AIO in image or AIO in container.name:
        return "aio"
    if image == OLD_HARP:
        return "old harp"
    if image in SOCKET_PROXY or container.name in SOCKET_PROXY:
        return "socket proxy"
    if image == OURS:
        return "harp"
    if container.name.startswith(PREFIX):
        tunnelled = "HP_SHARED_KEY" in container.environment or OWNER_LABEL in container.labels
        return "exapp" if tunnelled else "exapp of socket proxy"
    return None


def _replace(old: EngineContainer, known: frozenset[str], image: str) -> list[MigrationStep]:
    aside = old.name + ASIDE
    left_out = sorted(name for name in old.environment if name.startswith("HP_") and name not in known)
    note = "Ports, variables and /certs are the same, so Nextcloud, ExApps and engines notice nothing but a restart."
    if left_out:
        note += f" Left out, because they have no effect here: {', '.join(left_out)}."
    secrets = [name for name in _kept(old, known) if is_secret_name(name)]
    exports = tuple(f'export {name}="$({_value_of(old, name)})"' for name in secrets)
    first, *others = old.networks or ("bridge",)
    return [
        MigrationStep(
            "Get the image, and have the settings checked",
            (f"docker pull {image}",),
            "Or build it: docker build -t appapi-harp .",
        ),
        MigrationStep(
            f"Put {old.name} aside, without removing it",
            (*exports, f"docker stop {_word(old.name)}", f"docker rename {_word(old.name)} {_word(aside)}"),
            "Its certificates in /certs stay where they are: all tunnels depend on them. ExApps are away from here on.",
        ),
        MigrationStep(
            "Start this HaRP in its place",
            (
                _run(old, known, image, first),
                *(f"docker network connect {_word(other)} {_word(old.name)}" for other in others),
            ),
            note,
        ),
    ]


def _value_of(container: EngineContainer, name: str) -> str:
    """Return a command that prints a secret's value into a variable, and not onto the screen."""
    template = "{{range .Config.Env}}{{println .}}{{end}}"
    return f"docker inspect --format '{template}' {_word(container.name)} | sed -n 's/^{name}=//p'"


def _kept(old: EngineContainer, known: frozenset[str]) -> list[str]:
    return [name for name in old.environment if name in known or name in ("TZ", "NC_INSTANCE_URL")]


def _run(old: EngineContainer, known: frozenset[str], image: str, network: str) -> str:
    words = ["docker", "run", "-d", "--name", old.name]
    if old.hostname and network not in OPTIONS_OF_HOST:
        words += ["--hostname", old.hostname]
    words += ["--restart", old.restart or "unless-stopped", "--network", network]
    for name in _kept(old, known):
        words += ["-e", name if is_secret_name(name) else f"{name}={old.environment[name]}"]
    if not any(mount.partition(":")[2].startswith("/certs") for mount in old.mounts):
        words += ["--volumes-from", old.name + ASIDE]  # an anonymous volume
    for mount in old.mounts:
        words += ["-v", mount]
    if network not in OPTIONS_OF_HOST:
        for port in old.ports:
            words += ["-p", port]
    return shlex.join([*words, image])


def _return(old: EngineContainer) -> MigrationStep:
    name, aside = _word(old.name), _word(old.name + ASIDE)
    commands = (f"docker rm -f {name}", f"docker rename {aside} {name}", f"docker start {name}")
    return MigrationStep("Back to the old HaRP, at any time", commands, "Nothing of it was changed or removed.")


def _leave_socket_proxy(
    moving: Sequence[EngineContainer], proxies: Sequence[EngineContainer], daemon: str
) -> list[MigrationStep]:
    """ExApps of the socket proxy have no tunnel client's settings: AppAPI has to deploy them again."""
    steps = [
        MigrationStep("Set HaRP up beside docker-socket-proxy", ("harp setup",), "Unless it runs already."),
        MigrationStep("See which deploy daemons Nextcloud has", ("occ app_api:daemon:list",)),
    ]
    for container in moving:
        app = container.name.removeprefix(PREFIX)
        commands = (
            f"occ app_api:app:unregister {_word(app)}",
            f"occ app_api:app:register {_word(app)} {_word(daemon)} --wait-finish",
        )
        note = f"Without --rm-data the volume {PREFIX}{app}_data stays, and the new container gets it."
        steps.append(MigrationStep(f"Move the ExApp {app}", commands, note))
    for proxy in proxies:
        commands = ("occ app_api:daemon:unregister <name of the old daemon>", f"docker stop {_word(proxy.name)}")
        steps.append(MigrationStep(f"Retire {proxy.name}, when no ExApp is left on its daemon", commands))
    return steps


def _word(text: str) -> str:
    return shlex.quote(text)
