"""python flask_app.py PORT: Flask on Werkzeug, its routes as they are by default and without strict slashes."""

import os
import sys

from flask import Flask
from werkzeug.serving import WSGIRequestHandler, run_simple

HANDLERS = os.environ["HANDLERS"].split(",")


def application(strict: bool, merged: bool) -> Flask:
    """An app with one endpoint for each handler."""
    app = Flask(__name__)
    app.url_map.strict_slashes = strict
    app.url_map.merge_slashes = merged
    for path in HANDLERS:
        app.add_url_rule(path, path, lambda: "")
    return app


WAYS = {
    "default": application(True, True),
    "loose": application(False, True),
    "unmerged": application(False, False),
}


def run(environ, start_response):
    """Say which endpoint each app would run, and what PATH_INFO is in itself."""
    found = []
    for name, app in WAYS.items():
        adapter = app.create_url_adapter(app.request_class(dict(environ)))
        try:
            endpoint, _ = adapter.match()
        except Exception:
            endpoint = "-"
        found.append(f"{name}={endpoint}")
    info = environ["PATH_INFO"]
    for name, path in {"info": info, "info/": info.rstrip("/"), "info.strip": info.strip().lower()}.items():
        found.append(f"{name}={path if path in HANDLERS else '-'}")
    body = " ".join(found).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_):
        pass


run_simple("127.0.0.1", int(sys.argv[1]), run, request_handler=Handler, threaded=True)
