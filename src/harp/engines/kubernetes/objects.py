"""The objects of one namespace: paths, and the calls that several verbs need."""

from __future__ import annotations

from harp.engines.errors import EngineRefused, ForeignOwner
from harp.engines.kubernetes.client import MERGE, ClusterApi
from harp.policy.container import Owner
from harp.policy.kubernetes_names import COMPONENT, DATA, EXAPP, PART_OF, ClusterNames
from harp.policy.kubernetes_objects import Json
from harp.policy.kubernetes_shapes import Bare, ClusterService, Deployment, EndpointSlice, Node, ObjectList, Pod

NODES_PATH = "/api/v1/nodes"


class Namespace:
    """The namespace of the ExApps."""

    def __init__(self, api: ClusterApi, name: str, owner: Owner) -> None:
        self.api = api
        self.name = name
        self.owner = owner
        core = f"/api/v1/namespaces/{name}"
        self.deployments = f"/apis/apps/v1/namespaces/{name}/deployments"
        self.services = f"{core}/services"
        self.claims = f"{core}/persistentvolumeclaims"
        self.pods = f"{core}/pods"
        self.events = f"{core}/events"
        self.secrets = f"{core}/secrets"
        self.config_maps = f"{core}/configmaps"
        self.slices = f"/apis/discovery.k8s.io/v1/namespaces/{name}/endpointslices"
        self.scaled_objects = f"/apis/keda.sh/v1alpha1/namespaces/{name}/scaledobjects"

    async def deployment(self, names: ClusterNames) -> Deployment | None:
        """Return the ExApp's Deployment, None when there is none. Raises ForeignOwner when it is another's."""
        found = await self.api.find(f"{self.deployments}/{names.deployment}", Deployment)
        if found is not None:
            objection = names.objection(f"Deployment '{names.deployment}'", found.metadata, self.owner)
            if objection:
                raise ForeignOwner(objection)
        return found

    async def patch_deployment(self, names: ClusterNames, patch: Json, kind: str = MERGE) -> None:
        """Change the ExApp's Deployment."""
        await self.api.call("PATCH", f"{self.deployments}/{names.deployment}", body=patch, kind=kind)

    async def service(self, names: ClusterNames) -> ClusterService | None:
        """Return the Service with the ExApp's name, no matter who created it."""
        return await self.api.find(f"{self.services}/{names.deployment}", ClusterService)

    async def pods_of(self, names: ClusterNames) -> list[Pod]:
        """List the pods of the Deployment, including old ones."""
        query = {"labelSelector": f"app={names.deployment}"}
        return (await self.api.get(self.pods, ObjectList[Pod], query)).items

    async def roles_of(self, names: ClusterNames) -> list[Deployment]:
        """List all Deployments of the ExApp: its roles."""
        query = {"labelSelector": f"{PART_OF}={names.base}"}
        return (await self.api.get(self.deployments, ObjectList[Deployment], query)).items

    async def nodes(self, selector: str = "", *, limit: float = 15.0) -> list[Node]:
        """List the nodes with these labels."""
        query = {"labelSelector": selector} if selector else None
        return (await self.api.get(NODES_PATH, ObjectList[Node], query, limit=limit)).items

    async def exapp_deployments(self) -> ObjectList[Deployment]:
        """List the Deployments of all ExApps."""
        return await self.api.get(self.deployments, ObjectList[Deployment], EXAPPS)

    async def exapp_services(self) -> ObjectList[ClusterService]:
        """List the Services of all ExApps."""
        return await self.api.get(self.services, ObjectList[ClusterService], EXAPPS)

    async def exapp_slices(self) -> ObjectList[EndpointSlice]:
        """List the EndpointSlices of all ExApps: they have the labels of their Services."""
        return await self.api.get(self.slices, ObjectList[EndpointSlice], EXAPPS)

    async def exapp_claims(self) -> list[Bare]:
        """List the claims of all ExApps."""
        query = {"labelSelector": f"{COMPONENT}={DATA}"}
        return (await self.api.get(self.claims, ObjectList[Bare], query)).items


EXAPPS = {"labelSelector": f"{COMPONENT}={EXAPP}"}


def status_words(error: EngineRefused) -> str:
    """Return the text of a refusal: the number, then the cluster's message."""
    return f"Status {error.status}: {error.message}"
