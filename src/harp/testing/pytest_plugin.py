"""The fixture `harp` for the tests of ExApps; its class is in `harp.testing`.

pytest loads this module in every run where HaRP is installed, so it costs nothing until a test asks for the fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harp.testing import HarpForTests


@pytest.fixture(scope="session")
def harp() -> Iterator[HarpForTests]:
    """Yield a Nextcloud stand-in and a real HaRP, running beside the tests (`harp.testing`)."""
    from harp.testing import HarpForTests  # noqa: PLC0415 - loads everything

    with HarpForTests() as running:
        yield running
