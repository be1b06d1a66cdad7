"""Compile modules of ./src, whose files are the arguments, to ./out, from source that native.py has rewritten."""

from __future__ import annotations

import os
import re
import sys
from functools import partial
from pathlib import Path

from mypyc.build import mypycify
from native import native
from setuptools import Distribution
from setuptools.command.build_ext import build_ext

# In place of those that Python was built with: without its first two, asserts stay and overflows are undefined.
# Small: what is loaded counts as memory of each process, however little of it is used.
FLAGS = {
    "CFLAGS": "-DNDEBUG -fwrapv -fvisibility=hidden -fno-asynchronous-unwind-tables -fno-unwind-tables"
    " -ffunction-sections -fdata-sections",
    "LDFLAGS": "-s -Wl,--gc-sections",
}
# Where the compiler's C says which line it is from: file, function and perhaps more names, line.
TRACED = re.compile(r'("(src/[^"]+\.py)", (?:"[^"]*", )+)(\d+)')
SETTINGS = """\
[mypy]
mypy_path = src
ignore_missing_imports = true
"""


def main(modules: list[str]) -> None:
    """Compile them."""
    origins: dict[str, dict[int, int]] = {}
    for module in modules:
        file = Path("src", module)
        source, origins[str(file)] = native(file.read_text())
        file.write_text(source)
    Path("mypy.ini").write_text(SETTINGS)
    os.environ.update(FLAGS)
    extensions = mypycify(["--config-file=mypy.ini", *origins], opt_level="2", debug_level="0", multi_file=True)
    for file in Path("build").rglob("*.c"):
        file.write_text(TRACED.sub(partial(_located, origins), file.read_text()))
    command = build_ext(Distribution({"name": "harp", "ext_modules": extensions}))
    command.build_lib, command.build_temp = "out", "temporary"
    command.ensure_finalized()
    command.run()


def _located(origins: dict[str, dict[int, int]], found: re.Match[str]) -> str:
    """What tracebacks show: the line of the source as it is in the repository."""
    start, file, line = found.groups()
    return f"{start}{origins.get(file, {}).get(int(line), line)}"


if __name__ == "__main__":
    main(sys.argv[1:])
