"""Build wheels in which a request's way is compiled by mypyc: HARP_COMPILE=yes asks for that; README.md tells why.

A hook of Hatchling. It compiles the modules that pyproject.toml names, from a copy of the source in which Structs are
native classes (native.py), and puts what comes out beside the modules: Python prefers it, and without it nothing else
changes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPILE = Path(__file__).with_name("compile.py")
COMPILER = ["mypy>=1.18", "setuptools"]


class CompiledWheel(BuildHookInterface[Any]):
    """Adds the compiled modules to a wheel."""

    PLUGIN_NAME = "custom"

    @property
    def _wanted(self) -> bool:
        return os.environ.get("HARP_COMPILE") == "yes"

    def dependencies(self) -> list[str]:
        """Return what the build needs: the compiler reads the types of the libraries, too."""
        return [*COMPILER, *self.metadata.core.dependencies] if self._wanted else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile."""
        if not self._wanted or version == "editable":
            return
        self._place = Path(mkdtemp(prefix="harp-compiled-"))
        shutil.copytree(Path(self.root) / "src", self._place / "src")
        modules = [module.replace(".", "/") + ".py" for module in self.config["modules"]]
        subprocess.run([sys.executable, COMPILE, *modules], cwd=self._place, check=True)
        for library in (self._place / "out").rglob("*.so"):
            build_data["force_include"][str(library)] = str(library.relative_to(self._place / "out"))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Clean up."""
        if self._wanted and version != "editable":
            shutil.rmtree(self._place)
