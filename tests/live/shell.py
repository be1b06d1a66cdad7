"""Code that people paste into a shell, run in one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.fakes.environment import bare
from tests.live.peers import path_of

BIN = Path(sys.executable).parent  # where `harp` is
PATIENCE = 120.0  # seconds for one block


def script(text: str, at: Path, path: Path = BIN, /, **environment: str) -> str:
    """Run a block in a shell that ends at the first error. What it printed; fails with that."""
    env = bare(**{"HOME": str(at), **environment}) | {"PATH": f"{path}:{BIN}:{os.environ['PATH']}"}
    argv = [path_of("bash", "bash"), "-euo", "pipefail", "-c", text]
    run = subprocess.run(argv, cwd=at, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert run.returncode == 0, f"{text}\n{run.stdout}{run.stderr}"
    return run.stdout


def executable(file: Path, text: str) -> Path:
    """Write a program in shell. Its path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file
