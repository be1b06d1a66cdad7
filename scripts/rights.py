"""Writes what HaRP must and may do on a cluster into the chart and the manifests, out of the one list of it.

scripts/rights.py            writes the files
scripts/rights.py --check    exits with 1 when one of them is not as it would be written
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from msgspec import to_builtins

from harp.policy.kubernetes_rights import DEPLOY, FEATURES, NODES, Feature, Rule, rules_for

DEPLOYMENTS = Path(__file__).parent.parent / "deploy"
EXAPPS = "harp\n  namespace: nextcloud-exapps"
NOT_BY_DEFAULT = {"nodes", "autoscalers"}
ROLE = """\
# Written by scripts/rights.py. It is for
{purposes}
apiVersion: rbac.authorization.k8s.io/v1
kind: {kind}
metadata:
  name: {name}
  labels: {{app.kubernetes.io/name: harp}}
rules:
"""


def files() -> dict[Path, str]:
    """Return every file with its content."""
    default = [one for one in FEATURES if one.name not in NOT_BY_DEFAULT]
    return {
        DEPLOYMENTS / "helm/harp/files/rights.json": _list(),
        DEPLOYMENTS / "kubernetes/base/role.yaml": _role("Role", EXAPPS, default),
        DEPLOYMENTS / "kubernetes/minimal/role.yaml": _role("Role", EXAPPS, [DEPLOY]),
        DEPLOYMENTS / "kubernetes/node-port/role.yaml": _role("ClusterRole", "harp-nodes", [NODES]),
    }


def _list() -> str:
    features = ",\n    ".join(json.dumps(to_builtins(feature)) for feature in FEATURES)
    return f'{{\n  "features": [\n    {features}\n  ]\n}}\n'


def _role(kind: str, name: str, features: list[Feature]) -> str:
    purposes = "\n".join(f"# - {feature.purpose}" for feature in features)
    return ROLE.format(kind=kind, name=name, purposes=purposes) + "".join(map(_rule, rules_for(features)))


def _rule(rule: Rule) -> str:
    return "".join(
        f"{'  - ' if first else '    '}{name}: {json.dumps(values)}\n"
        for first, name, values in (
            (True, "apiGroups", rule.apiGroups),
            (False, "resources", rule.resources),
            (False, "verbs", rule.verbs),
        )
    )


def main() -> int:
    """Write the files, or compare them."""
    wrong = []
    for path, content in files().items():
        if "--check" not in sys.argv:
            path.write_text(content)
        elif not path.exists() or path.read_text() != content:
            wrong.append(path)
    for path in wrong:
        print(f"{path} is not what the list of rights says: run scripts/rights.py", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
