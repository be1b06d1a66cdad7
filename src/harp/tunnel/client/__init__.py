"""The side that connects: a client for the same protocol, configured like frpc.

`client` keeps a tunnel connected, `streams` speaks on its connections; `frpc_config` reads frpc's configuration and
`frpc_toml` writes one.
"""
