"""`harp run`: the gateway itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from harp.settings import examine, load

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """There are none: settings come from the environment, and the help names its variables."""
    names = ", ".join(value.name for value in examine({}).values)
    parser.epilog = f"Variables: {names}. `harp check` shows what is in effect, docs/configuration.md what they mean."


def main(options: argparse.Namespace) -> int:
    """Serve until asked to stop; return the exit code. Raises SettingsError."""
    return serve()


def serve() -> int:
    """Serve as `main` does, called before argparse is loaded, which takes a megabyte for as long as HaRP runs."""
    settings = load(os.environ)
    if settings.cluster is not None:
        from harp import replica  # noqa: PLC0415 - most need it not

        return replica.run(settings, settings.cluster)
    if settings.workers != 1:
        from harp.supervisor import supervise, workers_of  # noqa: PLC0415 - most need it not

        if (count := workers_of(settings)) > 1:
            return supervise(settings, count)
    from harp.serving import run  # noqa: PLC0415 - loads everything; wrong settings are reported without it

    return run(settings)
