"""Images without a registry, as archives such as `docker save` writes: one layer each, made of a tree of files."""

from __future__ import annotations

import io
import json
import os
import platform
import tarfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.live.images import HARP_IMAGE, static_program
from tests.live.trees import CACHE, busybox, tar_of

PAUSE = "localhost/harp-test/pause:1"  # holds a pod's network, and does nothing
EXAPP = "localhost/harp-test/exapp:1"  # tests/live/exapp
HARP = f"docker.io/{HARP_IMAGE}"  # as a node calls it
GOARCH = {"x86_64": "amd64", "aarch64": "arm64"}


def pause_archive() -> Path:
    return archive(PAUSE, tar_of({"busybox": busybox()}), Entrypoint=["/busybox", "sleep", "infinity"])


def exapp_archive() -> Path:
    """An ExApp of one static program, which does what its environment says: see tests/live/exapp/main.go."""
    return archive(EXAPP, tar_of({"exapp": static_program().read_bytes(), "tmp/": ""}), Entrypoint=["/exapp"])


def archive(reference: str, layer: bytes, **config: Any) -> Path:
    """Write an image of one layer into the cache. `config` in the words of an image's configuration."""
    path = CACHE / f"archive-{sha256(repr((reference, config)).encode() + layer).hexdigest()[:16]}.tar"
    if path.exists():
        return path
    image = {
        "architecture": GOARCH.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(layer).hexdigest()}"]},
    }
    described = json.dumps(image).encode()
    name = f"{sha256(described).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": [reference], "Layers": ["layer.tar"]}]
    _write(path, {name: described, "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()})
    return path


def _write(path: Path, files: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    with tarfile.open(unfinished, "w") as output:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            output.addfile(entry, io.BytesIO(content))
    unfinished.replace(path)  # whole, or not there: other runs look for it as well
