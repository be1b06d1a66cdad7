"""Decisions, without clock, socket, log or waiting: values in, a verdict out.

`decide` is the order of all checks of a request, `routes` and `paths` determine what a path may mean, `client_address`
who asks; `claims`, `container`, `docker_api` and `registries` what tunnels, containers and engines may do.
"""
