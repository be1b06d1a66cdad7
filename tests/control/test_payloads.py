"""What is wrong with a body, in words that name the field and never its value."""

from __future__ import annotations

import pytest

from harp.control.payloads import describe


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("Expected `int`, got `str` - at `$.port`", "port: Expected int, got str"),
        ("Expected `str`, got `null` - at `$.routes[0].url`", "routes[0].url: Expected str, got null"),
        ("Object missing required field `host`", "host: field required"),
        ("Object missing required field `url` - at `$.routes[1]`", "routes[1].url: field required"),
        ("Expected `object`, got `array`", "body: Expected object, got array"),
        ("Invalid enum value 'hunter2' - at `$.mode`", "mode: not one of the allowed values"),
    ],
)
def test_a_message_names_the_field_first(error: str, text: str) -> None:
    assert describe(error) == text
