"""Questions as clients ask them, and facts to decide by."""

from __future__ import annotations

from harp.policy.bans import lowest_counted
from harp.policy.decide import Rules, decide
from harp.policy.exapp import ExApp, Level, RecordFact, Route, Trouble, VisitorFact
from harp.policy.exapp_target import ExAppTargets
from harp.policy.question import Asker, Question, by_name, credentials_of, login_of
from harp.policy.verdict import Forward, Missing, Refuse, Verdict

Headers = list[tuple[bytes, bytes]]

ADDRESS = "203.0.113.7"

TARGETS = ExAppTargets(engine_ports=frozenset({24000, 24001}), listeners=frozenset({8200}), local=(range(9000, 9100),))

KEY = (b"harp-shared-key", b"the key")

WRONG_KEY = (b"harp-shared-key", b"a guess")

SESSION = (b"cookie", b"oc_sessionPassphrase=abc; ocinstance=def")

SIGNED: Headers = [
    KEY,
    (b"ex-app-version", b"9.9.9"),
    (b"ex-app-id", b"hello"),
    (b"ex-app-host", b"10.0.0.9"),
    (b"ex-app-port", b"9999"),
    (b"authorization-app-api", b"Ym9iOnNlY3JldA=="),
    (b"aa-version", b"34.0.1"),
]

HELLO = ExApp(
    "hello",
    token="secret",
    version="1.2.3",
    host="127.0.0.1",
    port=23001,
    routes=(
        Route("^/public", Level.PUBLIC, frozenset({401})),
        Route("^/user", Level.USER),
        Route("^/admin", Level.ADMIN),
    ),
)

DOWN = Trouble("Nextcloud cannot be reached", retry_after=7)


class Facts:
    """What is known in a test: one visitor for every credential, and no Nextcloud behind it."""

    def __init__(
        self,
        records: dict[str, RecordFact] | None = None,
        visitor: VisitorFact | None = None,
        banned: dict[str, float] | None = None,
    ) -> None:
        self.records = {"hello": HELLO} if records is None else records
        self.who = visitor
        self.bans = banned or {}
        self.walk = b""

    def banned(self, address: str) -> float:
        return self.bans.get(address, 0.0)

    def record(self, app_id: str) -> RecordFact | None:
        return self.records.get(app_id)

    def visitor(self, digest: bytes) -> VisitorFact | None:
        return self.who

    def expects(self, target: bytes) -> bool:
        return target == self.walk


def rules(strikes: str = "auth", key: bytes = b"the key") -> Rules:
    return Rules(
        shared_key=key, engine_ports=frozenset({24000, 24001}), targets=TARGETS, counted=lowest_counted(strikes)
    )


def question(path: bytes, *headers: tuple[bytes, bytes], key: bytes = b"the key") -> Question:
    found = by_name(list(headers))
    login = login_of(found)
    return Question(path, Asker(ADDRESS, credentials_of(found, login, digest, rules(key=key).accept)))


def digest(cookie: bytes, authorization: bytes | None) -> bytes:
    return b"%b %b" % (cookie, authorization or b"")


def ask(
    path: bytes, *headers: tuple[bytes, bytes], facts: Facts | None = None, strikes: str = "auth"
) -> Verdict | Missing:
    return decide(question(path, *headers), facts or Facts(), rules(strikes))


def forwarded(path: bytes, *headers: tuple[bytes, bytes], facts: Facts | None = None) -> Forward:
    verdict = ask(path, *headers, facts=facts)
    assert isinstance(verdict, Forward)
    return verdict


def refused(path: bytes, *headers: tuple[bytes, bytes], facts: Facts | None = None, strikes: str = "auth") -> Refuse:
    verdict = ask(path, *headers, facts=facts, strikes=strikes)
    assert isinstance(verdict, Refuse)
    assert len(verdict.reason) <= 160
    assert verdict.reason.isprintable()
    return verdict


def answer(refuse: Refuse) -> tuple[int, bool]:
    return refuse.status, refuse.strike
