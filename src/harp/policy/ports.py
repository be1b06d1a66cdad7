"""The port numbers and the name that ExApps, engines and tunnels share with AppAPI (A 6.3, A 7.5, A 8.1).

A port here is a name in the port table; nothing listens on it unless HP_TUNNEL_LISTEN asks for it.
"""

from __future__ import annotations

EXAPP_PORTS = range(23000, 24000)  # AppAPI gives an ExApp the first that is free
LOCAL_ENGINE_PORT = 24000  # the engine of HaRP's own host, which needs no tunnel
ENGINE_PORTS = range(24001, 24100)  # remote engines, each behind a tunnel
SERVER_NAME = "harp.nc"  # what every tunnel client verifies in the server's certificate
MEMBER_MARK = "urn:harp:member"  # a name (subjectAltName URI) that only certificates of replicas have
