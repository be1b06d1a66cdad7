"""A Debian that has been booted: systemd as the first process of a container, over this machine's own root directory.

What is written in it is gone afterwards. It has no network.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.live.engine import PODMAN
from tests.live.peers import do_without, path_of, require

NAME = "booted"
PATIENCE = 120.0  # seconds, for a boot as for a command
FRESH = ("tmp", "run", "var/tmp", "var/log", "etc/systemd/system")  # nothing of this machine is in them


@dataclass(frozen=True, slots=True)
class Booted:
    """The running container."""

    podman: Sequence[str]
    environment: dict[str, str]

    def call(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command of podman."""
        command = [*self.podman, *argv]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    def run(self, text: str, at: str = "/") -> str:
        """Run a block of shell as root. What it printed; fails with that."""
        done = self.call("exec", "--workdir", at, NAME, "bash", "-euo", "pipefail", "-c", text)
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    def until(self, text: str, words: str) -> None:
        """Run a block again and again until these words are in what it prints."""
        end = time.monotonic() + PATIENCE
        while words not in (done := self.call("exec", NAME, "bash", "-c", text)).stdout:
            assert time.monotonic() < end, f"{text}\n{done.stdout}{done.stderr}"
            time.sleep(0.2)


@contextmanager
def booted_debian(*volumes: str) -> Iterator[Booted]:
    """A booted Debian in the block. `volumes` are those of `podman run`. Skips, or fails in CI, where none can boot."""
    program, systemd = path_of("podman", "podman"), "/lib/systemd/systemd"
    require("systemd", systemd)
    if os.geteuid() != 0:
        do_without("a container that boots needs root here")
    directory = Path(tempfile.mkdtemp(prefix="harp-booted-"))  # podman wants short paths
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    (directory / "containers.conf").write_text(PODMAN.format(directory=directory, files=min(files, 1 << 20)))
    environment = {
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        "HOME": str(directory),
        "CONTAINERS_CONF": str(directory / "containers.conf"),
    }
    places = ["--root", str(directory / "root"), "--runroot", str(directory / "runroot"), "--storage-driver", "vfs"]
    booted = Booted([program, *places], environment)
    mounts = [option for volume in volumes for option in ("--volume", volume)]
    options = ["--privileged", "--systemd=always", "--network=none", *mounts]
    try:
        with _overlay(directory / "layers") as root:
            started = booted.call("run", "--detach", "--name", NAME, *options, "--rootfs", str(root), systemd)
            try:
                if started.returncode:
                    do_without(f"no container can boot here: {started.stderr}")
                booted.until("systemctl is-system-running | grep -Ex 'running|degraded' && echo booted", "booted")
                yield booted
            finally:
                booted.call("rm", "--force", "--time", "2", NAME)
    finally:
        shutil.rmtree(directory)


@contextmanager
def _overlay(layers: Path) -> Iterator[Path]:
    """This machine's root directory, with a layer in memory for what is written."""
    layers.mkdir()
    mount, umount = path_of("mount", "mount"), path_of("mount", "umount")
    root = layers / "rootfs"
    subprocess.run([mount, "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(layers)], check=True)
    try:
        for name in (*(f"upper/{fresh}" for fresh in FRESH), "work", "rootfs"):
            (layers / name).mkdir(parents=True)
        for fresh in FRESH:
            os.setxattr(layers / "upper" / fresh, "trusted.overlay.opaque", b"y")
            if fresh.endswith("tmp"):
                (layers / "upper" / fresh).chmod(0o1777)
        options = f"lowerdir=/,upperdir={layers}/upper,workdir={layers}/work"
        subprocess.run([mount, "-t", "overlay", "-o", options, "overlay", str(root)], check=True)
        try:
            yield root
        finally:
            subprocess.run([umount, "--lazy", str(root)], check=True)
    finally:
        subprocess.run([umount, "--lazy", str(layers)], check=True)
