"""An engine that remembers what the control API asks of it."""

from __future__ import annotations

from typing import Any

from harp.engines.errors import (
    EngineError,
)
from harp.engines.verbs import CreatedContainer, DeletedImage, StartOutcome
from harp.policy.container import CreatePlan, Names

APP = Names("app")


class FakeDeployer:
    """Gives `result` and notes what it was asked; `error` is raised instead."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.ports: list[int] = []
        self.links: dict[str, str] = {}
        self.looked: list[tuple[str, str, str]] = []
        self.result: Any = None
        self.error: EngineError | None = None

    async def engine(self, port: int, patience: float = 15.0) -> Any:
        self.ports.append(port)
        return self

    def name(self, port: int) -> str:
        return f"the engine of port {port}"

    def doubt(self, port: int) -> None: ...

    def _answer(self, *asked: object) -> Any:
        self.asked.append(asked)
        if self.error is not None:
            raise self.error
        return self.result

    async def exists(self, names: Names) -> str | None:
        return self._answer("exists", names)  # type: ignore[no-any-return]

    async def first_link(self, image: str, root: str, path: str) -> str | None:
        self.looked.append((image, root, path))
        return self.links.get(path)

    async def create(self, plan: CreatePlan) -> CreatedContainer:
        return self._answer("create", plan)  # type: ignore[no-any-return]

    async def start(self, names: Names) -> bool:
        return self._answer("start", names)  # type: ignore[no-any-return]

    async def stop(self, names: Names) -> bool:
        return self._answer("stop", names)  # type: ignore[no-any-return]

    async def wait_for_start(self, names: Names) -> StartOutcome:
        return self._answer("wait_for_start", names)  # type: ignore[no-any-return]

    async def remove(self, names: Names, *, data: bool) -> None:
        self._answer("remove", names, data)

    async def image_remove(self, reference: str) -> DeletedImage:
        return self._answer("image_remove", reference)  # type: ignore[no-any-return]

    async def install_certificates(self, names: Names, bundle: str, *, tunnel: bool) -> None:
        self._answer("install_certificates", names, bundle, tunnel)
