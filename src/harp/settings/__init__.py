"""Environment -> one frozen `Settings`. Nothing else reads the environment.

`model` has the values and one line per variable, `reader` reads them and collects what is wrong, `parsers` turn the
text of a variable into a value; `kubernetes` and `cluster` have the sections of that name with their parsers.
Importing this package does nothing else.
"""

from harp.settings.cluster import ClusterSettings, StoreSettings
from harp.settings.kubernetes import ExAppPods, Kubernetes, Toleration
from harp.settings.model import (
    OBSOLETE,
    Address,
    Bans,
    Engines,
    Limits,
    Listen,
    Logs,
    Network,
    Nextcloud,
    Proxies,
    Reading,
    Settings,
    Timeouts,
    TunnelSettings,
    Value,
    examine,
    load,
)

__all__ = [
    "OBSOLETE",
    "Address",
    "Bans",
    "ClusterSettings",
    "Engines",
    "ExAppPods",
    "Kubernetes",
    "Limits",
    "Listen",
    "Logs",
    "Network",
    "Nextcloud",
    "Proxies",
    "Reading",
    "Settings",
    "StoreSettings",
    "Timeouts",
    "Toleration",
    "TunnelSettings",
    "Value",
    "examine",
    "load",
]
