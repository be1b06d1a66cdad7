"""Base images without a registry: trees of Debian packages and single static programs."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.live.engine import Engine
from tests.live.peers import path_of

CACHE = Path(__file__).parents[2] / ".cache" / "images"
MIRROR = "http://deb.debian.org/debian"
DEBIAN = "harp-test/debian:12"  # Python 3.11, CA certificates, and the user `app`
BUSYBOX = "harp-test/busybox:1"  # says that it is Alpine, and has a CA bundle where Alpine has it
SCRATCH = "harp-test/scratch:1"  # nothing but one static program
DEBIAN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEBIAN_PACKAGES = ("python3", "python3-venv", "ca-certificates")
NEVER_NEEDED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/cache/apt", "var/lib/apt/lists")
APP_UID = 1000


# Images


def tar_of(files: Mapping[str, bytes | Path | str], *, owner: int = 0) -> bytes:
    """A tar in memory. Path -> content, a file or directory to take it from, or `-> target` for a link.

    What is a program (it begins with `#!` or as ELF) becomes executable. A path with "/" at its end is a directory
    for everybody, as /tmp is.
    """
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for name, value in files.items():
            if isinstance(value, Path):
                archive.add(value, name, filter=_plain)
                continue
            entry = tarfile.TarInfo(name.rstrip("/"))
            entry.uid = entry.gid = owner
            if name.endswith("/"):
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
                archive.addfile(entry)
                continue
            if isinstance(value, str) and value.startswith("-> "):
                entry.type, entry.linkname = tarfile.SYMTYPE, value.removeprefix("-> ")
                archive.addfile(entry)
                continue
            content = value.encode() if isinstance(value, str) else value
            entry.size = len(content)
            entry.mode = 0o755 if content.startswith((b"#!", b"\x7fELF")) else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return output.getvalue()


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """An entry of a directory as an image wants it: root's, and no compiled Python."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return None if "__pycache__" in entry.name else entry


def busybox() -> bytes:
    """The static program that all of the busybox image is made of."""
    return Path(path_of("busybox-static", "busybox")).read_bytes()


def busybox_tree() -> dict[str, bytes | Path | str]:
    """The files of the busybox image, for `tar_of`."""
    applets = subprocess.run(["busybox", "--list"], check=True, capture_output=True, text=True).stdout.split()
    return {
        "bin/busybox": busybox(),
        **{f"bin/{applet}": "-> busybox" for applet in applets if applet != "busybox"},
        "etc/os-release": 'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.20.0\n',
        "etc/passwd": f"root:x:0:0:root:/root:/bin/sh\napp:x:{APP_UID}:{APP_UID}:app:/:/bin/sh\n",
        "etc/group": f"root:x:0:\napp:x:{APP_UID}:\n",
        "etc/ssl/certs/ca-certificates.crt": "# the system's CAs\n",
        "usr/local/share/ca-certificates/": "",
        "tmp/": "",
    }


def provide_busybox(engine: Engine) -> str:
    """The busybox image, made at first use. Its name."""
    if not engine.has_image(BUSYBOX):
        engine.import_image(BUSYBOX, tar_of(busybox_tree()), 'CMD ["/bin/sh"]', "ENV PATH=/bin")
    return BUSYBOX


def provide_scratch(engine: Engine) -> str:
    """An image of one static program and nothing else. Its name."""
    if not engine.has_image(SCRATCH):
        engine.import_image(SCRATCH, tar_of({"busybox": busybox()}), 'CMD ["/busybox", "sleep", "3600"]')
    return SCRATCH


def provide_debian(engine: Engine) -> str:
    """The Debian image with Python, made at first use. Its name."""
    if not engine.has_image(DEBIAN):
        with debian_tree().open("rb") as tree:
            engine.import_image(DEBIAN, tree, 'CMD ["/bin/sh"]', f"ENV PATH={DEBIAN_PATH}")
    return DEBIAN


def debian_tree() -> Path:
    """Debian 12 as a tar, from the cache or made in about a minute."""
    tree = CACHE / "debian-12-python.tar"
    if not tree.exists():
        debootstrap = path_of("debootstrap", "debootstrap")
        CACHE.mkdir(parents=True, exist_ok=True)
        with (CACHE / "debian.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # engine and cluster want it at the same time
            if not tree.exists():
                _make_debian(debootstrap, tree)
    return tree


def _make_debian(debootstrap: str, tree: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="harp-debian-") as directory:
        root = Path(directory) / "root"
        include = f"--include={','.join(DEBIAN_PACKAGES)}"
        made = subprocess.run(
            [debootstrap, "--variant=minbase", include, "bookworm", str(root), MIRROR],
            check=False,
            capture_output=True,
            text=True,
        )
        assert made.returncode == 0, made.stdout[-4000:] + made.stderr[-2000:]
        for path in NEVER_NEEDED:
            shutil.rmtree(root / path, ignore_errors=True)
        with (root / "etc/passwd").open("a") as users:
            users.write(f"app:x:{APP_UID}:{APP_UID}:app:/tmp:/bin/sh\n")
        with (root / "etc/group").open("a") as groups:
            groups.write(f"app:x:{APP_UID}:\n")
        unfinished = tree.with_suffix(f".{os.getpid()}")
        subprocess.run(["tar", "-C", str(root), "-cf", str(unfinished), "."], check=True)
        unfinished.replace(tree)  # whole, or not there: other runs look for it as well
