"""Whose tunnel may offer which port (difference 12), and the life of a claim (F 5.3, F 5.4)."""

from __future__ import annotations

from collections.abc import Container, Mapping
from enum import Enum

from harp.errors import PeerError
from harp.policy.exapp import RecordFact, Trouble, UnknownApp


class ClaimState(Enum):
    """Where a claim is."""

    QUEUED = "waits for its turn"
    CHECKING = "being checked"
    CONTESTED = "waits for its holder to prove that it lives"
    GRANTED = "granted, not confirmed yet"
    OFFERED = "offered"
    ENDED = "ended"


class ClaimEvent(Enum):
    """What moves a claim on."""

    CHECK = "its turn has come"
    TAKEN = "another tunnel holds its name or port"
    GRANT = "granted"
    CONFIRM = "the client knows of it, or a second has passed"
    REFUSE = "refused"
    RELEASE = "withdrawn, or its tunnel ended"


MOVES: Mapping[ClaimState, Mapping[ClaimEvent, ClaimState]] = {
    ClaimState.QUEUED: {
        ClaimEvent.CHECK: ClaimState.CHECKING,
        ClaimEvent.REFUSE: ClaimState.ENDED,
        ClaimEvent.RELEASE: ClaimState.ENDED,
    },
    ClaimState.CHECKING: {
        ClaimEvent.TAKEN: ClaimState.CONTESTED,
        ClaimEvent.GRANT: ClaimState.GRANTED,
        ClaimEvent.REFUSE: ClaimState.ENDED,
        ClaimEvent.RELEASE: ClaimState.ENDED,
    },
    ClaimState.CONTESTED: {
        ClaimEvent.TAKEN: ClaimState.CONTESTED,  # by a second tunnel: one held its name, one its port
        ClaimEvent.GRANT: ClaimState.GRANTED,
        ClaimEvent.REFUSE: ClaimState.ENDED,
        ClaimEvent.RELEASE: ClaimState.ENDED,
    },
    ClaimState.GRANTED: {ClaimEvent.CONFIRM: ClaimState.OFFERED, ClaimEvent.RELEASE: ClaimState.ENDED},
    ClaimState.OFFERED: {ClaimEvent.CONFIRM: ClaimState.OFFERED, ClaimEvent.RELEASE: ClaimState.ENDED},
    ClaimState.ENDED: {},
}


def moved(state: ClaimState, event: ClaimEvent) -> ClaimState:
    """Return the state after `event`. Raises PeerError when `event` has no place in `state`."""
    try:
        return MOVES[state][event]
    except KeyError:
        raise PeerError(f"a claim that is {state.value} cannot be moved: {event.value}") from None


def key_objection(owner: str, name: str, *, exapp_port: bool) -> str:
    """Return why the own key of the ExApp `owner` does not open this claim, "" when it does."""
    if name.lower() == owner and exapp_port:
        return ""
    return f"this key is good for the tunnel of the ExApp {owner} only"


def record_objection(record: RecordFact, name: str, port: int) -> str:
    """Return why Nextcloud's record does not cover this claim, "" when it does."""
    if isinstance(record, Trouble):
        return f"Nextcloud cannot be asked which port {name} has: {record.reason}"
    if isinstance(record, UnknownApp):
        return f"Nextcloud knows no ExApp {name}; a tunnel has to be named as its ExApp"
    if record.port != port:
        return f"Nextcloud gave the ExApp {name} port {record.port}, not {port}"
    return ""


class EngineObjection(str):
    """Why a claim is not that of the engine with this port. `certain`: the port is known to belong to another."""

    certain: bool

    def __new__(cls, text: str, *, certain: bool) -> EngineObjection:
        objection = super().__new__(cls, text)
        objection.certain = certain
        return objection


def engine_key_objection(engine: str, name: str, holder: str) -> str:
    """Return why the own key of `engine` does not open the claim of `name` to a port of `holder`, "" when it does."""
    return "" if engine == name == holder else f"this key is good for the tunnel of the engine {engine} only"


def engine_objection(
    engines: Mapping[int, str], name: str, port: int, keyed: Container[str] = ()
) -> EngineObjection | None:
    """Return why `name`, with the shared key, is not the engine of `port`, None when it is.

    `keyed` are engines that have a key of their own: a login without it is not believed to be theirs.
    `engines` are those that `harp engine add` or `register` has named. Stock set-ups give an engine's tunnel any name,
    so a port without an engine may be one of theirs.
    """
    known = engines.get(port)
    if name in keyed:
        text = f"the engine {name} has a key of its own; harp engine add {name} makes its bundle again"
        return EngineObjection(text, certain=True)
    if known == name:
        return None
    fix = f"if it is right: harp engine register {name} --port {port}"
    if known is None:
        return EngineObjection(f"no engine is registered for port {port}; {fix}", certain=False)
    return EngineObjection(f"port {port} belongs to the engine {known}; {fix}", certain=True)
