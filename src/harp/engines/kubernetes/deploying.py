"""Creating and removing an ExApp's objects (K 4.1, K 4.2, K 4.5, K 4.6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from secrets import token_hex

import structlog
from msgspec.structs import replace

from harp.engines.errors import (
    AlreadyThere,
    EngineConflict,
    EngineError,
    EngineMissing,
    EngineRefused,
    ForeignOwner,
)
from harp.engines.kubernetes.client import MERGE, STRATEGIC
from harp.engines.kubernetes.objects import Namespace, status_words
from harp.engines.kubernetes.rights import Rights
from harp.policy import kubernetes_objects as objects
from harp.policy.kubernetes_names import INSTANCE, MANAGED_BY, ClusterNames, label_value, managed
from harp.policy.kubernetes_objects import CaFile, ClusterPlan
from harp.policy.kubernetes_rights import CERTIFICATES, CLAIMS, SECRETS
from harp.policy.kubernetes_shapes import Bare, Deployment
from harp.policy.registries import Registries
from harp.settings import ExAppPods

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

GONE = 60.0  # seconds until what is being deleted must be gone; pods have 10 s to end
POLL = 0.25  # seconds between looks
BEING_DELETED = "being deleted"
CA_KEY = "ca-bundle.crt"
LARGEST_BUNDLE = 900_000  # characters; a ConfigMap takes 1 MiB


class Deploying:
    """The verbs that create and remove objects."""

    def __init__(
        self, namespace: Namespace, rights: Rights, pods: ExAppPods, registries: Registries, now: Callable[[], float]
    ) -> None:
        self._at = namespace
        self._rights = rights
        self._pods = pods
        self._registries = registries
        self._now = now
        self._bundle = ""  # digest of the certificate authorities in our ConfigMap, "" = not known

    async def exists(self, names: ClusterNames) -> bool:
        """Return whether there is a Deployment that is not being deleted."""
        try:
            found = await self._at.deployment(names)
        except EngineRefused as error:
            raise EngineError(f"Error checking deployment '{names.deployment}': {status_words(error)}") from error
        return found is not None and found.metadata.deletion_timestamp is None

    async def create(self, plan: ClusterPlan) -> str:
        """Create claim and Deployment, and a Secret where allowed; return the name of the Deployment."""
        names = ClusterNames(plan.names)
        plan = replace(plan, image=self._registries.mirrored(plan.image))
        found = await self._at.deployment(names)
        if found is not None and found.metadata.deletion_timestamp is not None:
            found = await self._gone(names, found.metadata.uid)
        if found is not None:
            raise AlreadyThere(self._still(names, found))
        made = await self.provide_claim(names)
        secret = bool(plan.secret) and self._rights.may(SECRETS)
        body = objects.deployment(
            plan, self._at.owner, self._pods, token_hex(8), secret=secret, ca=await self._certificates()
        )
        try:
            uid = await self._post_deployment(names, body)
            if secret:
                await self._provide_secret(names, plan, uid)
        except EngineError:
            if made:
                with suppress(EngineError):
                    await self._at.api.call("DELETE", f"{self._at.claims}/{names.claim}")
            raise
        log.info("deployment created", deployment=names.deployment, image=plan.image, secret=secret)
        return names.deployment

    async def provide_claim(self, names: ClusterNames) -> bool:
        """Provide a volume claim, after waiting for one that is being deleted; return whether it is new."""
        body = objects.claim(names, self._at.owner, self._pods)
        until = self._now() + GONE
        while True:
            try:
                await self._at.api.call("POST", self._at.claims, body=body)
            except EngineConflict as error:
                deleted = BEING_DELETED in error.message or await self._check_claim(names)
                if not deleted:
                    return False
                if self._now() >= until:
                    raise AlreadyThere(
                        f"PVC '{names.claim}' is still being deleted after {GONE:g} s: does a pod use it?"
                    ) from error
            except EngineRefused as error:
                raise EngineError(f"Failed to create PVC '{names.claim}': {status_words(error)}") from error
            else:
                return True
            await asyncio.sleep(POLL)

    async def remove(self, names: ClusterNames, *, data: bool) -> None:
        """Remove Deployment and Service, and the claim with the last role. Missing objects are fine."""
        found = await self._at.deployment(names)
        if found is not None:
            await self._delete(f"{self._at.deployments}/{names.deployment}", f"deployment '{names.deployment}'", found)
        await self._remove_service(names)
        if found is not None and await self._gone(names, found.metadata.uid) is not None:
            log.warning("deployment still being deleted", deployment=names.deployment, seconds=GONE)
        if data:
            await self._remove_claim(names)

    async def install_certificates(self, names: ClusterNames, bundle: str) -> bool:
        """Make the ExApp trust these authorities; return False if that is not possible.

        All ExApps of an instance share one ConfigMap, so only the first one has to be restarted for it.
        """
        if not bundle or self._pods.ca_config_map is not None or len(bundle) > LARGEST_BUNDLE:
            return False
        if not self._rights.may(CERTIFICATES):
            return False
        found = await self._at.deployment(names)
        if found is None:
            return False
        await self._provide_bundle(bundle)
        template = found.spec.template.spec
        if any(one.config_map and one.config_map.name == self.ca_name for one in template.volumes or ()):
            return True
        given = {variable.name for one in template.containers for variable in one.env or ()}
        patch = objects.ca_patch(CaFile(self.ca_name, CA_KEY), given, token_hex(8))
        await self._at.patch_deployment(names, patch, STRATEGIC)
        return True

    @property
    def ca_name(self) -> str:
        """The ConfigMap with the certificate authorities that Nextcloud trusts."""
        return f"nc-app-ca-{label_value(self._at.owner.instance).lower().replace('_', '-').replace('.', '-')}"

    # Parts

    async def _certificates(self) -> CaFile | None:
        """Return the file of certificate authorities that new pods get."""
        if self._pods.ca_config_map is not None:
            return CaFile(*self._pods.ca_config_map)
        if not self._rights.may(CERTIFICATES):
            return None
        if not self._bundle and await self._at.api.find(f"{self._at.config_maps}/{self.ca_name}", Bare) is None:
            return None
        return CaFile(self.ca_name, CA_KEY)

    async def _provide_bundle(self, bundle: str) -> None:
        digest = sha256(bundle.encode("utf-8", "surrogatepass")).hexdigest()
        if digest == self._bundle:
            return
        labels = {MANAGED_BY: "harp", INSTANCE: label_value(self._at.owner.instance)}
        body = objects.ca_object(self.ca_name, CA_KEY, bundle, labels)
        try:
            await self._at.api.call("POST", self._at.config_maps, body=body)
        except EngineConflict:
            await self._at.api.call("PATCH", f"{self._at.config_maps}/{self.ca_name}", body=body, kind=MERGE)
        self._bundle = digest

    async def _post_deployment(self, names: ClusterNames, body: objects.Json) -> str:
        try:
            answer = await self._at.api.call("POST", self._at.deployments, body=body)
        except EngineConflict as error:
            raise AlreadyThere(f"Deployment '{names.deployment}' already exists.") from error
        except EngineRefused as error:
            raise EngineError(f"Error creating deployment '{names.deployment}': {status_words(error)}") from error
        return objects.uid_of(answer.body)

    async def _provide_secret(self, names: ClusterNames, plan: ClusterPlan, uid: str) -> None:
        body = objects.secret_object(plan, self._at.owner, uid)
        try:
            try:
                await self._at.api.call("POST", self._at.secrets, body=body)
            except EngineConflict:
                await self._at.api.call("PATCH", f"{self._at.secrets}/{names.deployment}", body=body, kind=MERGE)
        except EngineError as error:
            with suppress(EngineError):
                await self._at.api.call("DELETE", f"{self._at.deployments}/{names.deployment}")
            raise EngineError(f"Error creating Secret '{names.deployment}': {error}") from error

    async def _check_claim(self, names: ClusterNames) -> bool:
        """Return whether an existing claim is being deleted, where we may look.

        Raises ForeignOwner when it is another's.
        """
        if not self._rights.may(CLAIMS):
            return False
        found = await self._at.api.find(f"{self._at.claims}/{names.claim}", Bare)
        if found is None:
            return True  # it has just gone
        objection = names.objection(f"PVC '{names.claim}'", found.metadata, self._at.owner, role=False)
        if objection:
            raise ForeignOwner(objection)
        return found.metadata.deletion_timestamp is not None

    def _still(self, names: ClusterNames, found: Deployment) -> str:
        if found.metadata.deletion_timestamp is None:
            return f"Deployment '{names.deployment}' already exists."
        return f"Deployment '{names.deployment}' is still being deleted after {GONE:g} s: its pods do not end"

    async def _gone(self, names: ClusterNames, uid: str) -> Deployment | None:
        """Wait until the Deployment of that uid and its pods are gone; return the one that has replaced it, if any."""
        until = self._now() + GONE
        while True:
            found = await self._at.deployment(names)
            if found is None or found.metadata.uid != uid or self._now() >= until:
                return found
            await asyncio.sleep(POLL)

    async def _delete(self, path: str, what: str, found: Deployment | Bare | None = None) -> None:
        body: objects.Json = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"}
        if found is not None:
            body["preconditions"] = {"uid": found.metadata.uid}
        try:
            await self._at.api.call("DELETE", path, body=body)
        except EngineMissing:
            return
        except EngineRefused as error:
            raise EngineError(f"Error removing {what}: {status_words(error)}") from error

    async def _remove_claim(self, names: ClusterNames) -> None:
        others = [
            one.metadata.name
            for one in await self._at.roles_of(names)
            if one.metadata.deletion_timestamp is None and one.metadata.name != names.deployment
        ]
        if others:
            log.info("claim kept for other roles", claim=names.claim, roles=others)
            return
        if self._rights.may(CLAIMS):
            await self._check_claim(names)
        await self._delete(f"{self._at.claims}/{names.claim}", f"PVC '{names.claim}'")

    async def _remove_service(self, names: ClusterNames) -> None:
        try:
            found = await self._at.service(names)
        except EngineRefused as error:
            log.warning("service not removed", service=names.deployment, reason=str(error))
            return
        if found is None:
            return
        if not managed(found.metadata.labels) or names.objection("it", found.metadata, self._at.owner):
            log.info("service kept: it is not ours", service=names.deployment)
            return
        await self._delete(f"{self._at.services}/{names.deployment}", f"Service '{names.deployment}'")
