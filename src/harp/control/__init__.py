"""The control API that AppAPI calls under /exapps/app_api.

`api` is the application, `docker` has one short function for each verb, `passthrough` forwards the harmless calls of
the Docker API; `payloads` reads their bodies, and `failures` turns every error into a status.
"""
