"""What `helm test` runs: HaRP's own view of itself and of the cluster, as AppAPI's connection check gets it."""

import json
import os
import sys
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path

key = Path("/run/secrets/harp/shared-key").read_text().strip()
host, port = os.environ["HARP_HOST"], int(os.environ["HARP_PORT"])
for _ in range(30):
    try:
        connection = HTTPConnection(host, port, timeout=10)
        connection.request("GET", "/exapps/app_api/info", headers={"harp-shared-key": key})
        answer = connection.getresponse()
        content = answer.read()
        break
    except (OSError, HTTPException) as error:
        print(f"{host} port {port}: {error}", flush=True)
        time.sleep(1)
else:
    sys.exit("HaRP does not answer")
if answer.status != 200:
    sys.exit(f"HaRP answers {answer.status}: {content!r}")
info = json.loads(content)
print(json.dumps(info, indent=2))
cluster = info.get("kubernetes") or {}
if os.environ["REQUIRE_CLUSTER"] == "true":
    if not cluster.get("reachable"):
        sys.exit(f"HaRP cannot use the cluster: {cluster.get('error') or 'its log says why'}")
    if lacking := (cluster.get("missing_rights") or {}).get("deploy"):
        sys.exit(f"HaRP must be allowed to: {lacking}")
