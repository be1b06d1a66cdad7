"""What a release uploads: sdist and wheel as a package index takes them."""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

import harp
from tests.live.peers import do_without

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".cache/exapp-servers/venv/bin/python"  # what scripts/install-exapp-servers has made


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [str(PYTHON), "-m", *arguments]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not PYTHON.exists() or run("twine", "--version").returncode:
        do_without("no twine: run scripts/install-exapp-servers")
    into = tmp_path_factory.mktemp("dist")
    done = run("hatchling", "build", "--directory", str(into))
    assert done.returncode == 0, done.stdout + done.stderr
    return into


def test_a_package_index_can_show_what_we_write(built: Path) -> None:
    done = run("twine", "check", "--strict", *map(str, sorted(built.iterdir())))
    assert (done.returncode, done.stdout.count("PASSED")) == (0, 2), done.stdout + done.stderr


def test_the_wheel_has_all_that_runs_and_no_tests(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (about,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = message_from_string(archive.read(about).decode())
        (entries,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
        assert "harp = harp.__main__:main" in archive.read(entries).decode()
    source = ROOT / "src"
    wanted = {path.relative_to(source).as_posix() for path in (source / "harp").rglob("*") if path.is_file()}
    assert {name for name in wanted if "__pycache__" not in name} <= names
    assert not [name for name in names if not name.startswith(("harp/", "appapi_harp-"))]
    assert metadata["Version"] == harp.__version__
    assert {"otel"} <= set(metadata.get_all("Provides-Extra", []))
    pythons = {line.rpartition(" ")[2] for line in metadata.get_all("Classifier", []) if ":: 3." in line}
    assert pythons == {"3.11", "3.12", "3.13", "3.14"}


def test_the_sdist_has_what_its_wheel_is_made_of(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "src/harp/__main__.py"} <= names
    assert not [name for name in names if name.startswith((".cache", ".venv", "dist/"))]


def test_the_image_names_the_version_that_is_in_it() -> None:
    assert f'org.opencontainers.image.version="{harp.__version__}"' in (ROOT / "Dockerfile").read_text("utf-8")
