"""The control API that AppAPI calls under /exapps/app_api.

`api` is the application, `docker` has one short function for each verb, `passthrough` lets those calls of the Docker
API through that are harmless; `payloads` reads their bodies, and `failures` turns every error into a status.
"""
