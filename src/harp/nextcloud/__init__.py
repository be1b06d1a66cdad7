"""Questions to Nextcloud: which ExApp an id names, and who a visitor is.

`Instance` has everything that is known about one Nextcloud. It asks through `client`, which takes `fair` turns and has
a `breaker`; `http` makes the calls, `payloads` reads the answers.
"""
