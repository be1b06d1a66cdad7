"""What a release changes, and when there can be none."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import harp

ROOT = Path(__file__).parent.parent
CHANGED = {
    "CHANGELOG.md",
    "Dockerfile",
    "deploy/helm/harp/Chart.yaml",
    "deploy/kubernetes/base/harp.yaml",
    "deploy/kubernetes/example/kustomization.yaml",
    "docs/kubernetes-install.md",
    "src/harp/__init__.py",
}


def git(at: Path, *words: str) -> str:
    who = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.com"]
    return subprocess.run(["git", *who, *words], cwd=at, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository with the files that a release looks at, and something to release."""
    for name in CHANGED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n- Faster.\n\n## 0.5.0\n\n- First.\n")
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "All")
    return tmp_path


def release(at: Path, version: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(ROOT / "scripts" / "release.py"), version]
    return subprocess.run(argv, cwd=at, capture_output=True, text=True, timeout=30, check=False)


def test_without_go_a_release_says_what_it_would_do_and_changes_nothing(repository: Path) -> None:
    done = release(repository, "99.0.0")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"HaRP {harp.__version__} -> 99.0.0" in done.stdout
    assert "- Faster." in done.stdout
    assert "- First." not in done.stdout
    named = re.search(r"^files: (.+)$", done.stdout, re.MULTILINE)
    assert named is not None
    assert set(named[1].split()) == CHANGED
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "tag", "--list") == ""


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("1.0", "1.0 is not a version"),
        (harp.__version__, "is not newer"),
        ("0.0.9", "0.0.9 is not newer"),
    ],
)
def test_a_version_has_three_numbers_and_is_newer(repository: Path, version: str, reason: str) -> None:
    done = release(repository, version)
    assert done.returncode == 1
    assert reason in done.stderr


def test_there_is_no_release_of_what_is_not_committed(repository: Path) -> None:
    (repository / "src/harp/more.py").write_text("")
    assert "not committed" in release(repository, "99.0.0").stderr


def test_a_tag_is_given_once(repository: Path) -> None:
    git(repository, "tag", "v99.0.0")
    assert "the tag v99.0.0 exists" in release(repository, "99.0.0").stderr


def test_releases_are_made_on_main(repository: Path) -> None:
    git(repository, "switch", "--quiet", "--create", "other")
    assert "this is other" in release(repository, "99.0.0").stderr


def test_there_is_no_release_without_changes(repository: Path) -> None:
    (repository / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n## 0.5.0\n\n- First.\n")
    assert "nothing under Unreleased" in release(repository, "99.0.0").stderr


@pytest.mark.parametrize(
    ("release", "chart"), [("0.5.1", "0.1.1"), ("0.6.0", "0.2.0"), ("0.7.3", "0.2.0"), ("1.0.0", "1.0.0")]
)
def test_the_version_of_the_chart_moves_as_far_as_that_of_harp(release: str, chart: str) -> None:
    moved = runpy.run_path(str(ROOT / "scripts" / "release.py"))["with_chart_version"]
    text = "version: 0.1.0\nappVersion: x\n"
    assert moved(text, "0.5.0", release) == f"version: {chart}\nappVersion: x\n"


def test_wheels_are_built_for_both_architectures_and_both_c_libraries() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    built = workflow["jobs"]["wheels"]["strategy"]["matrix"]
    assert built["machine"] == ["amd64", "arm64"]
    assert [name.partition("linux")[0] for name in built["libc"]] == ["many", "musl"]


def test_the_pythons_that_are_promised_are_those_that_are_tested() -> None:
    promised = re.findall(r"Python :: (3\.\d+)\"", (ROOT / "pyproject.toml").read_text())
    assert promised[0] == "3.11"
    for file in ("noxfile.py", ".github/workflows/ci.yml"):
        listed = re.search(r"\[(\"3\.11\".*)\]", (ROOT / file).read_text())
        assert listed is not None
        assert re.findall(r"3\.\d+", listed[1]) == promised, file
