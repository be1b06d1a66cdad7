"""What the cluster allows: asked at the start and every ten minutes, so that features without rights are not tried."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from msgspec import Struct

from harp.engines.errors import EngineError
from harp.engines.kubernetes.client import ClusterApi, parsed
from harp.policy.kubernetes_rights import DEPLOY, FEATURES, NODES, Feature, Rule, missing

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
LIFETIME = 600.0  # seconds a review is believed
RETRY = 15.0  # seconds after one that failed


class ReviewStatus(Struct, frozen=True, rename="camel"):
    resource_rules: list[Rule] = []
    incomplete: bool = False  # another authorizer may allow more


class Review(Struct, frozen=True):
    status: ReviewStatus = ReviewStatus()


class Rights:
    """Our rights in the namespace. Until they are known, only the required ones are assumed."""

    def __init__(self, api: ClusterApi, namespace: str, now: Callable[[], float]) -> None:
        self._api = api
        self._namespace = namespace
        self._now = now
        self._asked = float("-inf")
        self._known: ReviewStatus | None = None
        self._lock = asyncio.Lock()
        self._told: dict[str, str] = {}

    def may(self, feature: Feature) -> bool:
        """Return whether everything that a feature needs is allowed."""
        if self._known is None:
            return not feature.optional
        if self._known.incomplete and not feature.optional:
            return True
        return not missing(self._known.resource_rules, feature)

    def lacking(self) -> dict[str, str]:
        """Describe which right is missing for which feature; empty until that is known."""
        if self._known is None:
            return {}
        found = {}
        for feature in FEATURES:
            rights = missing(self._known.resource_rules, feature)
            if rights:
                found[feature.name] = f"{'; '.join(map(str, rights))}: for {feature.purpose}"
        return found

    def problem(self) -> str:
        """Return why nothing can be deployed, as far as is known; "" if it can."""
        if self._known is None or self._known.incomplete:
            return ""
        rights = missing(self._known.resource_rules, DEPLOY)
        if not rights:
            return ""
        return f"the Role in namespace {self._namespace} lacks: {'; '.join(map(str, rights))}"

    async def fresh(self) -> None:
        """Get a review that is not too old. Raises EngineError if there is none."""
        async with self._lock:
            if self._now() - self._asked < (LIFETIME if self._known is not None else RETRY):
                return
            self._asked = self._now()
            try:
                await self._ask()
            except EngineError as error:
                self._asked = self._now() - LIFETIME + RETRY
                if self._known is None:
                    raise
                log.warning("rights in the cluster not reviewed", reason=str(error))

    async def _ask(self) -> None:
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": self._namespace},
        }
        answer = await self._api.call("POST", REVIEW, body=body)
        self._known = (await parsed(answer.body, Review)).status
        lacking = self.lacking()
        if lacking == self._told:
            return
        self._told = lacking
        for name, text in lacking.items():
            level = log.warning if name == DEPLOY.name else log.info
            level("right missing in the cluster", feature=name, missing=text, namespace=self._namespace)
        if NODES.name not in lacking and not lacking:
            log.info("the cluster allows every feature", namespace=self._namespace)
