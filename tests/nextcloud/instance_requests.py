"""Requests that ask one Nextcloud for facts."""

from __future__ import annotations

from dataclasses import dataclass

from harp.nextcloud.instance import Instance
from harp.policy.decide import Learned, decide
from harp.policy.exapp import VisitorFact
from harp.policy.question import Asker, Question, VisitorLogin, by_name, credentials_of, login_of
from harp.policy.verdict import NeedRecord, NeedVisitor, Verdict

ADDRESS = "203.0.113.7"


@dataclass(frozen=True)
class InstanceRequest:
    path: bytes
    headers: tuple[tuple[bytes, bytes], ...]


def call(path: bytes = b"/exapps/hello/public", *headers: tuple[bytes, bytes]) -> InstanceRequest:
    return InstanceRequest(path, headers)


def question(instance: Instance, request: InstanceRequest) -> tuple[Question, VisitorLogin]:
    found = by_name(list(request.headers))
    login = login_of(found)
    credentials = credentials_of(found, login, instance.digest, instance.rules.accept)
    return Question(request.path, Asker(ADDRESS, credentials)), login or VisitorLogin()


async def served(instance: Instance, request: InstanceRequest) -> Verdict:
    """What the frontend does: decide, learn what is missing, decide again."""
    asked, login = question(instance, request)
    facts = Learned(instance)
    for _ in range(3):
        verdict = decide(asked, facts, instance.rules)
        if isinstance(verdict, NeedRecord):
            facts.learn_record(verdict.app_id, await instance.record_of(verdict.app_id))
        elif isinstance(verdict, NeedVisitor):
            digest = asked.asker.credentials.digest
            facts.learn_visitor(digest, await instance.visitor_of(verdict.app_id, digest, login, ADDRESS))
        else:
            return verdict
    raise AssertionError(f"{verdict} is still missing")


async def visitor(instance: Instance, *headers: tuple[bytes, bytes]) -> VisitorFact:
    asked, login = question(instance, call(b"/", *headers))
    return await instance.visitor_of("hello", asked.asker.credentials.digest, login, ADDRESS)
