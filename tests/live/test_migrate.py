"""`harp migrate` on a real engine: what it prints, typed in, replaces an old HaRP that runs there, and leads back."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.environment import bare
from tests.live.engine import Engine
from tests.live.images import provide_harp
from tests.live.peers import path_of
from tests.live.product import HARP

pytestmark = pytest.mark.timeout(300)  # the first test makes images

OLD_IMAGE = "ghcr.io/nextcloud/nextcloud-appapi-harp"
SECRET = "a key that must not be printed"


@pytest.fixture
def old(engine: Engine) -> Iterator[Engine]:
    """An engine with the old HaRP (its image stands for the other one) and an ExApp of docker-socket-proxy."""
    ours = provide_harp(engine)
    engine.call("POST", f"/images/{ours}/tag", query={"repo": OLD_IMAGE, "tag": "v0.4.4"}).ok(201)
    environment = [f"HP_SHARED_KEY={SECRET}", "NC_INSTANCE_URL=http://cloud.invalid", "HP_VERBOSE_START=0"]
    host = {"RestartPolicy": {"Name": "always"}, "Binds": ["harp-certs:/certs"]}
    engine.run("appapi-harp", f"{OLD_IMAGE}:v0.4.4", Env=environment, HostConfig=host)
    engine.create("nc_app_flow", ours, Env=["APP_ID=flow"])
    yield engine
    engine.clear()


def migrate(engine: Engine, *arguments: str) -> str:
    env = bare(HP_DOCKER_HOST=f"unix://{engine.socket}")
    argv = [*HARP, "migrate", *arguments]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=True).stdout


def typed(engine: Engine, directory: Path, commands: list[str]) -> None:
    """Type commands into a shell whose docker is that engine's."""
    env = {"PATH": os.environ["PATH"], "DOCKER_HOST": f"unix://{engine.socket}", "HOME": str(directory)}
    script = "set -e\n" + "\n".join(command for command in commands if not command.startswith("docker pull"))
    done = subprocess.run(["sh", "-c", script], env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_commands_replace_the_old_harp_and_lead_back(old: Engine, tmp_path: Path) -> None:
    path_of("docker.io", "docker")
    plan: Any = json.loads(migrate(old, "--json", "--image", provide_harp(old)))
    kinds = {one["name"]: one["kind"] for one in plan["found"]}
    assert kinds == {"appapi-harp": "old harp", "nc_app_flow": "exapp of socket proxy"}
    before = old.inspect("appapi-harp")
    moving = [command for step in plan["steps"][:3] for command in step["commands"]]
    typed(old, tmp_path, moving)
    after = old.inspect("appapi-harp")
    assert after["Id"] != before["Id"]
    assert after["State"]["Running"]
    assert f"HP_SHARED_KEY={SECRET}" in after["Config"]["Env"]
    assert after["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert [mount["Name"] for mount in after["Mounts"]] == ["harp-certs"]
    assert not old.inspect("appapi-harp-before")["State"]["Running"]
    typed(old, tmp_path, [command for step in plan["back"] for command in step["commands"]])
    again = old.inspect("appapi-harp")
    assert (again["Id"], again["State"]["Running"]) == (before["Id"], True)


def test_for_people_it_is_a_table_and_steps_without_secrets(old: Engine) -> None:
    text = migrate(old)
    assert SECRET not in text
    assert "1. Get the image" in text
    assert "occ app_api:app:register flow harp --wait-finish" in text
