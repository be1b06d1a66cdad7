"""The side that accepts tunnels.

`acceptor` and `pending` have connections until they log in, `tunnel` is one client after that; `claims`,
`claim_queue` and `claim_check` decide which ports it gets, `work_pool` has its idle connections, `loopback` opens its
ports locally.
"""
