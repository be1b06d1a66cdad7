"""Calls to Nextcloud as tests make them."""

from __future__ import annotations

from collections.abc import Callable

from harp.nextcloud.client import NextcloudClient
from harp.policy.exapp import Trouble
from harp.policy.question import VisitorLogin, by_name, login_of
from harp.settings import Nextcloud
from tests.fakes.clock import Clock

COOKIE = (b"cookie", b"oc_sessionPassphrase=abc; instance=def")

BASIC = (b"authorization", b"Basic Ym9iOmJvYg==")


def client_of(url: str, clock: Callable[[], float] | None = None, timeout: float = 5.0) -> NextcloudClient:
    settings = Nextcloud(url=url, session_lifetime=3, record_lifetime=60, connect_timeout=2, timeout=timeout)
    return NextcloudClient(settings, "the key", clock or Clock())


ADDRESS = "203.0.113.7"


def login(*headers: tuple[bytes, bytes]) -> VisitorLogin:
    return login_of(by_name(list(headers))) or VisitorLogin()


async def trouble(client: NextcloudClient) -> Trouble:
    fact = await client.record("hello")
    assert isinstance(fact, Trouble)
    assert fact.reason.isprintable()
    assert len(fact.reason) <= 200
    assert "the key" not in fact.reason
    return fact
