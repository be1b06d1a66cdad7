"""The process that forks workers, where the system gives it none."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

PATIENCE = 20.0  # seconds
NOBODY = 65534

# As `harp.forker.main` runs it, but where no process may be added: a limit that root is exempt from.
LIMITED = f"""
import os, resource, socket, sys
from harp.forker import ForkingProcess
if not os.geteuid():
    os.setuid({NOBODY})
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
ForkingProcess(socket.socket(fileno=int(sys.argv[1])), [], lambda post: None).run()
"""


def test_a_worker_that_the_system_refuses_is_told_of_and_the_forker_goes_on() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(PATIENCE)
    with (
        ours,
        subprocess.Popen([sys.executable, "-c", LIMITED, str(theirs.fileno())], pass_fds=[theirs.fileno()]) as forker,
    ):
        theirs.close()
        for order in (1, 2):
            end, passed = socket.socketpair()
            with end, passed:
                socket.send_fds(ours, [json.dumps({"fork": order, "post": {}}).encode()], [passed.fileno()])
            answer = json.loads(ours.recv(1000))
            assert answer == {"refused": order, "reason": "Resource temporarily unavailable"}
        ours.close()
        assert forker.wait(PATIENCE) == 0
