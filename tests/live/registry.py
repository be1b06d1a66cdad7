"""A registry of images: Debian's docker-registry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.live.peers import path_of
from tests.live.processes import Process, free_port

CONFIG = """\
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {directory}}}}}
http: {{addr: "127.0.0.1:{port}", secret: tests}}
"""


@contextmanager
def running_registry(directory: Path) -> Iterator[str]:
    """The address of a registry; engines accept one on loopback without TLS."""
    port = free_port()
    config = directory / "config.yml"
    config.write_text(CONFIG.format(directory=directory / "data", port=port))
    argv = [path_of("docker-registry", "docker-registry"), "serve", str(config)]
    with Process(argv, directory / "log", env={}) as process:
        process.until_listening(port)
        yield f"127.0.0.1:{port}"
