"""Names of images, as registries and engines take them."""

from __future__ import annotations

import re

LONGEST_NAME = 512  # characters

# The grammar of Docker's references, with capital letters where only engines refuse them: a registry, a path whose
# parts begin and end with a letter or digit, a tag, a digest. So no part is "..", and no transport of podman's fits.
_PART = r"[A-Za-z0-9]+(?:[._-]+[A-Za-z0-9]+)*"
_NAME = re.compile(
    rf"(?:{_PART}(?::[0-9]{{1,5}})?/)?{_PART}(?:/{_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[+._-][A-Za-z][A-Za-z0-9]*)*:[0-9A-Fa-f]+)?"
)


def is_image(text: str) -> bool:
    """Return whether `text` can be the name of an image."""
    return 0 < len(text) <= LONGEST_NAME and _NAME.fullmatch(text) is not None
