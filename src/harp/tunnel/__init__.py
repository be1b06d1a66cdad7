"""Tunnels in frp's protocol.

`mux` and `stream` are the transports around the yamux core of `wire.mux`, `relay` joins two connections; `server`
accepts tunnels, `client` dials them.
"""
