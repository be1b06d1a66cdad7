"""Make a release of the repository in the current directory: release.py VERSION [--go]

Without --go, say what would be done and change nothing. Nothing is ever published.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

VERSION = "src/harp/__init__.py"
CHANGELOG = "CHANGELOG.md"
CHART = "deploy/helm/harp/Chart.yaml"
NAMED = (
    "Dockerfile",
    "deploy/helm/harp/Chart.yaml",
    "deploy/kubernetes/base/harp.yaml",
    "deploy/kubernetes/example/kustomization.yaml",
    "docs/kubernetes-install.md",
)
UNRELEASED = "## Unreleased\n"
NUMBERS = re.compile(r"(\d+)\.(\d+)\.(\d+)").fullmatch


class NotReady(Exception):
    """Why there can be no release."""


def numbers(version: str) -> tuple[int, ...]:
    """Return the three numbers of a version. Raises NotReady."""
    found = NUMBERS(version)
    if found is None:
        raise NotReady(f"{version} is not a version: write MAJOR.MINOR.PATCH")
    return tuple(map(int, found.groups()))


def current_version(root: Path) -> str:
    """Return the version that the sources have now."""
    found = re.search(r'__version__ = "(.+)"', (root / VERSION).read_text("utf-8"))
    if found is None:
        raise NotReady(f"{VERSION} names no version")
    return found[1]


def changes(changelog: str) -> str:
    """Return what stands under "Unreleased". Raises NotReady when that is nothing."""
    _, heading, rest = changelog.partition(UNRELEASED)
    text = rest.partition("\n## ")[0].strip()
    if not heading or not text:
        raise NotReady(f"{CHANGELOG} has nothing under Unreleased")
    return text


def edits(root: Path, version: str, day: str) -> Mapping[Path, str]:
    """Return the files that a release changes, with their new content."""
    old = current_version(root)
    if numbers(version) <= numbers(old):
        raise NotReady(f"{version} is not newer than {old}")
    changelog = (root / CHANGELOG).read_text("utf-8")
    changes(changelog)
    dated = changelog.replace(UNRELEASED, f"{UNRELEASED}\n## {version} ({day})\n", 1)
    edited = {root / CHANGELOG: dated}
    for name in (VERSION, *NAMED):
        text = (root / name).read_text("utf-8")
        if old not in text:
            raise NotReady(f"{name} does not name {old}")
        edited[root / name] = re.sub(rf"(?<![\d.]){re.escape(old)}(?![\d.])", version, text)
    edited[root / CHART] = with_chart_version(edited[root / CHART], old, version)
    return edited


def with_chart_version(chart: str, old: str, new: str) -> str:
    """Return Chart.yaml with a version of its own that is as much newer as `new` is than `old`. Raises NotReady."""
    found = re.search(r"^version: (\S+)$", chart, re.MULTILINE)
    if found is None:
        raise NotReady(f"{CHART} has no version")
    part = next(
        place for place, (was, is_now) in enumerate(zip(numbers(old), numbers(new), strict=True)) if was != is_now
    )
    now = numbers(found[1])
    moved = ".".join(str(number + (place == part) if place <= part else 0) for place, number in enumerate(now))
    return chart.replace(found[0], f"version: {moved}")


def git(*words: str) -> str:
    """Run git in the current directory and return what it prints."""
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout.strip()


def check_repository(tag: str) -> None:
    """Raise NotReady unless everything is committed on main and the tag is free."""
    if git("status", "--porcelain"):
        raise NotReady("there are changes that are not committed")
    branch = git("rev-parse", "--abbrev-ref", "HEAD")
    if branch != "main":
        raise NotReady(f"releases are made on main, this is {branch}")
    if git("tag", "--list", tag):
        raise NotReady(f"the tag {tag} exists")


def build(into: Path) -> None:
    """Build sdist and wheel with the pinned backend, and the wheel of the compiled part where there is a cargo."""
    into.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        python = Path(scratch, "bin", "python")
        subprocess.run([sys.executable, "-m", "venv", scratch], check=True)
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--constraint", "requirements.lock", "hatchling"], check=True)
        subprocess.run([str(python), "-m", "hatchling", "build", "--directory", str(into)], check=True)
        if shutil.which("cargo"):
            built = {**os.environ, "CARGO_TARGET_DIR": str(Path.cwd() / ".cache" / "core")}  # not in core/
            subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(into), "./core"], check=True, env=built)
    describe(into)


def describe(into: Path) -> None:
    """Write the SBOM: what the new wheel brings with it, in the versions of requirements.lock."""
    (wheel,) = into.glob(f"appapi_harp-{current_version(Path.cwd())}-*.whl")
    with tempfile.TemporaryDirectory() as tools, tempfile.TemporaryDirectory() as installed:
        for place, wanted in ((tools, "cyclonedx-bom"), (installed, str(wheel))):
            subprocess.run([sys.executable, "-m", "venv", place], check=True)
            pip = [str(Path(place, "bin", "python")), "-m", "pip", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, "install", "--constraint", "requirements.lock", wanted], check=True)
        python = str(Path(installed, "bin", "python"))
        subprocess.run([python, "-m", "pip", "--quiet", "uninstall", "--yes", "setuptools", "pip"], check=True)
        bom = into / f"{wheel.name.removesuffix('.whl')}.cdx.json"
        made = [str(Path(tools, "bin", "cyclonedx-py")), "environment", "--pyproject", "pyproject.toml"]
        subprocess.run([*made, "--output-reproducible", "--output-file", str(bom), python], check=True)


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description="Make a release. Without --go, only say what would be done.")
    parser.add_argument("version", help="MAJOR.MINOR.PATCH")
    parser.add_argument("--go", action="store_true", help="do it: edit, commit, tag, build; publishes nothing")
    options = parser.parse_args()
    root, tag = Path.cwd(), f"v{options.version}"
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    try:
        edited = edits(root, options.version, day)
        check_repository(tag)
    except NotReady as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    print(f"HaRP {current_version(root)} -> {options.version}, {day}, tag {tag}")
    print("files:", *(str(path.relative_to(root)) for path in edited))
    print(f"changes:\n\n{changes((root / CHANGELOG).read_text('utf-8'))}\n")
    if not options.go:
        print("Nothing was changed. With --go: edit these files, commit, tag, build into dist/.")
        return 0
    for path, text in edited.items():
        path.write_text(text, "utf-8")
    git("commit", "--all", "--message", f"Release {options.version}")
    git("tag", "--annotate", tag, "--message", f"HaRP {options.version}")
    build(root / "dist")
    if "[project.urls]" not in (root / "pyproject.toml").read_text("utf-8"):
        print("pyproject.toml has no [project.urls]: nobody knows yet where this repository will be. Write them first.")
    print(f"""Look at dist/. To publish:
  git push origin main {tag}
  pipx run twine check --strict dist/*.whl dist/*.gz && pipx run twine upload dist/*.whl dist/*.gz
  docker build --tag appapi-harp:{options.version} .
To take it back instead: git tag --delete {tag} && git reset --hard HEAD~1""")
    return 0


if __name__ == "__main__":
    sys.exit(main())
