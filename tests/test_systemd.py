"""The unit is one that systemd takes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.live.peers import path_of

UNIT = Path(__file__).parents[1] / "deploy" / "systemd" / "harp.service"


def test_systemd_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    program = tmp_path / "harp"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "harp.service"
    unit.write_text(UNIT.read_text().replace("/opt/harp/bin/harp", str(program)))
    argv = [path_of("systemd", "systemd-analyze"), "verify", "--man=no", str(unit)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert "harp.service:" not in done.stderr, done.stderr
