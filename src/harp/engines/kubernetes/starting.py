"""Starting and stopping an ExApp, and waiting until it runs (K 4.3, K 4.4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog
from msgspec import Struct
from msgspec.structs import replace

from harp.engines.errors import EngineError, EngineRefused, EngineUnreachable, NotThere
from harp.engines.kubernetes.client import MERGE
from harp.engines.kubernetes.deploying import Deploying
from harp.engines.kubernetes.objects import Namespace, status_words
from harp.engines.kubernetes.rights import Rights
from harp.engines.replies import words
from harp.policy.kubernetes_names import REPLICAS, ClusterNames
from harp.policy.kubernetes_objects import CONTAINER, replicas_patch
from harp.policy.kubernetes_pods import (
    PodOutcome,
    PodView,
    current,
    has_probes,
    late,
    not_created,
    unschedulable,
    view,
)
from harp.policy.kubernetes_rights import AUTOSCALERS, EVENTS, LOGS
from harp.policy.kubernetes_shapes import ClusterEvent, Deployment, Metadata, ObjectList, Pod

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

PAUSED = "autoscaling.keda.sh/paused-replicas"
LAST_LINES = 20
LONGEST_MESSAGE = 2000  # characters


class StartPace(Struct, frozen=True):
    """How to wait for a start, in seconds."""

    patience: float  # in all, images included
    schedule: float  # that no node takes the pod
    ready: float = 600.0  # that a container runs and does not listen: as long as AppAPI asks for its heartbeat
    settle: float = 2.0  # that a container without a probe must run before we believe it
    volume: float = 120.0  # that its volume may take to be there
    outage: float = 60.0  # that the API server may be away meanwhile
    quick: float = 0.25  # between looks at first
    slow: float = 1.0  # between looks after `quick_for`
    quick_for: float = 10.0


class StartTools(Struct, frozen=True):
    """What starting works with."""

    at: Namespace
    rights: Rights
    deploying: Deploying
    pace: StartPace
    now: Callable[[], float]


class ScaleTarget(Struct, frozen=True):
    name: str = ""


class ScaledObjectSpec(Struct, frozen=True, rename="camel"):
    scale_target_ref: ScaleTarget = ScaleTarget()


class ScaledObject(Struct, frozen=True):
    """An autoscaler of KEDA."""

    metadata: Metadata = Metadata()
    spec: ScaledObjectSpec = ScaledObjectSpec()


class Starting:
    """The verbs that start and stop."""

    def __init__(self, tools: StartTools) -> None:
        self._tools = tools
        self._at, self._rights = tools.at, tools.rights

    async def start(self, names: ClusterNames) -> None:
        """Start pods: as many as before it was stopped. Running pods are left alone."""
        found = await self._found(names, "starting")
        if found.spec.replicas == 0:
            before = found.metadata.annotation(REPLICAS)
            count = int(before) if before.isdecimal() and 0 < int(before[:4]) <= 1000 else 1
            await self._scale(names, count, {REPLICAS: None} if before else {}, "starting")
        await self._autoscalers(names, None)

    async def stop(self, names: ClusterNames) -> None:
        """Stop all pods."""
        found = await self._found(names, "stopping")
        await self._autoscalers(names, "0")
        if found.spec.replicas:
            remembered = {REPLICAS: str(found.spec.replicas)} if found.spec.replicas > 1 else {}
            await self._scale(names, 0, remembered, "stopping")

    async def wait(self, names: ClusterNames) -> PodOutcome:
        """Wait until a pod of the current template runs, or certainly will not."""
        outcome = await StartWait(self._tools, names).run()
        if not outcome.started:
            log.warning("pod not started", deployment=names.deployment, status=outcome.status, reason=outcome.reason)
        return outcome

    async def _found(self, names: ClusterNames, doing: str) -> Deployment:
        try:
            found = await self._at.deployment(names)
        except EngineRefused as error:
            raise EngineError(f"Error {doing} deployment '{names.deployment}': {status_words(error)}") from error
        if found is None:
            raise NotThere(f"Deployment '{names.deployment}' not found.")
        return found

    async def _scale(self, names: ClusterNames, count: int, annotations: Mapping[str, str | None], doing: str) -> None:
        try:
            await self._at.patch_deployment(names, replicas_patch(count, annotations))
        except EngineRefused as error:
            if error.status == 404:
                raise NotThere(f"Deployment '{names.deployment}' not found.") from error
            raise EngineError(f"Error {doing} deployment '{names.deployment}': {status_words(error)}") from error

    async def _autoscalers(self, names: ClusterNames, paused: str | None) -> None:
        """Pause or resume KEDA autoscalers; without the right they are left unchanged."""
        if not self._rights.may(AUTOSCALERS):
            return
        try:
            found = await self._at.api.get(self._at.scaled_objects, ObjectList[ScaledObject])
            for one in found.items:
                if one.spec.scale_target_ref.name == names.deployment:
                    patch = {"metadata": {"annotations": {PAUSED: paused}}}
                    await self._at.api.call(
                        "PATCH", f"{self._at.scaled_objects}/{one.metadata.name}", body=patch, kind=MERGE
                    )
        except EngineError as error:  # KEDA is not there, or does not want to
            log.info("autoscalers unchanged", deployment=names.deployment, reason=str(error))


class StartWait:
    """One wait for a start."""

    def __init__(self, tools: StartTools, names: ClusterNames) -> None:
        self._at, self._rights, self._deploying = tools.at, tools.rights, tools.deploying
        self._pace, self._now = tools.pace, tools.now
        self._names = names
        self._began = self._answered = self._since = self._now()  # answered: when the API server last said something
        self._waits: tuple[str, str, int] = ("", "", 0)  # for what, and with which container

    async def run(self) -> PodOutcome:
        """Return the outcome, when our patience ends at the latest."""
        while True:
            try:
                outcome = await self._look()
                self._answered = self._now()
            except EngineRefused as error:
                raise EngineError(
                    f"Error listing pods for deployment '{self._names.deployment}': {status_words(error)}"
                ) from error
            except EngineUnreachable:  # it is restarted
                if self._now() - self._answered >= self._pace.outage:
                    raise
                outcome = None
            if outcome is not None:
                return outcome
            quick = self._now() - self._began < self._pace.quick_for
            await asyncio.sleep(self._pace.quick if quick else self._pace.slow)

    async def _look(self) -> PodOutcome | None:
        deployment = await self._at.deployment(self._names)
        if deployment is None:
            return PodOutcome(False, "not_found", "not_ready", f"Deployment '{self._names.deployment}' not found.")
        if deployment.spec.replicas == 0:
            return PodOutcome(False, "Pending", "not_ready", "the Deployment is scaled to 0: it was not started")
        pod = current(deployment, await self._at.pods_of(self._names))
        if pod is None:
            refused = not_created(deployment)
            if refused:
                return PodOutcome(False, "Pending", "not_ready", f"no pod is created: {words(refused)}", refused)
            return self._overdue(None, PodView(waits_for="pod"), self._pace.patience)
        probes = has_probes(deployment)
        seen = view(pod, probes=probes, settled=self._settled(pod))
        if seen.outcome is not None:
            return await self._explained(pod, seen.outcome) if seen.crashed else seen.outcome
        self._note(pod, seen.waits_for)
        if seen.waits_for == "schedule":
            return await self._not_scheduled(pod, seen.note)
        if seen.waits_for == "ready":
            outcome = self._overdue(pod, seen, self._pace.ready)
            return None if outcome is None else await self._explained(pod, outcome)
        outcome = self._overdue(pod, seen, self._pace.patience)
        return None if outcome is None else await self._with_event(pod, outcome)

    def _settled(self, pod: Pod) -> bool:
        """Return whether the present container has been seen running for long enough."""
        return self._waits == _wait(pod, "settled") and self._now() - self._since >= self._pace.settle

    def _note(self, pod: Pod, what: str) -> None:
        """Count from now on when the pod waits for something else than before, or with another container."""
        if self._waits != _wait(pod, what):
            self._waits, self._since = _wait(pod, what), self._now()

    def _overdue(self, pod: Pod | None, seen: PodView, patience: float) -> PodOutcome | None:
        in_all = self._now() - self._began
        if in_all < self._pace.patience and (pod is None or self._now() - self._since < patience):
            return None
        if seen.waits_for == "ready":
            return late(pod, f"it runs, but is not ready after {self._now() - self._since:.0f} s: {seen.note}")
        return late(pod, f"not started within {in_all:.0f} s; it waits for its {seen.waits_for}: {seen.note}")

    async def _not_scheduled(self, pod: Pod, note: str) -> PodOutcome | None:
        """No node takes the pod: at once a lasting reason, but claims that come back and volumes are waited for."""
        about_volume = "persistentvolumeclaim" in note.lower()
        if about_volume and ("not found" in note or "being deleted" in note):
            await self._deploying.provide_claim(self._names)  # it was removed with an earlier pod
        patience = self._pace.volume if about_volume else self._pace.schedule
        if self._now() - self._since < patience and self._now() - self._began < self._pace.patience:
            return None
        return unschedulable(pod, words(note))

    async def _explained(self, pod: Pod, outcome: PodOutcome) -> PodOutcome:
        """Return the same with the last lines of the container.

        In the cluster's status, or from its log if we may read it.
        """
        lines = (outcome.message or "").strip()
        if not lines and self._rights.may(LOGS):
            lines = await self._log(pod)
        if not lines:
            return outcome
        last = words(lines.splitlines()[-1])
        return replace(outcome, reason=f"{outcome.reason}: {last[:300]}", message=lines[-LONGEST_MESSAGE:])

    async def _log(self, pod: Pod) -> str:
        query = {"container": CONTAINER, "tailLines": str(LAST_LINES), "limitBytes": "65536"}
        statuses = pod.status.container_statuses
        if statuses and statuses[0].state.running is None:
            query["previous"] = "true"
        try:
            answer = await self._at.api.call("GET", f"{self._at.pods}/{pod.metadata.name}/log", query=query)
        except EngineError:
            return ""
        return answer.body.decode("utf-8", "replace").strip()

    async def _with_event(self, pod: Pod, outcome: PodOutcome) -> PodOutcome:
        """Return the same with the cluster's last warning about the pod, if we may read it."""
        if not self._rights.may(EVENTS):
            return outcome
        query = {"fieldSelector": f"involvedObject.name={pod.metadata.name},type=Warning", "limit": "50"}
        try:
            found = await self._at.api.get(self._at.events, ObjectList[ClusterEvent], query)
        except EngineError:
            return outcome
        if not found.items:
            return outcome
        said = words(found.items[-1].message)
        return replace(outcome, reason=f"{outcome.reason} {said}", message=said)


def _wait(pod: Pod, what: str) -> tuple[str, str, int]:
    statuses = pod.status.container_statuses
    return what, pod.metadata.uid, statuses[0].restart_count if statuses else 0
