"""Find wordings that read translated, in Markdown and in docstrings, comments and messages of the program.

It prints each with its place and what to write instead, and exits with 1 if there is one. Code in Markdown is ignored.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = ("*.md", "docs/**/*.md", "exapp/**/*.md", "core/*.md")
PROGRAM = ("src/**/*.py",)
TESTS = ("tests/**/*.py",)

# An expression, and what to write instead.
EVERYWHERE = {
    r"\bso many (?!of\b|that\b)\w+": "N, or: the number of ...",
    r"\bin place of\b": "instead of, or: replacing",
    r"\banew\b": "again",
    r"\bis (?:not )?spoken here\b": "is (not) supported",
    r"\bholds an? (?:\w+ )?(?:character|name|password|slash)\b": "contains",
    r"\b(?:is|are) told as\b": "is reported as",
    r"\btakes (?:a quarter|a third|half) less\b": "uses N % less",
    r"\bgives? its memory back\b": "releases its memory",
    r"\bin order to\b": "to",
    r"\b(?:utili[sz]e|leverage)[sd]?\b": "use",
    r"\bplease note that\b": "say it",
    r"\bis no (?:amount|engine|error|mistake|number|plain|session|size line|trusted|work)\b": "is not a ...",
    r"\btold to stop\b": "asked to stop",
    r"\b(?:log|engine|cluster|proxies|variables?) tells?\b": "reports, or: says",
    r"\btells? the reason\b": "gives",
    r"\b(?:nothing|bits set|colon|sign) behind (?:the name|the port|its prefix)\b": "after",
    r"\bholds (?:no|more|several)\b": "contains",
    r"(?:;|,) the exit code\b": "return the exit code",
    r"\bsmall letters\b": "lower-case letters",
    r"\bin vain\b": "without success, or: for nothing",
    r"\bturned away\b": "banned, or: refused",
    r"\bas ever\b": "as usual, or: as before",
    r"\bto be had\b": "available",
    r"\b(?:does|do|did) not come to be\b": "could not be created",
    r"\b(?:refused|answered|fails|Raises \w+),? (?:and )?in words\b": "with the reason",
    r"\bwhat (?:has )?become of\b": "what happened to",
}
# Names of log events that were given up, with those that replaced them: operators search for one name.
RENAMED = {
    "trouble with Nextcloud": "Nextcloud unavailable",
    "container made": "container created",
    "volume made": "volume created",
    "engine's answer broke": "engine response cut short",
    "pull failed": "image pull failed",
    "a task failed": "background task failed",
}
IN_PAGES = {
    r"\b(?:his|her) (?:own )?(?:Nextcloud|server|container)\b": "their, or: the admin's",
    r"\bbehind (?:the end|its (?:end|body|name))\b": "after",
    r"\bWhile .{1,40} is away\b": "is disconnected, or: is unreachable",
    r"\b(?-i:([a-z]{2,}) \1)\b": "one of the two words",
    r"\bobviously\b|\bof course\b|\bsimply\b": "leave it out",
    r"\bwhoever\b": "anyone who, everyone who, or the one that is meant",
    r"\b(?:is|are) away\b": "is disconnected, or: is unreachable",
    r"\bfor ever\b": "indefinitely",
    r"\bwithout a word\b": "silently",
    r"\bbesides\b": "in addition to, or: other than",
    r"\bshall\b": "will, must, or: is to",
    r"\b(?:is|are) told (?:that|to|of)\b": "learns, or: has to",
    r"\b(?:is|are) said\b": "is reported",
    r"\bstands? (?:before|in front of)\b": "is in front of",
    r"\bof whom\b|\bto whom\b": "whose, or: to which",
    r"\bin its place\b": "instead, or: for it",
    r"\bno more\.": "no longer, or: stop ...ing",
    r"\bgoes on (?:with|as)\b": "continues, or: keeps ...ing",
    r"\bheld by\b(?! (?:the )?tunnel)": "tested by, or: used by",
}


def prose_of(page: str) -> str:
    """Return the text of a Markdown page with its code blanked, so that places stay the same."""
    blank = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
    return blank.sub(lambda code: re.sub(r"[^\n]", "_", code[0]), page)


def found(path: Path, text: str, rules: dict[str, str]) -> Iterator[str]:
    """Return what breaks the rules, one line each."""
    for rule, instead in rules.items():
        for match in re.finditer(rule, text, re.IGNORECASE):
            line = text.count("\n", 0, match.start()) + 1
            yield f'{path.relative_to(ROOT)}:{line}: "{match[0]}": {instead}'


def main() -> int:
    """Return the exit code."""
    lines: list[str] = []
    retired = {rf'(?-i:["`]{old}["`])': new for old, new in RENAMED.items()}
    for path in sorted({path for pattern in (*PROGRAM, *TESTS, *PAGES) for path in ROOT.glob(pattern)}):
        lines += found(path, path.read_text("utf-8"), retired)
    for path in sorted({path for pattern in PAGES for path in ROOT.glob(pattern)}):
        lines += found(path, prose_of(path.read_text("utf-8")), {**EVERYWHERE, **IN_PAGES})
    for path in sorted({path for pattern in PROGRAM for path in ROOT.glob(pattern)}):
        lines += found(path, path.read_text("utf-8"), EVERYWHERE)
    print("\n".join(lines), end="\n" if lines else "")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
