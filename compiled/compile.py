"""Compile modules of ./src, whose files are the arguments, to ./out, from source that native.py has rewritten."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mypyc.build import mypycify
from native import native
from setuptools import Distribution
from setuptools.command.build_ext import build_ext

# Small: what is loaded counts as memory of each process, however little of it is used.
FLAGS = {
    "CFLAGS": "-fvisibility=hidden -fno-asynchronous-unwind-tables -fno-unwind-tables",
    "LDFLAGS": "-s",
}
SETTINGS = """\
[mypy]
mypy_path = src
ignore_missing_imports = true
"""


def main(modules: list[str]) -> None:
    """Compile them."""
    files = [Path("src", module) for module in modules]
    for file in files:
        file.write_text(native(file.read_text()))
    Path("mypy.ini").write_text(SETTINGS)
    os.environ.update(FLAGS)
    extensions = mypycify(["--config-file=mypy.ini", *map(str, files)], opt_level="2", debug_level="0", multi_file=True)
    command = build_ext(Distribution({"name": "harp", "ext_modules": extensions}))
    command.build_lib, command.build_temp = "out", "temporary"
    command.ensure_finalized()
    command.run()


if __name__ == "__main__":
    main(sys.argv[1:])
