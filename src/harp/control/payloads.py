"""Bodies of control calls: JSON in, checked values out (A 4.1)."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec
from msgspec import Struct

from harp.control.failures import InvalidPayload
from harp.nextcloud.payloads import read_record
from harp.policy.exapp import ExApp
from harp.wire.decoding import decoded

T = TypeVar("T")

LARGEST_BODY = 16 << 20  # bytes; a CA bundle has to fit


def decode(body: bytes, shape: type[T]) -> T:
    """Read `body` as `shape`. Numbers may be numeric strings or integral floats; unknown keys are ignored.

    Raises InvalidPayload, naming the field and what it should be but never its value.
    """
    return decoded(body, shape, _invalid, strict=False)


def _invalid(error: Exception) -> InvalidPayload:
    if isinstance(error, msgspec.ValidationError):
        return InvalidPayload(f"Payload validation error: {describe(str(error))}")
    return InvalidPayload("Invalid JSON body")


def describe(error: str) -> str:
    """`field: message` from a message of msgspec such as "Expected `int`, got `str` - at `$.routes[0].port`"."""
    message, _, place = error.partition(" - at `$")
    missing = re.fullmatch(r"Object missing required field `(\w+)`", message)
    field = place.rstrip("`").lstrip(".")
    if missing:
        field = f"{field}.{missing[1]}".lstrip(".")
        message = "field required"
    elif message.startswith("Invalid "):  # such a message repeats the value
        message = "not one of the allowed values"
    return f"{field or 'body'}: {message.replace('`', '')}"


def pushed_record(app_id: str, body: bytes) -> ExApp:
    """Return the record that AppAPI pushes; it has the shape of what Nextcloud answers (A 4.3, A 5.1)."""
    decode(body, msgspec.Raw)  # reports "Invalid JSON body" before any fault of a field
    try:
        return read_record(app_id.lower(), body)
    except ValueError as error:
        raise InvalidPayload(f"Payload validation error: {describe(str(error))}") from None


class LoginMetas(Struct, frozen=True):
    """What a tunnel client says of itself; only its token matters."""

    token: str = ""

    def __repr__(self) -> str:
        return "LoginMetas()"


class LoginContent(Struct, frozen=True):
    """The login of a tunnel client as frps describes it."""

    client_address: str
    metas: LoginMetas | None = None


class LoginCall(Struct, frozen=True):
    """What frps asks when a tunnel client logs in (A 4.4)."""

    content: LoginContent

    def peer(self) -> str:
        """Return the client's IP address, without port and brackets. Raises InvalidPayload when there is none."""
        host = self.content.client_address.rpartition(":")[0].strip("[]")
        if not host:
            raise InvalidPayload("Payload validation error: content.client_address: not address:port")
        return host
