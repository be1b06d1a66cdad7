"""The keys that ExApps' tunnels log in with (difference 12)."""

from __future__ import annotations

from hmac import compare_digest, digest

PROOF = 64  # hexadecimal digits


def own_key(shared_key: str, app_id: str) -> str:
    """Return an ExApp's own tunnel key: it names the app and proves that we gave it."""
    app_id = app_id.lower()
    proof = digest(shared_key.encode("utf-8", "surrogateescape"), b"harp exapp key\0" + app_id.encode(), "sha256")
    return f"{app_id}.{proof.hex()}"


def key_owner(token: str) -> str:
    """Return the app that a token of `own_key` claims to be of; "" when it is none of those."""
    app_id, _, proof = token.rpartition(".")
    return app_id if len(proof) == PROOF else ""


def own_key_of(token: str, shared_key: str) -> str:
    """Return the ExApp whose own key `token` is, lower-cased; "" when it is nobody's."""
    app_id = key_owner(token)
    if not app_id:
        return ""
    right = own_key(shared_key, app_id).encode("utf-8", "surrogateescape")
    return app_id if compare_digest(token.encode("utf-8", "surrogateescape"), right) else ""
