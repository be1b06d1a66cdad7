"""The deploy verbs that AppAPI needs from anything that runs ExApps (A 4.6), so that endpoints are the same for all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import UNSET, Struct, UnsetType

from harp.policy.container import CreatePlan, Names
from harp.policy.docker_api import EngineRequest

if TYPE_CHECKING:
    from aiohttp import ClientResponse

    from harp.engines.api import EngineAnswer
    from harp.engines.pulls import PullErrors


class CreatedContainer(Struct, frozen=True):
    """A container that was made."""

    id: str
    name: str


class StartOutcome(Struct, frozen=True):
    """The outcome of a start. AppAPI looks only at `started` and logs the rest (A 4.6.5)."""

    started: bool
    status: str  # "running", "exited", ..., "not_found"
    health: str | None = None
    reason: str | UnsetType = UNSET  # why not, with the last words of the container
    exit_code: int | UnsetType = UNSET
    oom_killed: bool | UnsetType = UNSET
    logs: list[str] | UnsetType = UNSET


class DeletedImage(Struct, frozen=True):
    """What happened to an image."""

    deleted: bool
    bytes_freed: int | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class Deployer(Protocol):
    """The verbs. All raise EngineError; what belongs to another Nextcloud is ForeignOwner."""

    async def exists(self, names: Names) -> str | None:
        """Return the image of the ExApp's container; None when there is no container."""
        ...

    async def create(self, plan: CreatePlan) -> CreatedContainer:
        """Make the container and, where there is none, its volume. Starts nothing."""
        ...

    async def start(self, names: Names) -> bool:
        """Start it; return False if it was already running."""
        ...

    async def stop(self, names: Names) -> bool:
        """Stop it; return False if it was already stopped."""
        ...

    async def wait_for_start(self, names: Names) -> StartOutcome:
        """Wait until it runs and is healthy, or has failed."""
        ...

    async def remove(self, names: Names, *, data: bool) -> None:
        """Remove the container, and its volume if `data`; what is gone already is fine."""
        ...

    async def image_remove(self, reference: str) -> DeletedImage:
        """Remove an image that nothing uses."""
        ...

    async def install_certificates(self, names: Names, bundle: str, *, tunnel: bool) -> None:
        """Make it trust the CAs of `bundle` (PEM, "" = none), and give it the tunnel's client files if `tunnel`."""
        ...


class ContainerEngine(Deployer, Protocol):
    """A Docker or podman engine, to which some calls of AppAPI are forwarded (A 3). All methods raise EngineError."""

    pulls: PullErrors  # what went wrong with them

    async def first_link(self, image: str, root: str, path: str) -> str | None:
        """Return where `path` on the engine's host leads by the first symbolic link below `root`, if it has one."""
        ...

    async def answer(self, request: EngineRequest) -> EngineAnswer:
        """Make a small request and return the engine's whole answer, refusals included."""
        ...

    async def stream(
        self, request: EngineRequest, login: bytes, *, head: float, silence: float
    ) -> ClientResponse | EngineAnswer:
        """Make a request whose answer is passed on while it arrives; the caller closes it."""
        ...
