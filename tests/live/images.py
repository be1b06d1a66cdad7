"""Images built from this checkout on the tests' engine: HaRP itself, and ExApps with stock frpc and with our client.

Built with the engine's own builder, without registry and without network: wheels come from `.cache/images`.
"""

from __future__ import annotations

import fcntl
import os
import platform
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from tests.live.engine import Engine, Podman, private_engine
from tests.live.frp import EXAPP_VERSION, frpc
from tests.live.peers import find, path_of
from tests.live.trees import CACHE, DEBIAN, busybox_tree, provide_busybox, provide_debian, tar_of

ROOT = Path(__file__).parents[2]
HARP_IMAGE = "harp-test/harp:1"
SMALL_EXAPP = "harp-test/exapp-small:1"  # busybox, one static program, frpc and our start script
PYTHON_EXAPP = "harp-test/exapp-python:1"  # Debian, Python, our tunnel client, a user without rights
GOSU_EXAPP = "harp-test/exapp-gosu:1"  # Debian, frpc and our start script as root, the app as a plain user
STATIC_EXAPP = "harp-test/exapp-static:1"  # one program and nothing else
CHECKOUT = (
    "pyproject.toml",
    "requirements.lock",
    "README.md",
    "LICENSE",
    "healthcheck.sh",
    "Dockerfile",
    "src",
    "compiled",
)
OFFLINE = {"BASE": DEBIAN, "PIP_ARGS": "--no-index --find-links=/build/wheels"}
# What wheels for Debian 12 are called, the newest first.
OF_DEBIANS_PYTHON = ("async-timeout>=4.0.3",)  # which redis wants before 3.11.3, and pip here does not know of
MANYLINUX = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux_2_5", "manylinux1")

PYTHON_DOCKERFILE = f"""\
FROM {DEBIAN}
COPY --from={HARP_IMAGE} /opt/harp /opt/harp
ENV PATH=/opt/harp/bin:$PATH
COPY main.py /app/main.py
WORKDIR /app
USER app
ENTRYPOINT ["harp", "exapp", "--"]
CMD ["python3", "main.py"]
"""
GOSU_DOCKERFILE = f"""\
FROM {DEBIAN}
COPY frpc /usr/local/bin/frpc
COPY start.sh /start.sh
COPY main.py /app/main.py
WORKDIR /app
ENTRYPOINT ["/start.sh", "setpriv", "--reuid=app", "--regid=app", "--clear-groups", "python3", "main.py"]
"""


def provide_harp(engine: Engine) -> str:
    """Our own image, made with the Dockerfile, by this engine or by another one of the same files. Its name."""
    if not engine.has_image(HARP_IMAGE):
        with _one_at_a_time():
            archive = _harp_archive()
            if archive.exists():
                with archive.open("rb") as content:
                    engine.load(content)
            else:
                _build_harp(engine, archive)
    return HARP_IMAGE


def harp_archive() -> Path:
    """Our own image, made with the Dockerfile on an engine of its own, unless another one has made it."""
    with _one_at_a_time():
        archive = _harp_archive()
        if not archive.exists():
            with private_engine() as engine:
                _build_harp(engine, archive)
    return archive


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Suites on Docker and on Kubernetes want the image at the same time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "harp.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _harp_archive() -> Path:
    """Where the image is kept, once it has been made of what is in the checkout now."""
    files = [file for name in CHECKOUT for file in sorted([ROOT / name, *(ROOT / name).rglob("*")]) if file.is_file()]
    files = [file for file in files if file.suffix != ".pyc"]
    content = b"".join(
        f"{file.relative_to(ROOT)} {file.stat().st_size}\n".encode() + file.read_bytes() for file in files
    )
    return CACHE / f"harp-{sha256(content + b''.join(map(Path.read_bytes, compiled_wheels()))).hexdigest()[:16]}.tar"


def _build_harp(engine: Engine, archive: Path) -> None:
    provide_debian(engine)
    files: dict[str, bytes | Path | str] = {name: ROOT / name for name in CHECKOUT}
    compiled: dict[str, bytes | Path | str] = {f"wheels/{wheel.name}": wheel for wheel in compiled_wheels()}
    engine.build(HARP_IMAGE, tar_of({**files, "wheels": wheels(), **compiled}), OFFLINE)
    unfinished = archive.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(engine.call("GET", f"/images/{HARP_IMAGE}/get", timeout=300).ok(200).body)
    unfinished.replace(archive)
    for older in CACHE.glob("harp-*.tar"):
        if older != archive:
            older.unlink(missing_ok=True)


