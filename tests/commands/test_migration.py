"""The way from what was there before to this HaRP."""

from __future__ import annotations

import shlex
from itertools import pairwise

import pytest
from msgspec.structs import replace

from harp.commands.migration import EngineContainer, Kind, kind_of, plan_for
from harp.settings import examine

KNOWN = frozenset(value.name for value in examine({}).values)
OLD = EngineContainer(
    name="appapi-harp",
    image="ghcr.io/nextcloud/nextcloud-appapi-harp:v0.4.4",
    running=True,
    environment={
        "HP_SHARED_KEY": "a secret that is not shown",
        "NC_INSTANCE_URL": "https://cloud.example.com",
        "HP_TRUSTED_PROXY_IPS": "172.18.0.0/16, 10.0.0.1",
        "HP_VERBOSE_START": "0",
        "PATH": "/usr/bin",
    },
    ports=["127.0.0.1:8780:8780", "8782:8782"],
    mounts=["/srv/harp/certs:/certs", "/var/run/docker.sock:/var/run/docker.sock:ro"],
    networks=["nextcloud", "backup"],
    hostname="appapi-harp",
    restart="always",
)
PROXY = EngineContainer("nextcloud-appapi-dsp", "ghcr.io/nextcloud/nextcloud-appapi-dsp:release", True, {})
MOVING = EngineContainer("nc_app_flow", "ghcr.io/nextcloud/flow:1", True, {"APP_ID": "flow", "APP_PORT": "23000"})


def commands(*containers: EngineContainer) -> list[str]:
    plan = plan_for(containers, KNOWN, "appapi-harp:1", "harp")
    return [command for step in plan.steps for command in step.commands]


@pytest.mark.parametrize(
    ("container", "kind"),
    [
        (OLD, "old harp"),
        (replace(OLD, image="appapi-harp"), "harp"),
        (replace(OLD, name="nextcloud-aio-harp", image="ghcr.io/nextcloud-releases/aio-harp:latest"), "aio"),
        (PROXY, "socket proxy"),
        (MOVING, "exapp of socket proxy"),
        (replace(MOVING, environment={"HP_SHARED_KEY": "x"}), "exapp"),
        (EngineContainer("postgres", "postgres:16", True, {}), None),
    ],
)
def test_each_container_is_known_for_what_it_is(container: EngineContainer, kind: Kind | None) -> None:
    assert kind_of(container) == kind


def test_the_old_harp_is_put_aside_and_replaced_with_all_it_had() -> None:
    (run,) = (command for command in commands(OLD) if command.startswith("docker run"))
    words = shlex.split(run)
    options = list(pairwise(words))
    for option in (
        *(
            ("--name", "appapi-harp"),
            ("--hostname", "appapi-harp"),
            ("--restart", "always"),
            ("--network", "nextcloud"),
        ),
        *(("-p", "127.0.0.1:8780:8780"), ("-p", "8782:8782"), ("-v", "/srv/harp/certs:/certs")),
        *(("-e", "HP_TRUSTED_PROXY_IPS=172.18.0.0/16, 10.0.0.1"), ("-e", "HP_SHARED_KEY")),
    ):
        assert option in options
    assert "HP_VERBOSE_START" not in run
    assert "PATH=" not in run
    assert words[-1] == "appapi-harp:1"
    assert "docker network connect backup appapi-harp" in commands(OLD)
    assert "docker rename appapi-harp appapi-harp-before" in commands(OLD)


def test_nothing_is_removed_on_the_way_and_there_is_a_way_back() -> None:
    plan = plan_for([OLD, PROXY, MOVING], KNOWN, "appapi-harp", "harp")
    there = " ".join(command for step in plan.steps for command in step.commands)
    assert "docker rm" not in there
    assert "--rm-data" not in there
    (back,) = plan.back
    assert back.commands[-1] == "docker start appapi-harp"


def test_no_secret_is_in_the_plan() -> None:
    assert "a secret that is not shown" not in str(plan_for([OLD], KNOWN, "appapi-harp", "harp"))


def test_certificates_in_an_anonymous_volume_are_taken_along() -> None:
    (run,) = (command for command in commands(replace(OLD, mounts=[])) if command.startswith("docker run"))
    assert "--volumes-from appapi-harp-before" in run


def test_exapps_of_the_socket_proxy_are_registered_anew_one_by_one() -> None:
    told = commands(PROXY, MOVING)
    unregister = told.index("occ app_api:app:unregister flow")
    assert told[unregister + 1] == "occ app_api:app:register flow harp --wait-finish"
    assert told.index("docker stop nextcloud-appapi-dsp") > unregister


def test_where_everything_is_ours_there_is_nothing_to_do() -> None:
    plan = plan_for([replace(OLD, image="appapi-harp")], KNOWN, "appapi-harp", "harp")
    assert (len(plan.found), plan.steps) == (1, [])
