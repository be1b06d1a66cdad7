"""What an ExApp's container is made of: names, owner, mounts, limits, and its JSON (A 4.5, A 4.6.2, A 10)."""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from harp.policy.images import is_image
from harp.policy.keys import own_key
from harp.settings import Engines

PREFIX = "nc_app_"
DEFAULT_NETWORK = "bridge"
RESTART_POLICIES = frozenset(("", "no", "always", "unless-stopped", "on-failure"))
NETWORKS_WITHOUT_ALIASES = frozenset(("bridge", "default", "host", "none"))  # the engine knows names on others only
KEY_VARIABLE = "HP_SHARED_KEY="
CPU_PERIOD = 100_000  # microseconds, in which a quota of processor time is counted

LABEL = "com.nextcloud.harp."
OWNER_LABEL = LABEL + "instance"

# Sources that no ExApp needs (A 10); `:rw` entries and those of _SOFT only warn unless all of it is enforced.
DENIED = (
    *("/proc", "/sys", "/boot", "/var/lib/docker", "/var/lib/containerd", "/run/docker.sock", "/var/run/docker.sock"),
    *("/run/containerd", "/var/run/containerd", "/run/podman", "/var/run/podman", "/run/crio", "/var/run/crio"),
    *("/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/sudoers.d", "/etc/ssh", "/dev", "/run", "/var/run", "/root"),
    *("/etc:rw", "/usr:rw", "/bin:rw", "/sbin:rw", "/lib:rw", "/lib64:rw", "/var/spool:rw"),
)
_SOFT = frozenset(("/dev", "/run", "/var/run", "/root"))

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
_PART = re.compile(r"[a-zA-Z0-9_.-]{0,63}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NETWORK = re.compile(r"[^:\s\x00-\x1f\x7f]{1,255}")


class Refused(ValueError):
    """A part of a request that is refused; the text is for people and names it."""


class Names(Struct, frozen=True):
    """Which ExApp a call is about. Use `checked`, because names go into engine URLs."""

    name: str
    instance_id: str = ""
    role_suffix: str = ""

    @property
    def _base(self) -> str:
        return f"{PREFIX}{self.instance_id}_{self.name}" if self.instance_id else PREFIX + self.name

    @property
    def container(self) -> str:
        """The container's name."""
        return f"{self._base}_{self.role_suffix}" if self.role_suffix else self._base

    @property
    def volume(self) -> str:
        """The data volume's name; it is mounted at "/" and this. All roles share it."""
        return f"{self._base}_data"

    def checked(self) -> Names:
        """Return these names if they are fit for an engine. Raises Refused."""
        if not _NAME.fullmatch(self.name):
            raise Refused("name: needs 1 to 63 letters, digits, _ . -, beginning with a letter or digit")
        for field, value in (("instance_id", self.instance_id), ("role_suffix", self.role_suffix)):
            if not _PART.fullmatch(value):
                raise Refused(f"{field}: can have at most 63 letters, digits, _ . -")
        return self


def image_reference(text: str, field: str = "image_ref") -> str:
    """Return `text` if it can be the name of an image. Raises Refused."""
    if not is_image(text):
        raise Refused(f"{field}: must be the name of an image")
    return text


# Owners


class Owner(Struct, frozen=True):
    """The instance on whose behalf we make containers and volumes."""

    instance: str

    def labels(self, names: Names, version: str) -> dict[str, str]:
        """Return the labels of everything we create; `version` is ours."""
        labels = {OWNER_LABEL: self.instance, f"{LABEL}app": names.name, f"{LABEL}version": version}
        if names.role_suffix:
            labels[f"{LABEL}role"] = names.role_suffix
        return labels

    def objection(self, what: str, labels: Mapping[str, str] | None) -> str:
        """Return why `what` must not be touched, "" if it may be.

        Objects without an owner are older than HaRP and are adopted.
        """
        owner = (labels or {}).get(OWNER_LABEL, self.instance)
        if owner == self.instance:
            return ""
        return f"{what} belongs to another Nextcloud; if that was this one, set HP_INSTANCE_ID={owner}"


def owner_from(url: str, chosen: str) -> Owner:
    """Return `chosen`, or an id derived from a Nextcloud's URL: from host, port and path, not from the scheme."""
    if chosen:
        return Owner(chosen)
    parts = urlsplit(url)
    port = {"http": 80, "https": 443}.get(parts.scheme) if parts.port is None else parts.port
    place = (parts.hostname or "") + ("" if port in (80, 443) else f":{port}") + parts.path.rstrip("/")
    return Owner(sha256(place.encode()).hexdigest()[:16])


# Mounts


class Mount(Struct, frozen=True):
    """A directory of the engine's host, in the container."""

    source: str
    target: str
    mode: str = "rw"

    def checked(self, place: str) -> Mount:
        """Return the same with normalised paths. Raises Refused; `place` says which mount it is."""
        if self.mode not in ("ro", "rw"):
            raise Refused(f"{place}.mode: must be ro or rw")
        return Mount(_path(self.source, f"{place}.source"), _path(self.target, f"{place}.target"), self.mode)

    def __str__(self) -> str:
        return f"{self.source}:{self.target}:{self.mode}"


def _path(path: str, field: str) -> str:
    if not path.startswith("/") or ":" in path or ".." in path.split("/") or _CONTROL.search(path):
        raise Refused(f"{field}: must be an absolute path without .. : and control characters")
    return "/" + posixpath.normpath(path).lstrip("/")


def mounts_refusal(mounts: Sequence[Mount], engines: Engines) -> tuple[str, list[str]]:
    """Return the reason why these bind mounts are not made, "" when they are, and what to warn of all the same.

    The longest entry that matches a source decides, on a tie the denying one; paths are compared as text (A 10), so
    links are followed separately.
    """
    warnings: list[str] = []
    for mount in mounts:
        if engines.mounts_disabled:
            return f"HP_EXAPP_BIND_MOUNTS_DISABLED refuses all bind mounts, so {mount} too", []
        refusal, warning = _mount_refusal(mount, engines)
        if refusal:
            return refusal, []
        if warning:
            warnings.append(warning)
    return "", warnings


def look_from(source: str, engines: Engines) -> str:
    """Return the directory at or above a mount's source that is the admin's own choice: links below it may be others'.

    That is the longest allowed entry; without a list of those, the first directory of the path.
    """
    entries = [entry for entry in engines.mounts_allowed or () if entry != "/" and _within(source, entry)]
    return max(entries, key=len) if entries else "/" + source.split("/")[1]


def _mount_refusal(mount: Mount, engines: Engines) -> tuple[str, str]:
    allowed = -1
    if engines.mounts_allowed is not None:
        allowed = max((len(entry) for entry in engines.mounts_allowed if _within(mount.source, entry)), default=-1)
        if allowed < 0:
            return f"HP_EXAPP_BIND_MOUNTS_ALLOWED has no entry for the bind mount {mount}", ""
    warning = ""
    for entry in sorted(DENIED if engines.mounts_denied is None else engines.mounts_denied, key=len, reverse=True):
        path = entry.removesuffix(":rw")
        if (path != entry and mount.mode == "ro") or len(path) < allowed:
            continue
        if _within(mount.source, path) or _within(path, mount.source):
            text = f"HP_EXAPP_BIND_MOUNTS_DENIED ({entry}) denies the bind mount {mount}"
            soft = path != entry or path in _SOFT
            if engines.mounts_denied is not None or engines.mounts_enforce_all or not soft:
                return text, ""
            warning = warning or text
    return "", warning


def _within(path: str, entry: str) -> bool:
    return path == entry or path.startswith(entry if entry == "/" else entry + "/")


# The container


class ResourceLimits(Struct, frozen=True, rename={"nano_cpus": "nanoCPUs"}):
    """Resources; None is no limit. AppAPI's page computes nanoCPUs in floating point (A 6.4)."""

    memory: float | None = None  # bytes
    nano_cpus: float | None = None  # a billionth of a processor each

    def checked(self) -> ResourceLimits:
        """Return whole numbers. Raises Refused."""
        return ResourceLimits(
            _whole(self.memory, "memory", exact=True), _whole(self.nano_cpus, "nanoCPUs", exact=False)
        )


def _whole(value: float | None, field: str, *, exact: bool) -> int | None:
    if value is None:
        return None
    if not math.isfinite(value) or not 0 <= value < 1 << 62 or (exact and value != int(value)):
        raise Refused(f"resource_limits.{field}: must be a whole number, 0 or more")
    return round(value)


class CreatePlan(Struct, frozen=True):
    """A container to be made. Use `checked`."""

    names: Names
    image: str
    network: str = DEFAULT_NETWORK
    environment: tuple[str, ...] = ()
    restart_policy: str = "unless-stopped"
    device: str = "cpu"  # "cpu", "cuda" or "rocm"
    mounts: tuple[Mount, ...] = ()
    limits: ResourceLimits = ResourceLimits()

    def checked(self) -> CreatePlan:
        """Return the same with everything normalised. Raises Refused."""
        image_reference(self.image, "image_id")
        if not _NETWORK.fullmatch(self.network):
            raise Refused("network_mode: needs 1 to 255 characters without colons and spaces")
        if self.restart_policy not in RESTART_POLICIES:
            raise Refused("restart_policy: must be no, always, unless-stopped or on-failure")
        if any("\0" in variable for variable in self.environment):
            raise Refused("environment_variables: must not contain NUL")
        return CreatePlan(
            self.names.checked(),
            self.image,
            self.network,
            self.environment,
            self.restart_policy,
            self.device,
            tuple(mount.checked(f"mount_points[{number}]") for number, mount in enumerate(self.mounts)),
            self.limits.checked(),
        )

    def with_own_key(self, shared_key: str) -> CreatePlan:
        """Return the same with the app's own tunnel key where AppAPI put the shared one."""
        key = KEY_VARIABLE + own_key(shared_key, self.names.name)
        environment = tuple(key if text.startswith(KEY_VARIABLE) else text for text in self.environment)
        return replace(self, environment=environment)

    def __repr__(self) -> str:  # the environment holds secrets
        return f"CreatePlan({self.names.container!r}, {self.image!r})"

    def body(self, labels: Mapping[str, str]) -> dict[str, object]:
        """Return the body of POST /containers/create."""
        host: dict[str, object] = {
            "NetworkMode": self.network,
            "RestartPolicy": {"Name": self.restart_policy},
            "Mounts": [_volume_mount(self.names.volume), *map(_bind_mount, self.mounts)],
        }
        if self.limits.memory is not None:
            host["Memory"] = self.limits.memory
        if self.limits.nano_cpus is not None:
            host["NanoCPUs"] = self.limits.nano_cpus
        host |= _devices(self.device)
        body: dict[str, object] = {
            "Image": self.image,
            "Hostname": self.names.name,
            "Env": list(self.environment),
            "Labels": dict(labels),
            "HostConfig": host,
        }
        if self.network not in NETWORKS_WITHOUT_ALIASES:
            body["NetworkingConfig"] = {"EndpointsConfig": {self.network: {"Aliases": [self.names.name]}}}
        return body

    def podman_body(self, labels: Mapping[str, str]) -> dict[str, object]:
        """Return the body of podman's own POST /libpod/containers/create, for devices by CDI name.

        Its Docker-like endpoint takes such a name for a path, or silently drops device requests.
        """
        own_network = self.network not in NETWORKS_WITHOUT_ALIASES
        body: dict[str, object] = {
            "name": self.names.container,
            "image": self.image,
            "hostname": self.names.name,
            "env": {name: value for name, _, value in (text.partition("=") for text in self.environment)},
            "labels": dict(labels),
            "restart_policy": self.restart_policy,
            "netns": {"nsmode": "bridge" if own_network or self.network == "default" else self.network},
            "volumes": [{"Name": self.names.volume, "Dest": f"/{self.names.volume}"}],
            "mounts": [
                {"type": "bind", "source": mount.source, "destination": mount.target, "options": ["rbind", mount.mode]}
                for mount in self.mounts
            ],
        }
        if own_network:
            body["networks"] = {self.network: {"aliases": [self.names.name]}}
        if self.device == "cuda":
            body["devices"] = [{"path": "nvidia.com/gpu=all"}]
        limits: dict[str, object] = {}
        if self.limits.memory:
            limits["memory"] = {"limit": self.limits.memory}
        if self.limits.nano_cpus:
            limits["cpu"] = {"period": CPU_PERIOD, "quota": round(self.limits.nano_cpus * CPU_PERIOD / 1e9)}
        return body | {"resource_limits": limits} if limits else body


def _volume_mount(volume: str) -> dict[str, object]:
    return {"Type": "volume", "Source": volume, "Target": f"/{volume}", "ReadOnly": False}


def _bind_mount(mount: Mount) -> dict[str, object]:
    return {"Type": "bind", "Source": mount.source, "Target": mount.target, "ReadOnly": mount.mode == "ro"}


def _devices(device: str) -> dict[str, object]:
    if device == "cuda":
        return {"DeviceRequests": [{"Driver": "nvidia", "Count": -1, "Capabilities": [["compute", "utility"]]}]}
    if device == "rocm":
        return {"Devices": [_device("/dev/kfd"), _device("/dev/dri")]}
    return {}


def _device(path: str) -> dict[str, str]:
    return {"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rwm"}
