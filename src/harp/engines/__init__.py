"""Docker engines: what AppAPI's verbs do on them.

`inventory` knows which engine a port names and what state it is in, `docker` is one engine with the verbs of `verbs`;
`start`, `provision`, `pulls` and `links` are their longer parts, `api`, `connector` and `replies` carry the calls.
"""
