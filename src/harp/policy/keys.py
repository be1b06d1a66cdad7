"""The keys that tunnels of ExApps and engines log in with, instead of the shared one (difference 12)."""

from __future__ import annotations

from hmac import compare_digest, digest

PROOF = 64  # hexadecimal digits
ENGINE = "engine/"  # how the own keys of engines begin; no ExApp's id has a slash


def own_key(shared_key: str, app_id: str) -> str:
    """Return an ExApp's own tunnel key: it names the app and proves that we gave it."""
    app_id = app_id.lower()
    proof = digest(shared_key.encode("utf-8", "surrogateescape"), b"harp exapp key\0" + app_id.encode(), "sha256")
    return f"{app_id}.{proof.hex()}"


def key_owner(token: str) -> str:
    """Return the app that a token of `own_key` claims to belong to; "" if it is not such a token."""
    app_id, _, proof = token.rpartition(".")
    return app_id if len(proof) == PROOF else ""


def own_key_of(token: str, shared_key: str) -> str:
    """Return the ExApp whose own key `token` is, lower-cased; "" if there is none."""
    app_id = key_owner(token)
    if not app_id:
        return ""
    right = own_key(shared_key, app_id).encode("utf-8", "surrogateescape")
    return app_id if compare_digest(token.encode("utf-8", "surrogateescape"), right) else ""


def engine_key(shared_key: str, name: str, salt: str) -> str:
    """Return an engine's own tunnel key: it names the engine, and is valid as long as its salt is."""
    text = b"harp engine key\0" + name.encode() + b"\0" + salt.encode()
    return f"{ENGINE}{name}.{digest(shared_key.encode('utf-8', 'surrogateescape'), text, 'sha256').hex()}"


def engine_of(token: str) -> str:
    """Return the engine whose own key a token claims to be; "" if it is not such a token."""
    name, _, proof = token.rpartition(".")
    return name.removeprefix(ENGINE) if name.startswith(ENGINE) and len(proof) == PROOF else ""


def is_engine_key(token: str, shared_key: str, name: str, salt: str) -> bool:
    """Return whether `token` is this engine's own key. Takes the same time whatever the answer."""
    right = engine_key(shared_key, name, salt).encode("utf-8", "surrogateescape")
    return compare_digest(token.encode("utf-8", "surrogateescape"), right)
