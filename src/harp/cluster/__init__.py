"""Several processes that are one HaRP.

A member is a whole gateway. `links` carry streams and news between members, `directory` has who holds which tunnel,
`events` are what members tell each other besides, and `members` is all of it together, for one process.
Replicas find each other by the `roster`, which is in a `store`; the `linker` dials those of the list, and an
`introduction` is what two of them say before they have a link.
"""
