"""Whose tunnel may offer which port (difference 12)."""

from __future__ import annotations

from hmac import compare_digest

from harp.policy.container import key_owner, own_key
from harp.policy.exapp import RecordFact, Trouble, UnknownApp


def own_key_of(token: str, shared_key: str) -> str:
    """The ExApp whose own key `token` is, lower-cased; "" when it is nobody's."""
    app_id = key_owner(token)
    if not app_id:
        return ""
    right = own_key(shared_key, app_id).encode("utf-8", "surrogateescape")
    return app_id if compare_digest(token.encode("utf-8", "surrogateescape"), right) else ""


def key_objection(owner: str, name: str, *, exapp_port: bool) -> str:
    """Why the own key of the ExApp `owner` does not open this claim, "" when it does."""
    if name.lower() == owner and exapp_port:
        return ""
    return f"this key is good for the tunnel of the ExApp {owner} only"


def record_objection(record: RecordFact, name: str, port: int) -> str:
    """Why Nextcloud's record does not cover this claim, "" when it does."""
    if isinstance(record, Trouble):
        return f"Nextcloud cannot be asked which port {name} has: {record.reason}"
    if isinstance(record, UnknownApp):
        return f"Nextcloud knows no ExApp {name}; a tunnel has to be named as its ExApp"
    if record.port != port:
        return f"Nextcloud gave the ExApp {name} port {record.port}, not {port}"
    return ""
