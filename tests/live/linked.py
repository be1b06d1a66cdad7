"""Replicas by a fixed list, on one host, with one directory of certificates: what they have is links alone."""

from __future__ import annotations

import http.client
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.live.processes import PATIENCE
from tests.live.product import Product


class LinkedReplicas:
    """Them, by name."""

    def __init__(self, directory: Path, nextcloud: str, names: Sequence[str], **environment: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.list = directory / "list"
        self.certs = directory / "certs"
        self.all = {name: Product(directory / name, nextcloud, **environment) for name in names}
        for product in self.all.values():
            product.certs = self.certs
            product.environment["HP_CERTS_DIR"] = str(self.certs)
        self.certs.mkdir()

    def __getitem__(self, name: str) -> Product:
        return self.all[name]

    def write(self, names: Sequence[str]) -> None:
        """Have these in the list."""
        text = "".join(f"{name} 127.0.0.1 {self.all[name].frp}\n" for name in names)
        draft = self.list.with_suffix(".new")
        draft.write_text(text)
        draft.replace(self.list)

    def start(self, name: str) -> None:
        self.all[name].start([sys.executable, "-m", "tests.live.listed_replica", name, str(self.list)])

    def start_all(self) -> None:
        """One after another: each has those before it in its list, and waits for links with them."""
        for place, name in enumerate(self.all, 1):
            self.write([*self.all][:place])
            self.start(name)
        self.until_linked()

    def stop(self) -> None:
        for product in self.all.values():
            if product.started and product.process.running:
                product.process.signal(signal.SIGCONT)
                assert product.stop() == 0

    def linked(self, name: str) -> list[str]:
        """Whom this one is linked with, itself included."""
        return [line["name"] for line in self.all[name].told("members").get("members", []) if line["linked"]]

    def until_linked(self, names: Sequence[str] = (), seconds: float = PATIENCE) -> None:
        """Wait until these, or all, are linked with each other and with nobody else."""
        wanted = sorted(names or self.all)
        for name in wanted:
            self.all[name].process.until(lambda name=name: self.linked(name) == wanted, "links", seconds, 0.05)  # type: ignore[misc]

    def until_served(self, app: str, names: Sequence[str], seconds: float = PATIENCE) -> None:
        """Wait until these serve an ExApp."""
        for name in names:
            product = self.all[name]
            product.process.until(
                lambda product=product: product.status(f"/exapps/{app}/public") == 200,  # type: ignore[misc]
                f"{app} at {name}",
                seconds,
            )

    def client(self, name: str) -> http.client.HTTPConnection:
        """A connection to a replica."""
        return http.client.HTTPConnection("127.0.0.1", self.all[name].http, timeout=PATIENCE)


@contextmanager
def linked_replicas(
    directory: Path, nextcloud: str, names: Sequence[str] = ("a", "b", "c"), **environment: str
) -> Iterator[LinkedReplicas]:
    """Replicas that run inside the block."""
    replicas = LinkedReplicas(directory, nextcloud, names, **environment)
    try:
        replicas.start_all()
        yield replicas
    finally:
        replicas.stop()
