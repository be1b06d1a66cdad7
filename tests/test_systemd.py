"""The units are such that systemd takes them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.live.peers import path_of

UNITS = Path(__file__).parents[1] / "deploy" / "systemd"


def test_systemd_understands_every_line_of_the_units(tmp_path: Path) -> None:
    program = tmp_path / "harp"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in UNITS.iterdir():
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/harp/bin/harp", str(program)))
    units = [str(tmp_path / unit.name) for unit in UNITS.iterdir()]
    argv = [path_of("systemd", "systemd-analyze"), "verify", "--man=no", *units]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert "harp.service:" not in done.stderr, done.stderr
    assert "harp.socket:" not in done.stderr, done.stderr
