"""`harp` under cProfile: `python -m benchmarks.profiled <file> <arguments of harp>` writes the file as it ends."""

from __future__ import annotations

import cProfile
import os
import sys

from harp.__main__ import main


def run(path: str) -> None:
    """`harp` leaves by os._exit, past everything that would write the file."""
    profile, leave = cProfile.Profile(), os._exit

    def write_and_leave(status: int) -> None:
        profile.disable()
        profile.dump_stats(path)
        leave(status)

    os._exit = write_and_leave  # type: ignore[assignment]
    profile.runcall(main)


if __name__ == "__main__":
    file = sys.argv.pop(1)
    run(file)
