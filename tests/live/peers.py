"""Programs beside us in a live test: found, or the test says what to install.

Without a peer a test skips. With HARP_PEERS=required in the environment, as in CI, it fails: there, a skip would
hide that nothing was proved.
"""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"  # Debian keeps servers there, outside a plain user's PATH


def find(program: str) -> str | None:
    """The program's full path, or None. A name with a slash is taken as a path."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}")


def require(peer: str, *programs: str) -> None:
    """Skip (or fail, see above) when one of the programs is missing. `peer` says what to install, for people."""
    missing = [program for program in programs if find(program) is None]
    if not missing:
        return
    do_without(f"{', '.join(missing)} not found: install {peer} (scripts/install-peers, make frp, make kubernetes)")


def do_without(reason: str) -> NoReturn:
    """Skip (or fail, see above), because this machine lacks what a test needs."""
    if os.environ.get("HARP_PEERS") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


def path_of(peer: str, program: str) -> str:
    """The program's full path; skips or fails like `require`."""
    require(peer, program)
    found = find(program)
    assert found is not None
    return found
