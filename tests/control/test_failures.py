"""One table says how each kind of error is answered."""

from __future__ import annotations

import pytest

from harp import errors
from harp.control.failures import STATUS, ClusterDisabled, InvalidPayload, status_of
from harp.errors import BadRequest, HarpError, PeerError, SettingsError, TunnelAway, Unreachable


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidPayload("port: Expected int, got str"), 400),
        (BadRequest("bad chunk size"), 400),
        (ClusterDisabled("no cluster"), 503),
        (Unreachable("engine 24001"), 503),
        (TunnelAway("engine 24001"), 503),
        (PeerError("not HTTP"), 500),
        (SettingsError(["no key"]), 500),
        (HarpError("anything else"), 500),
    ],
)
def test_an_error_is_answered_as_its_nearest_kind(error: HarpError, status: int) -> None:
    assert status_of(error) == status


def test_every_error_of_ours_has_an_answer() -> None:
    ours = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HarpError)]
    assert len(ours) > 3
    for kind in ours:
        assert any(parent in STATUS for parent in kind.__mro__)
