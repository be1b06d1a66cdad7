"""HaRP: the gateway that lets a Nextcloud run ExApps."""

__version__ = "0.5.0"
