"""Whether an ExApp's pod has started or failed, and why (K 4.4, K 11).

Only pods of the Deployment's current template count; those that are being deleted do not.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from harp.policy.kubernetes_names import TEMPLATE
from harp.policy.kubernetes_shapes import ContainerStatus, Deployment, Pod, Terminated

IMAGE_ERRORS = frozenset(("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"))
# Reasons why a container can never be created; kubelets retry endlessly.
HOPELESS = frozenset(("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError"))
CRASHES = 2  # restarts after which an ExApp is taken for one that never will run
PENDING = "Pending"


class PodOutcome(Struct, frozen=True):
    """The outcome of a start. AppAPI looks at `started`, and shows `reason`."""

    started: bool
    status: str
    health: str
    reason: str | None = None
    message: str | None = None


class PodView(Struct, frozen=True):
    """One view of a pod: an outcome, or what it waits for."""

    outcome: PodOutcome | None = None
    crashed: bool = False  # the last lines of its container may say why
    waits_for: str = ""  # "schedule", "image", "container", "ready", "settled"
    note: str = ""  # in the cluster's words


def current(deployment: Deployment, pods: Iterable[Pod]) -> Pod | None:
    """Return the newest pod of the Deployment's present template, None when there is none yet."""
    template = deployment.spec.template.metadata.annotation(TEMPLATE)
    fitting = [
        pod for pod in pods if pod.metadata.deletion_timestamp is None and pod.metadata.annotation(TEMPLATE) == template
    ]
    return max(fitting, key=_rank, default=None)


def _rank(pod: Pod) -> tuple[bool, str, str]:
    """Failed pods (evicted ones) are replaced by others."""
    return pod.status.phase != "Failed", pod.metadata.creation_timestamp, pod.metadata.name


def not_created(deployment: Deployment) -> str:
    """Return why the cluster makes no pods for a Deployment (a quota, an admission rule), "" when it does."""
    for one in deployment.status.conditions or ():
        if one.type == "ReplicaFailure" and one.status == "True":
            return one.message or one.reason
    return ""


def has_probes(deployment: Deployment) -> bool:
    """Return whether Ready means more than that its process runs."""
    return any(one.startup_probe or one.readiness_probe for one in deployment.spec.template.spec.containers)


def view(pod: Pod, *, probes: bool, settled: bool) -> PodView:
    """Return the state of a pod. `settled`: a running container without a probe has run for long enough."""
    status = pod.status
    container = status.container_statuses[0] if status.container_statuses else None
    if status.phase == "Succeeded":
        return _over(pod, "succeeded", started=True)
    if status.phase in ("Failed", "Unknown"):
        return _over(pod, status.phase, started=False)
    if container is None:
        return _unscheduled(pod)
    waiting = container.state.waiting
    if waiting is not None and waiting.reason in IMAGE_ERRORS:
        reason = waiting.reason
        return PodView(PodOutcome(False, reason, "image_error", reason, waiting.message or None))
    if waiting is not None and waiting.reason in HOPELESS:
        text = f"{waiting.reason}: {waiting.message}"
        return PodView(PodOutcome(False, status.phase, "not_ready", text, waiting.message or None))
    if container.restart_count >= CRASHES and container.state.running is None:
        return _crashed(pod, container)
    if container.state.running is not None:
        ready = pod.condition("Ready")
        if status.phase == "Running" and ready.status == "True":
            if probes or settled:
                return _over(pod, "running", started=True)
            return PodView(waits_for="settled")
        return PodView(waits_for="ready", note=ready.message)
    if waiting is not None and waiting.reason in ("ContainerCreating", "PodInitializing"):
        return PodView(waits_for="image", note=waiting.message)
    return PodView(waits_for="container", note="" if waiting is None else waiting.message or waiting.reason)


def late(pod: Pod | None, reason: str) -> PodOutcome:
    """Return the outcome when a limit has passed."""
    return PodOutcome(False, PENDING if pod is None else pod.status.phase or "unknown", "timeout", reason, None)


def unschedulable(pod: Pod, said: str) -> PodOutcome:
    """Return the outcome for a pod that cannot be scheduled."""
    return PodOutcome(False, pod.status.phase or PENDING, "not_ready", f"Unschedulable: {said}", said)


def exit_words(ended: Terminated) -> str:
    """Return how a container ended."""
    words = f"exit code {ended.exit_code}"
    if ended.reason not in ("", "Error", "Completed"):
        words += f", {ended.reason}"
    return f"{words}, signal {ended.signal}" if ended.signal else words


def _over(pod: Pod, word: str, *, started: bool) -> PodView:
    health = "ready" if started else "not_ready"
    return PodView(PodOutcome(started, word, health, pod.status.reason or None, pod.status.message or None))


def _unscheduled(pod: Pod) -> PodView:
    scheduled = pod.condition("PodScheduled")
    if scheduled.status == "False":
        return PodView(waits_for="schedule", note=scheduled.message or scheduled.reason)
    return PodView(waits_for="container")


def _crashed(pod: Pod, container: ContainerStatus) -> PodView:
    ended = container.state.terminated or container.last_state.terminated or Terminated()
    reason = f"CrashLoopBackOff: {exit_words(ended)}"
    return PodView(PodOutcome(False, pod.status.phase, "not_ready", reason, ended.message or None), crashed=True)
