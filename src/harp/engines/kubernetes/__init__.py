"""ExApps in a Kubernetes cluster: AppAPI's verbs on it, and where its ExApps are.

`client` talks to the API server, `login` has token and certificate authorities. `cluster` has the verbs, of which
`deploying`, `starting` and `exposing` are parts. `lookout` keeps the addresses, and `rights` what we may do.
Nothing here is loaded unless HP_K8S_ENABLED is on.
"""
