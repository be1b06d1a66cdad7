"""A Nextcloud of the tests, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from harp.nextcloud.client import NextcloudClient
from tests.fakes.nextcloud import FakeNextcloud
from tests.nextcloud.calls import client_of


@pytest.fixture
async def nextcloud() -> AsyncIterator[FakeNextcloud]:
    async with FakeNextcloud() as nextcloud:
        yield nextcloud


@pytest.fixture
async def client(nextcloud: FakeNextcloud) -> AsyncIterator[NextcloudClient]:
    client = client_of(nextcloud.url)
    yield client
    await client.close()
