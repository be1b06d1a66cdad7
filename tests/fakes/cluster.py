"""A Kubernetes API server in memory, over real HTTP: one namespace's objects, in the statuses of the real one.

What it says was compared with Kubernetes 1.37. Pods appear when a Deployment is scaled up, in the status that
`pod_status` has; nothing else is controlled by itself. `calls` has every request.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from copy import deepcopy
from itertools import count
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.test_utils import TestServer

from harp.policy.kubernetes_rights import FEATURES, Feature, Rule, rules_for
from tests.fakes.patches import merged, strategically_merged

Object = dict[str, Any]

NAMESPACE = "nextcloud-exapps"
TOKEN = "the token of these tests"
GROUPS = {"deployments": "apps", "scaledobjects": "keda.sh", "endpointslices": "discovery.k8s.io"}
TIME = "2026-11-28T12:00:00Z"
LABEL = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
READY: Object = {
    "phase": "Running",
    "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
    "containerStatuses": [{"restartCount": 0, "state": {"running": {"startedAt": TIME}}}],
}


class FakeCluster:
    """The API server; `url` once it serves."""

    def __init__(self, features: Iterable[Feature] = FEATURES) -> None:
        self.rules: list[Rule] = rules_for(features)
        self.token = TOKEN
        self.objects: dict[tuple[str, str], Object] = {}  # by (resource, name)
        self.pod_status: Object = READY
        self.pods_end = True  # when their Deployment goes; False = they take their time until `end_pods`
        self.errors: dict[
            tuple[str, str], list[tuple[int, str]]
        ] = {}  # by (verb, resource): answered instead, once each
        self.logs: dict[str, str] = {}  # by pod
        self.calls: list[tuple[str, str, str]] = []  # (verb, resource, name)
        self.url = ""
        self._numbers = count(1)
        self._version = 100
        self._stopped = False
        self._changes: list[tuple[int, str, str, Object]] = []  # (version, resource, type, object)

    # What tests do

    def allow(self, features: Iterable[Feature]) -> None:
        """Have a Role of these features."""
        self.rules = rules_for(features)

    def get(self, resource: str, name: str) -> Object:
        return self.objects[resource, name]

    def names(self, resource: str) -> list[str]:
        return sorted(name for kind, name in self.objects if kind == resource)

    def put(self, resource: str, body: Object) -> Object:
        """Have an object, whoever made it."""
        body = deepcopy(body)
        metadata = body.setdefault("metadata", {})
        metadata.setdefault("uid", f"uid-{next(self._numbers)}")
        metadata.setdefault("creationTimestamp", TIME)
        self._store("ADDED" if (resource, metadata["name"]) not in self.objects else "MODIFIED", resource, body)
        return body

    def set_pods(self, status: Object) -> None:
        """Give all pods, and those to come, this status."""
        self.pod_status = status
        for (resource, _), body in list(self.objects.items()):
            if resource == "pods" and "deletionTimestamp" not in body["metadata"]:
                self.put(resource, {**body, "status": status})

    def end_pods(self) -> None:
        """Let go what waits for its end."""
        self.pods_end = True
        for (resource, name), body in list(self.objects.items()):
            if "deletionTimestamp" in body["metadata"]:
                self._drop(resource, name)

    def remove(self, resource: str, name: str) -> None:
        """Have an object gone, whoever removed it."""
        self._drop(resource, name)

    def tell(self, resource: str, kind: str, body: Object) -> None:
        """Send this to whoever watches."""
        self._version += 1
        self._changes.append((self._version, resource, kind, body))

    def called(self, verb: str, resource: str) -> int:
        return sum(1 for call in self.calls if call[:2] == (verb, resource))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[FakeCluster]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        async with TestServer(app) as server:
            self.url = f"http://{server.host}:{server.port}"
            yield self
            self._stopped = True
            await asyncio.sleep(0.01)  # watches end

    # Requests

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized", "Unauthorized")
        body = json.loads(await request.read() or b"null")
        if path == "/api":
            self.calls.append(("get", "/api", ""))
            return web.json_response({"kind": "APIVersions", "versions": ["v1"]})
        if path.endswith("/selfsubjectrulesreviews"):
            self.calls.append(("create", "selfsubjectrulesreviews", ""))
            return web.json_response(
                {"status": {"resourceRules": msgspec.to_builtins(self.rules), "incomplete": False}}, status=201
            )
        match = re.fullmatch(rf"/(?:api|apis)/(?:[^/]+/)?v[^/]+/(?:namespaces/{NAMESPACE}/)?([a-z]+)(?:/(.+))?", path)
        if match is None:
            return _status(404, "NotFound", "the server could not find the requested resource")
        return await self._resource(request, match[1], match[2] or "", body)

    async def _resource(self, request: web.Request, resource: str, name: str, body: Any) -> web.StreamResponse:
        name, _, subresource = name.partition("/")
        resource = f"{resource}/{subresource}" if subresource else resource
        verb = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}.get(request.method, "get" if name else "list")
        verb = "watch" if request.query.get("watch") else verb
        self.calls.append((verb, resource, name or (body or {}).get("metadata", {}).get("name", "")))
        if not any(rule.allows(GROUPS.get(resource, ""), resource, verb) for rule in self.rules):
            kind = f"{resource}.{GROUPS[resource]}" if resource in GROUPS else resource
            text = f'{kind} "{name}" is forbidden: User "harp" cannot {verb} resource "{resource}"'
            return _status(403, "Forbidden", text)
        if self.errors.get((verb, resource)):
            status, text = self.errors[verb, resource].pop(0)
            return _status(status, "InternalError", text)
        match verb:
            case "watch":
                return await self._watch(request, resource)
            case "list":
                items = [body for _, body in self._selected(request, resource)]
                return web.json_response({"metadata": {"resourceVersion": str(self._version)}, "items": items})
            case "create":
                return self._create(resource, body)
        if resource == "pods/log":
            return web.Response(text=self.logs.get(name, ""))
        found = self.objects.get((resource, name))
        if found is None:
            kind = f"{resource}.{GROUPS[resource]}" if resource in GROUPS else resource
            return _status(404, "NotFound", f'{kind} "{name}" not found')
        if verb == "get":
            return web.json_response(found)
        if verb == "patch":
            return self._patch(resource, found, body, request.content_type)
        return self._delete(resource, found, body or {})

    def _selected(self, request: web.Request, resource: str) -> list[tuple[str, Object]]:
        wanted = [part.partition("=")[::2] for part in request.query.get("labelSelector", "").split(",") if part]
        return [
            (name, body)
            for (kind, name), body in sorted(self.objects.items())
            if kind == resource and all(body["metadata"].get("labels", {}).get(key) == value for key, value in wanted)
        ]

    # Changes

    def _create(self, resource: str, body: Object) -> web.Response:
        name = body["metadata"]["name"]
        there = self.objects.get((resource, name))
        if there is not None:
            text = f'{resource} "{name}" already exists'
            if "deletionTimestamp" in there["metadata"]:
                text = f"object is being deleted: {text}"
            return _status(409, "AlreadyExists", text)
        for key, value in body["metadata"].get("labels", {}).items():
            if not LABEL.fullmatch(value):
                return _status(422, "Invalid", f'{name} is invalid: metadata.labels: Invalid value: "{value}" ({key})')
        if resource == "services":
            refusal = self._allocate(body)
            if refusal is not None:
                return refusal
        return web.json_response(self.put(resource, body), status=201)

    def _allocate(self, service: Object) -> web.Response | None:
        spec = service["spec"]
        spec.setdefault("clusterIP", f"10.96.0.{next(self._numbers)}")
        taken = {
            port.get("nodePort")
            for (kind, name), body in self.objects.items()
            if kind == "services" and name != service["metadata"]["name"]
            for port in body["spec"]["ports"]
        }
        for port in spec["ports"]:
            if spec["type"] == "ClusterIP":
                port.pop("nodePort", None)
            elif port.get("nodePort") in taken - {None}:
                text = f"spec.ports[0].nodePort: Invalid value: {port['nodePort']}: provided port is already allocated"
                return _status(422, "Invalid", text)
            else:
                port.setdefault("nodePort", 30000 + next(self._numbers))
        return None

    def _patch(self, resource: str, found: Object, patch: Object, kind: str) -> web.Response:
        merge = strategically_merged if "strategic" in kind else merged
        changed = merge(found, patch)
        if resource == "services":
            refusal = self._allocate(changed)
            if refusal is not None:
                return refusal
        self.put(resource, changed)
        if resource == "deployments":
            self._scale(changed)
        return web.json_response(changed)

    def _scale(self, deployment: Object) -> None:
        """Have as many pods of the present template as wanted."""
        name, template = deployment["metadata"]["name"], deployment["spec"]["template"]
        pods = [pod for _, pod in self._pods_of(name) if "deletionTimestamp" not in pod["metadata"]]
        current = [pod for pod in pods if pod["metadata"].get("annotations") == template["metadata"].get("annotations")]
        wanted = deployment["spec"]["replicas"]
        for pod in [pod for pod in pods if pod not in current] + current[wanted:]:
            self._end("pods", pod)
        for _ in range(wanted - len(current)):
            metadata = {**template["metadata"], "name": f"{name}-{next(self._numbers)}"}
            self.put("pods", {"metadata": metadata, "spec": template["spec"], "status": self.pod_status})

    def _pods_of(self, deployment: str) -> list[tuple[str, Object]]:
        return [
            (name, body)
            for (kind, name), body in list(self.objects.items())
            if kind == "pods" and body["metadata"]["labels"].get("app") == deployment
        ]

    def _delete(self, resource: str, found: Object, options: Object) -> web.Response:
        uid = options.get("preconditions", {}).get("uid")
        if uid is not None and uid != found["metadata"]["uid"]:
            return _status(409, "Conflict", "the UID in the precondition does not match")
        name = found["metadata"]["name"]
        if resource == "deployments":
            for _, pod in self._pods_of(name):
                self._end("pods", pod)
        waits = {
            "deployments": options.get("propagationPolicy") == "Foreground" and bool(self._pods_of(name)),
            "persistentvolumeclaims": any(kind == "pods" for kind, _ in self.objects),
        }
        if waits.get(resource):
            self.put(resource, {**found, "metadata": {**found["metadata"], "deletionTimestamp": TIME}})
        else:
            self._drop(resource, name)
        return web.json_response({"status": "Success"})

    def _end(self, resource: str, body: Object) -> None:
        if self.pods_end:
            self._drop(resource, body["metadata"]["name"])
        else:
            self.put(resource, {**body, "metadata": {**body["metadata"], "deletionTimestamp": TIME}})

    def _drop(self, resource: str, name: str) -> None:
        self._store("DELETED", resource, self.objects[resource, name])
        del self.objects[resource, name]

    def _store(self, kind: str, resource: str, body: Object) -> None:
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        self.objects[resource, body["metadata"]["name"]] = body
        self._changes.append((self._version, resource, kind, body))

    async def _watch(self, request: web.Request, resource: str) -> web.StreamResponse:
        seen = int(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        until = asyncio.get_running_loop().time() + float(request.query["timeoutSeconds"])
        while not self._stopped and asyncio.get_running_loop().time() < until:
            for version, kind, change, body in self._changes:
                if version > seen and kind == resource:
                    seen = version
                    await response.write(json.dumps({"type": change, "object": body}).encode() + b"\n")
            await asyncio.sleep(0.005)
        return response


def _status(status: int, reason: str, message: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason}
    return web.json_response({**body, "code": status}, status=status)
