"""What must hold for every path and every header, whatever anybody thinks of."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from harp.policy.bans import lowest_counted
from harp.policy.decide import Rules, decide
from harp.policy.exapp import ANONYMOUS, ExApp, Level, RecordFact, Route, Trouble, UnknownApp, Visitor, VisitorFact
from harp.policy.exapp_target import ExAppTargets
from harp.policy.question import Asker, Question, by_name, credentials_of, login_of
from harp.policy.verdict import Control, Engine, Forward, NeedRecord, NeedVisitor, Refuse

RULES = Rules(b"the key", frozenset({24000}), ExAppTargets(), lowest_counted("auth"))
APP = ExApp("hello", "secret", "1", "h", 80, (Route("^/admin", Level.ADMIN), Route(".*", Level.PUBLIC)))

NAMES = [
    b"harp-shared-key",
    b"ex-app-version",
    b"ex-app-id",
    b"ex-app-host",
    b"ex-app-port",
    b"authorization-app-api",
    b"aa-version",
    b"docker-engine-port",
    b"cookie",
    b"authorization",
    b"host",
]
VALUES = [b"", b"the key", b"24000", b"oc_sessionPassphrase=x", b"Basic eA=="]
PIECES = [
    b"/",
    b"//",
    b"exapps",
    b"hello",
    b"app_api",
    b"admin",
    b"init",
    b"..",
    b".",
    b"%2e",
    b"%2f",
    b"%5c",
    b"\\",
    b"%25",
    b";",
]

paths = st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=12).map(b"".join)
headers = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES) | st.binary(max_size=9)), max_size=12)


def question(path: bytes, lines: Sequence[tuple[bytes, bytes]] = ()) -> Question:
    found = by_name(list(lines))
    login = login_of(found)
    credentials = credentials_of(found, login, lambda cookie, authorization: b"digest", RULES.accept)
    return Question(path, Asker("203.0.113.7", credentials))


class DrawnFacts:
    def __init__(self, record: RecordFact | None, visitor: VisitorFact | None) -> None:
        self._record = record
        self._visitor = visitor

    def banned(self, address: str) -> float:
        return 0.0

    def record(self, app_id: str) -> RecordFact | None:
        return self._record

    def visitor(self, digest: bytes) -> VisitorFact | None:
        return self._visitor

    def expects(self, target: bytes) -> bool:
        return False


records = st.sampled_from([APP, UnknownApp(), Trouble("down"), None])
visitors = st.sampled_from([ANONYMOUS, Visitor("bob", Level.USER), Trouble("down"), None])


@given(paths, headers, records, visitors)
def test_every_request_has_an_answer(
    path: bytes, lines: list[tuple[bytes, bytes]], record: RecordFact | None, visitor: VisitorFact | None
) -> None:
    verdict = decide(question(path, lines), DrawnFacts(record, visitor), RULES)
    assert isinstance(verdict, Forward | Control | Engine | Refuse | NeedRecord | NeedVisitor)
    if isinstance(verdict, Forward | Control | Engine):
        assert verdict.target.startswith(b"/")
        assert path.endswith(verdict.target) or verdict.target == b"/"
    if isinstance(verdict, Control | Engine):
        assert dict(lines)[b"harp-shared-key"] == b"the key"


def spelled(draw: st.DrawFn, text: bytes) -> bytes:
    """`text` with each of its letters possibly encoded or in capitals, each of its slashes possibly several."""
    out = b""
    for byte in text:
        letter = bytes([byte])
        ways = [letter, letter.upper(), b"%%%02x" % byte, b"%%%02X" % byte]
        out += draw(st.sampled_from([b"/", b"//", b"/./", b"/%2e/", b"///"] if letter == b"/" else ways))
    return out


@st.composite
def admin_paths(draw: st.DrawFn) -> bytes:
    return b"/exapps/hello/" + spelled(draw, b"admin/users")


@st.composite
def internal_paths(draw: st.DrawFn) -> bytes:
    return b"/exapps/hello/" + spelled(draw, draw(st.sampled_from([b"init", b"enabled/", b"heartbeat"])))


@given(admin_paths())
@settings(max_examples=200)
def test_no_spelling_of_a_strict_route_escapes_it(path: bytes) -> None:
    verdict = decide(question(path), DrawnFacts(APP, ANONYMOUS), RULES)
    assert isinstance(verdict, Refuse)
    assert verdict.status == 403


@given(internal_paths())
@settings(max_examples=200)
def test_no_spelling_of_an_internal_endpoint_passes_unsigned(path: bytes) -> None:
    verdict = decide(question(path), DrawnFacts(APP, ANONYMOUS), RULES)
    assert isinstance(verdict, Refuse)
    assert (verdict.status, verdict.strike) == (403, False)


@given(st.text())
def test_the_token_splits_at_the_first_colon_into_user_and_secret(user: str) -> None:
    user = user.replace(":", "")
    token = b64decode(APP.authorization(user)).decode("utf-8", "surrogatepass")
    assert token.partition(":") == (user, ":", "secret")
