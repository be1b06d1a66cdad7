"""Client connections, from their first byte to the hop that their request takes.

`connection` is the shell around one connection, `gate` finds out who may pass and where to, with `caller` and `plans`
as its memories; `answers` are the pages that we write ourselves, `access` is the access log.
"""
