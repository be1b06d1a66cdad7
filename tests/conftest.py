"""What every test run says first."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

from tests.live.frp import BUILT, EXAPP_VERSION, NEWEST
from tests.live.peers import find

PEERS = {
    "nginx": "nginx",
    "Apache": "apache2",
    "Caddy": "caddy",
    "openssl": "openssl",
    **{f"frpc {version}": str(BUILT / version / "frpc") for version in (EXAPP_VERSION, NEWEST)},
}

settings.register_profile("ci", max_examples=10_000, deadline=None)  # HYPOTHESIS_PROFILE=ci: minutes instead of seconds
settings.register_profile("quick", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
# Whoever starts the tests may ignore these (nohup does); their children would, too, and a shell cannot undo it.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)


def pytest_report_header() -> str:
    """Which peers take part; tests of the others skip."""
    found = {peer: find(program) is not None for peer, program in PEERS.items()}
    present = ", ".join(peer for peer, here in found.items() if here) or "none"
    missing = ", ".join(peer for peer, here in found.items() if not here)
    return f"peers: {present}" + (f"; missing: {missing}" if missing else "")