def provide_small_exapp(engine: Engine) -> str:
    """An ExApp on busybox as authors write it: frpc, start script, app. Its name."""
    if not engine.has_image(SMALL_EXAPP):
        dockerfile = f"""\
FROM {provide_busybox(engine)}
COPY frpc hello /bin/
COPY start.sh /start.sh
ENTRYPOINT ["/start.sh", "hello"]
"""
        engine.build(
            SMALL_EXAPP,
            tar_of(
                {
                    "Dockerfile": dockerfile,
                    "frpc": Path(frpc(EXAPP_VERSION)).read_bytes(),
                    "hello": static_program().read_bytes(),
                    "start.sh": (ROOT / "exapp/start.sh").read_bytes(),
                }
            ),
        )
    return SMALL_EXAPP


def provide_podman_exapp(podman: Podman) -> str:
    """The ExApp on busybox, imported as a whole. Its name as podman has it."""
    reference = f"localhost/{SMALL_EXAPP}"
    if not podman.has_image(reference):
        tree = busybox_tree() | {
            "bin/frpc": Path(frpc(EXAPP_VERSION)).read_bytes(),
            "bin/hello": static_program().read_bytes(),
            "start.sh": (ROOT / "exapp/start.sh").read_bytes(),
        }
        podman.import_image(reference, tar_of(tree), 'ENTRYPOINT ["/start.sh", "hello"]', "ENV PATH=/bin")
    return reference


def provide_gosu_exapp(engine: Engine) -> str:
    """An ExApp on Debian whose tunnel client runs as root and whose app does not. Its name."""
    if not engine.has_image(GOSU_EXAPP):
        provide_debian(engine)
        engine.build(
            GOSU_EXAPP,
            tar_of(
                {
                    "Dockerfile": GOSU_DOCKERFILE,
                    "frpc": Path(frpc(EXAPP_VERSION)).read_bytes(),
                    "start.sh": (ROOT / "exapp/start.sh").read_bytes(),
                    "main.py": (ROOT / "exapp/sample/main.py").read_bytes(),
                }
            ),
        )
    return GOSU_EXAPP


def provide_python_exapp(engine: Engine) -> str:
    """An ExApp in Python with our own tunnel client, as a plain user. Its name."""
    if not engine.has_image(PYTHON_EXAPP):
        provide_harp(engine)
        provide_debian(engine)
        files: dict[str, bytes | Path | str] = {
            "Dockerfile": PYTHON_DOCKERFILE,
            "main.py": (ROOT / "exapp/sample/main.py").read_bytes(),
        }
        engine.build(PYTHON_EXAPP, tar_of(files))
    return PYTHON_EXAPP


def provide_static_exapp(engine: Engine) -> str:
    """An ExApp of one static program on nothing. It has no tunnel client. Its name."""
    if not engine.has_image(STATIC_EXAPP):
        engine.import_image(STATIC_EXAPP, tar_of({"hello": static_program().read_bytes()}), 'ENTRYPOINT ["/hello"]')
    return STATIC_EXAPP


def static_program() -> Path:
    """tests/live/exapp as a static program, from the cache or built with Go."""
    source = ROOT / "tests/live/exapp/main.go"
    program = CACHE / f"hello-{sha256(source.read_bytes()).hexdigest()[:12]}"
    if not program.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = program.with_suffix(f".{os.getpid()}")
        subprocess.run(
            [_go(), "build", "-trimpath", "-ldflags", "-s -w", "-o", str(unfinished), str(source)],
            check=True,
            env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "local"},
        )
        unfinished.replace(program)
    return program


def _go() -> str:
    """The system's Go, or the one that `make frp` has fetched. Any version will do."""
    return find("go") or path_of("Go", str(ROOT / ".cache/go/bin/go"))


def compiled_wheels() -> list[Path]:
    """What `make core` has built, if that fits Debian 12."""
    system = Path("/etc/os-release").read_text()
    fits = sys.version_info[:2] == (3, 11) and "\nID=debian\n" in system and '\nVERSION_ID="12"\n' in system
    return sorted((ROOT / ".cache/wheels").glob("*.whl")) if fits else []


def wheels() -> Path:
    """A directory with the wheels of all that HaRP needs, for Debian 12's Python; downloaded when the lock changes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"], *OF_DEBIANS_PYTHON]
    lock = ROOT / "requirements.lock"
    directory = CACHE / f"wheels-{sha256(lock.read_bytes() + repr(wanted).encode()).hexdigest()[:12]}"
    if directory.exists():
        return directory
    CACHE.mkdir(parents=True, exist_ok=True)
    machine = platform.machine()
    with tempfile.TemporaryDirectory(dir=CACHE) as unfinished:
        options = ["--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "--dest", unfinished]
        target = ["--python-version", "3.11", "--implementation", "cp"]
        target += [option for name in MANYLINUX for option in ("--platform", f"{name}_{machine}")]
        pip = [sys.executable, "-m", "pip", "download", *options, *target, "--constraint", str(lock)]
        subprocess.run([*pip, *wanted], check=True)
        done = Path(unfinished) / "done"
        done.mkdir()
        for wheel in Path(unfinished).glob("*.whl"):
            wheel.rename(done / wheel.name)
        with suppress(OSError):  # another process was faster, with the same wheels
            done.rename(directory)
    return directory
