"""python starlette_app.py PORT: Starlette (so FastAPI) on uvicorn, and Python's own ways to read a target."""

import os
import sys
from posixpath import normpath
from urllib.parse import unquote, urlparse, urlsplit

import uvicorn
from starlette.routing import Match, Route

HANDLERS = os.environ["HANDLERS"].split(",")
ROUTES = [Route(path, lambda request: None, name=path) for path in HANDLERS]


def routed(scope, path):
    """The path of the route that Starlette picks."""
    scope = {**scope, "path": path}
    return next((route.path for route in ROUTES if route.matches(scope)[0] is not Match.NONE), "-")


def attempt(read, target):
    """None where it raises."""
    try:
        return read(target)
    except ValueError:
        return None


WAYS = {
    "urlsplit": lambda target: urlsplit(target).path,
    "urlsplit-unquoted": lambda target: unquote(urlsplit(target).path),
    "urlparse": lambda target: unquote(urlparse(target).path),
    "unquoted-urlparse": lambda target: urlparse(unquote(target)).path,
    "twice": lambda target: unquote(unquote(target)),
    "normpath": lambda target: normpath(unquote(target)),
    "strip": lambda target: unquote(target).strip().lower(),
}


async def app(scope, receive, send):
    """Answer with what each way finds."""
    if scope["type"] != "http":
        return
    found = [f"starlette={routed(scope, scope['path'])}", f"slashes={routed(scope, scope['path'].rstrip('/'))}"]
    target = scope["raw_path"].decode("latin-1")
    for name, read in WAYS.items():
        path = attempt(read, target)
        bare = None if path is None else path.rstrip("/")
        found.append(f"{name}={path if path in HANDLERS else '-'}")
        found.append(f"{name}/={bare if bare in HANDLERS else '-'}")
    body = " ".join(found).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False)
