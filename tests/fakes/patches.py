"""The two kinds of patches that an API server takes from us."""

from __future__ import annotations

from copy import deepcopy
from typing import Any


def merged(target: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def strategically_merged(target: Any, patch: Any) -> Any:
    """A strategic merge patch: lists of things with a name (or, of mounts, a path) are merged by it."""
    if isinstance(patch, list) and patch and all(isinstance(entry, dict) for entry in patch):
        key = "mountPath" if "mountPath" in patch[0] else "name"
        result = list(target or [])
        for entry in patch:
            at = next((number for number, there in enumerate(result) if there.get(key) == entry.get(key)), None)
            if at is None:
                result.append(deepcopy(entry))
            else:
                result[at] = strategically_merged(result[at], entry)
        return result
    if not isinstance(patch, dict):
        return deepcopy(patch)
    result_map = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result_map.pop(key, None)
        else:
            result_map[key] = strategically_merged(result_map.get(key), value)
    return result_map
