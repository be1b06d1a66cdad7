"""The command `docker` of a reader, for the tests' engine."""

from __future__ import annotations

import time
from pathlib import Path

from tests.live.engine import Engine
from tests.live.images import provide_harp
from tests.live.peers import path_of
from tests.live.shell import PATIENCE, executable, script


def docker(engine: Engine, at: Path) -> Path:
    """Return a folder with a `docker` that speaks to the engine, which has the image already.

    `docker compose` is Debian's docker-compose. Ports and the engine's socket are not those of the documentation.
    """
    program = path_of("docker.io", "docker")
    compose = path_of("docker-compose", "docker-compose")
    socket = engine.socket
    text = f"""export DOCKER_HOST=unix://{socket} DOCKER_CONFIG={at}
case $1 in
    build) shift; exec {program} tag {provide_harp(engine)} "$2" ;;
    compose) shift; exec {compose} "$@" ;;
esac
for word; do
    shift
    case $word in
        /var/run/docker.sock:*) word={socket}:${{word#*:}} ;;
        127.0.0.1:8780:8780) word=127.0.0.1::8780 ;;
    esac
    set -- "$@" "$word"
done
exec {program} "$@"
"""
    return executable(at / "bin/docker", text).parent


def eventually(text: str, at: Path, path: Path) -> None:
    """Run a block; what asks whether HaRP, which is just starting, serves may be asked again for a while."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            script(text, at, path)
        except AssertionError:
            if "harp health" not in text or time.monotonic() > end:
                raise
            time.sleep(0.5)
        else:
            return
