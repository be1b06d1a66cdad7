"""Names, labels and owners of an ExApp's objects in a cluster (K 3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256

from msgspec import Struct

from harp.policy.container import PREFIX, Names, Owner
from harp.policy.kubernetes_shapes import Metadata

LONGEST = 63  # characters of a name that becomes a host name, and of a label's value

PART_OF = "app.kubernetes.io/part-of"
COMPONENT = "app.kubernetes.io/component"
SERVICE_NAME = "kubernetes.io/service-name"  # label of an EndpointSlice
MANAGED_BY = "app.kubernetes.io/managed-by"
HARP = "harp"
EXAPP = "exapp"
DATA = "exapp-data"

OURS = "harp.nextcloud/"
INSTANCE = OURS + "instance"  # label: the Nextcloud whose ExApp it is
APP = OURS + "app"  # annotation: the id as Nextcloud spells it; names of objects do not keep it apart from others
ROLE = OURS + "role"
TEMPLATE = OURS + "template"  # annotation of pods and their template: tells pods of one template from older ones
REPLICAS = OURS + "replicas"  # annotation: how many pods there were when it was stopped
STICKY = OURS + "sticky"  # annotation: "true" = a client's requests go to the same replica
EXPOSED = OURS + "exposed"  # annotation: JSON of how it was exposed


def sanitised(text: str) -> str:
    """`text` as the name of an object."""
    name = re.sub(r"-+", "-", re.sub(r"[^a-z0-9-]", "-", text.lower())).strip("-") or "exapp"
    return name[:LONGEST].rstrip("-")


def base_of(app_id: str) -> str:
    """Return the name that all objects of an ExApp have in common."""
    return sanitised(PREFIX + app_id)


class ClusterNames(Struct, frozen=True):
    """The names of one ExApp's objects."""

    names: Names

    @property
    def base(self) -> str:
        """What all roles have in common."""
        return sanitised(self._raw)

    @property
    def deployment(self) -> str:
        """The Deployment, the Service and the Secret."""
        return sanitised(f"{self._raw}_{self.names.role_suffix}" if self.names.role_suffix else self._raw)

    @property
    def claim(self) -> str:
        """The volume claim; all roles share it."""
        return sanitised(f"{self._raw}_data")

    @property
    def mount_path(self) -> str:
        """Where the volume is in the container: AppAPI's APP_PERSISTENT_STORAGE."""
        return f"/{self.names.volume}"

    @property
    def _raw(self) -> str:
        names = self.names
        return f"{PREFIX}{names.instance_id}_{names.name}" if names.instance_id else PREFIX + names.name

    def labels(self, owner: Owner) -> dict[str, str]:
        """Return the labels of Deployment, pods and Service."""
        labels = {
            "app": self.deployment,
            "app.kubernetes.io/name": self.deployment,
            PART_OF: self.base,
            COMPONENT: EXAPP,
            MANAGED_BY: HARP,
            INSTANCE: label_value(owner.instance),
        }
        if self.names.instance_id:
            labels["app.kubernetes.io/instance"] = label_value(self.names.instance_id)
        if self.names.role_suffix:
            labels["app.kubernetes.io/role"] = sanitised(self.names.role_suffix)
        return labels

    def claim_labels(self, owner: Owner) -> dict[str, str]:
        """Return the labels of the volume claim."""
        return {
            "app.kubernetes.io/name": self.base,
            PART_OF: self.base,
            COMPONENT: DATA,
            MANAGED_BY: HARP,
            INSTANCE: label_value(owner.instance),
        }

    def annotations(self, *, role: bool = True) -> dict[str, str]:
        """Return exactly whose object it is. The claim has no role."""
        annotations = {APP: self.names.name}
        if role and self.names.role_suffix:
            annotations[ROLE] = self.names.role_suffix
        return annotations

    def objection(self, what: str, found: Metadata, owner: Owner, *, role: bool = True) -> str:
        """Return why an object of our name is not this ExApp's, "" when it is. Objects older than HaRP are adopted."""
        mine = label_value(owner.instance)
        instance = found.label(INSTANCE) or mine
        if instance != mine:
            return f"{what} belongs to another Nextcloud; if that was this one, set HP_INSTANCE_ID={instance}"
        app, its_role = found.annotation(APP), found.annotation(ROLE)
        if not app or (app.lower(), its_role if role else "") == (
            self.names.name.lower(),
            self.names.role_suffix if role else "",
        ):
            return ""
        of_role = f" (role {its_role})" if its_role else ""
        return f"{what} belongs to the ExApp {app}{of_role}: the names of both become the same in Kubernetes"


def label_value(text: str) -> str:
    """`text` where it can be the value of a label, else a hash of it."""
    if re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", text):
        return text
    return sha256(text.encode()).hexdigest()[:16]


def managed(labels: Mapping[str, str] | None) -> bool:
    """Return whether an object was made by a HaRP."""
    return (labels or {}).get(MANAGED_BY) == HARP
