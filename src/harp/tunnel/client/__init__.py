"""The side that dials: a client for the same protocol, configured as frpc is.

`client` keeps a tunnel connected, `streams` speaks on its connections; `frpc_config` reads frpc's configuration and
`frpc_toml` writes one.
"""
