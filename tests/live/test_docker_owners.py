"""Two Nextclouds, each with a HaRP of its own, on one engine: nobody loses a byte."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.appapi import App
from tests.live.daemon import Daemon, running_daemon
from tests.live.engine import Engine
from tests.live.images import provide_small_exapp

pytestmark = pytest.mark.timeout(300)  # the first test makes images


@pytest.fixture(scope="module")
def daemons(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Daemon]]:
    """Two instances."""
    with (
        running_daemon(tmp_path_factory.mktemp("one"), engine, HP_INSTANCE_ID="one") as one,
        running_daemon(tmp_path_factory.mktemp("two"), engine, HP_INSTANCE_ID="two") as two,
    ):
        yield one, two


def test_neither_of_two_instances_takes_the_others_app_or_data(daemons: tuple[Daemon, Daemon]) -> None:
    one, two = daemons
    engine = one.engine
    image = provide_small_exapp(engine)
    with one.app(App("shared", image, port=23120)) as app, two.app(App("shared", image, port=23120)) as other:
        one.appapi.deploy(app)
        one.appapi.enable(app)
        marker = f"/{app.volume}/marker"
        assert engine.execute(app.container, "sh", "-c", f"echo precious > {marker}")[0] == 0
        before = engine.inspect(app.container)

        for refused in (
            two.appapi.create(other),
            two.appapi.remove(other, data=False),
            two.appapi.remove(other, data=True),
            two.appapi.named("stop", other),
            two.appapi.install_certificates(other),
            two.appapi.named("exists", other),
            two.appapi.docker("GET", f"/v1.44/containers/{app.container}/json"),
            two.appapi.docker("GET", f"/v1.44/containers/{app.container}/logs?stdout=true&stderr=true&tail=all"),
        ):
            assert refused.status == 409, refused.body
            assert b"one" in refused.body[:120], refused.body
            assert app.secret.encode() not in refused.body

        after = engine.inspect(app.container)
        assert after["Id"] == before["Id"]
        assert after["State"]["StartedAt"] == before["State"]["StartedAt"]
        assert engine.execute(app.container, "cat", marker) == (0, "precious\n")
        one.appapi.heartbeat(app)


def test_a_volume_outlives_its_container_and_stays_its_owners(daemons: tuple[Daemon, Daemon]) -> None:
    one, two = daemons
    engine = one.engine
    image = provide_small_exapp(engine)
    with one.app(App("kept", image, port=23121)) as app, two.app(App("kept", image, port=23121)) as other:
        one.appapi.deploy(app)
        assert engine.execute(app.container, "sh", "-c", f"echo precious > /{app.volume}/marker")[0] == 0
        one.appapi.remove(app, data=False).ok(204)
        assert two.appapi.create(other).status == 409
        assert two.appapi.remove(other, data=True).status == 409
        one.appapi.deploy(app)
        assert engine.execute(app.container, "cat", f"/{app.volume}/marker") == (0, "precious\n")


def test_what_was_there_before_us_is_adopted(daemons: tuple[Daemon, Daemon]) -> None:
    one, _ = daemons
    image = provide_small_exapp(one.engine)
    with one.app(App("old", image, port=23122)) as app:
        one.engine.call("POST", "/volumes/create", {"Name": app.volume}).ok(201)
        one.engine.create(app.container, image)
        assert one.appapi.exists(app)["exists"] is True
        one.appapi.deploy(app)
        one.appapi.remove(app, data=True).ok(204)
        assert one.engine.call("GET", f"/volumes/{app.volume}").status == 404
