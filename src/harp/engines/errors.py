"""Errors of engines. Each text begins with the engine's own message, if there is one."""

from __future__ import annotations

from harp.errors import HarpError


class EngineError(HarpError):
    """An engine did not do what was asked."""


class EngineUnreachable(EngineError):
    """No connection, or it broke before the answer was complete."""


class EngineTimeout(EngineError):
    """The engine took too long."""


class EngineRefused(EngineError):
    """The engine answered with an error; `message` is what it said."""

    def __init__(self, status: int, message: str, where: str) -> None:
        super().__init__(f"{message} ({where} answered {status})")
        self.status = status
        self.message = message


class EngineMissing(EngineRefused):
    """The engine has no such container, volume or image."""


class EngineConflict(EngineRefused):
    """In use, or the name is taken."""


class ForeignOwner(EngineError):
    """The container or volume belongs to another Nextcloud; nothing was done to it."""


class NotThere(EngineError):
    """What a call is about does not exist; the text is the whole answer."""


class AlreadyThere(EngineError):
    """What a call is to make exists; the text is the whole answer."""
