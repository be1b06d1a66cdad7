"""A real nginx with a configuration of the test's own."""

from __future__ import annotations

import os
from pathlib import Path

from tests.live.peers import path_of
from tests.live.processes import Process

TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def start_nginx(folder: Path, http: str) -> Process:
    """Start nginx with `http` as the inside of its http block; its files live in `folder`, its log is folder/log."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = "".join(f"{name}_temp_path {folder}/{name};" for name in TEMPORARY)
    (folder / "nginx.conf").write_text(f"""
    daemon off; worker_processes 1; pid {folder}/pid; error_log stderr; {"user root;" if os.geteuid() == 0 else ""}
    events {{ worker_connections 1024; }}
    http {{
        access_log off; {temporary}
        {http}
    }}""")
    argv = [path_of("nginx", "nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    return Process(argv, folder / "log")
