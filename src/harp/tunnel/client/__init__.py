"""The side that dials: a client for the same protocol, configured as frpc is."""
