"""What is remembered between requests, each bounded, with the clock passed in.

`records` are ExApps and `route_tables` their compiled routes, `sessions` are visitors that Nextcloud has named,
`bans` count strikes, `engine_names` are the ports that engines were given.
"""
