"""The API's own description, in the form in which kubeconform reads it: one JSON Schema for each kind of object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.live.kubernetes.programs import BUILT

LOOSE = {  # types that YAML may write as a number
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["integer", "string"]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["number", "string"]},
}


NEWEST, OLDEST = "swagger.json", "swagger-oldest.json"


def write_schemas(directory: Path, description: str = NEWEST) -> str:
    """Write them; kubeconform's -schema-location. A field that the API does not know is an error."""
    definitions = json.loads((BUILT / description).read_text())["definitions"]
    strict = {name: LOOSE.get(name) or _strict(definition) for name, definition in definitions.items()}
    (directory / "all.json").write_text(json.dumps({"definitions": strict}))
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            group = kind["group"].split(".")[0]
            parts = [kind["kind"], *([group] if group else []), kind["version"]]
            path = directory / f"{'-'.join(parts).lower()}.json"
            path.write_text(json.dumps({"$ref": f"all.json#/definitions/{name}"}))
    return f"{directory}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"


def _strict(thing: Any) -> Any:
    """A definition that admits no further fields and whose references stay in the file."""
    if isinstance(thing, list):
        return [_strict(one) for one in thing]
    if not isinstance(thing, dict):
        return thing
    changed = {key: _strict(value) for key, value in thing.items()}
    if isinstance(thing.get("properties"), dict) and "additionalProperties" not in thing:
        changed["additionalProperties"] = False
    return changed
