"""What Nextcloud is asked: which ExApp an id names, and who a visitor is.

`Instance` is everything that is known of one Nextcloud. It asks through `client`, which takes `fair` turns and has a
`breaker`; `http` makes the calls, `payloads` reads the answers.
"""
