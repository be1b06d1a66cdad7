"""Says what this kernel lacks for the suites on a real Kubernetes: `python -m tests.live.kubernetes.probe`.

Exits with 0 when it lacks nothing. Programs are no matter of the kernel: suites fail in CI where one was not installed.
"""

from __future__ import annotations

import sys

from tests.live.kubernetes import enclosure, node


def main() -> int:
    """Print what is lacking, a line for each layer."""
    status = 0
    for layer, lacking in (("the cluster", enclosure.lacking()), ("its real node", node.lacking())):
        if lacking:
            print(f"THE KERNEL LACKS what {layer} needs: {lacking}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
