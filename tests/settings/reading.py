"""Settings as tests read them: with the least that is required."""

from __future__ import annotations

from harp.settings import Reading, Settings, examine, load

KEY = "correct horse battery staple"

URL = "https://cloud.example.com"

LEAST = {"HP_SHARED_KEY": KEY, "NC_INSTANCE_URL": URL}


def settings(**variables: str) -> Settings:
    return load(LEAST | variables)


def reading(**variables: str) -> Reading:
    return examine(LEAST | variables)


def problem(**variables: str) -> str:
    """The one problem that these variables have."""
    problems = reading(**variables).problems
    assert len(problems) == 1, problems
    return problems[0]


def warning(**variables: str) -> str:
    """The one warning that these variables give."""
    result = reading(**variables)
    assert result.problems == ()
    assert len(result.warnings) == 1, result.warnings
    return result.warnings[0]
