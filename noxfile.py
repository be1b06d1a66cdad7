"""Runs the tests without peers on every Python that HaRP supports: `pipx run nox`.

Interpreters that are not installed are skipped. `pipx run nox -s tests-3.13 -- tests/wire` runs one session and a part.
"""

from __future__ import annotations

import nox

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]  # as in pyproject.toml and .github/workflows/ci.yml: a test compares them

nox.options.error_on_missing_interpreters = False
nox.options.envdir = ".cache/nox"


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Install what requirements.lock pins, and run the tests."""
    pins = {"PIP_CONSTRAINT": "requirements.lock", "PIP_BUILD_CONSTRAINT": "requirements.lock"}
    session.install("--editable", ".[dev]", env=pins)
    session.run(
        "python", "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", *(session.posargs or ["--ignore=tests/live"])
    )
