"""Several replicas of one ExApp on a real node: each request goes to the one with the fewest (wide Role)."""

from __future__ import annotations

import http.client
import json
import select
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.live.kubernetes.api import until
from tests.live.kubernetes.deploy import ClusterApp, KubernetesDaemon, exapp, kubernetes_daemon
from tests.live.kubernetes.room import Room

pytestmark = pytest.mark.timeout(600)  # the first test starts the node

COUNT = 3
DEPLOYMENT = "nc-app-many"


@dataclass(slots=True)
class Replicated:
    """An ExApp with three replicas that wants a client's requests at the same one."""

    daemon: KubernetesDaemon
    app: ClusterApp

    def begin(self, path: str, cookie: str = "") -> http.client.HTTPConnection:
        """Send a request, whose answer can wait."""
        connection = http.client.HTTPConnection("127.0.0.1", self.daemon.product.http, timeout=60)
        connection.request("GET", f"/exapps/{self.app.app_id}{path}", headers={"Cookie": cookie} if cookie else {})
        return connection

    def pod(self, path: str = "/public/pod") -> str:
        """Make a request; the pod that has answered it."""
        return str(self.daemon.public(self.app, path).ok(200).json()["pod"])

    def pods(self, requests: int) -> list[str]:
        """Make requests, many at once; the pods that have answered them."""
        with ThreadPoolExecutor(6) as crowd:
            return list(crowd.map(lambda _: self.pod(), range(requests)))

    @property
    def ready(self) -> set[str]:
        """The pods that the cluster calls ready."""
        pods = self.daemon.room.list("Pod", f"app={DEPLOYMENT}")
        return {
            pod["metadata"]["name"]
            for pod in pods
            if "deletionTimestamp" not in pod["metadata"]
            and {"type": "Ready", "status": "True"}.items()
            <= next((one for one in pod["status"].get("conditions", ()) if one["type"] == "Ready"), {}).items()
        }

    def all_used(self) -> bool | None:
        """Whether each of the ready pods, and nobody else, answers."""
        ready = self.ready
        return (len(ready) == COUNT and set(self.pods(24)) == ready) or None


@pytest.fixture(scope="module")
def many(real: Room, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicated]:
    with kubernetes_daemon(tmp_path_factory.mktemp("wide"), real, "wide") as daemon:
        app = exapp("many", environment=("APP_STICKY_SESSIONS=true",))
        daemon.register(app)
        real.patch("Deployment", DEPLOYMENT, {"spec": {"replicas": COUNT}})  # as an autoscaler does
        replicated = Replicated(daemon, app)
        until(replicated.all_used, "answers of three pods", 180)
        yield replicated
        daemon.unregister(app, data=True)


def test_all_replicas_get_the_same_share(many: Replicated) -> None:
    for seconds in (3, 9, 27):
        crowd = [many.begin(f"/public/pod?after={seconds}s") for _ in range(3 * COUNT)]
        in_time = not select.select([connection.sock for connection in crowd], [], [], 0)[0]
        answered = [json.loads(connection.getresponse().read())["pod"] for connection in crowd]
        for connection in crowd:
            connection.close()
        if in_time:  # all of them were on their way at the same time
            assert sorted(answered) == sorted([*many.ready] * 3)
            return
    pytest.fail("a machine on which nine requests take half a minute to be sent")


def test_a_replica_that_is_busy_gets_nothing_while_others_are_free(many: Replicated) -> None:
    for seconds in (4, 8, 16, 32):
        slow = many.begin(f"/public/pod?after={seconds}s")
        quick = {many.pod() for _ in range(12)}
        in_time = not select.select([slow.sock], [], [], 0)[0]
        busy = slow.getresponse().read().decode()
        slow.close()
        if in_time:  # all of them were answered while it was busy
            assert not [pod for pod in quick if pod in busy]
            assert len(quick) == COUNT - 1
            return
    pytest.fail("a machine on which twelve requests take half a minute")


def test_a_client_of_a_sticky_exapp_stays_with_its_replica(many: Replicated) -> None:
    first = many.begin("/public/pod")
    answer = first.getresponse()
    pod = answer.read()
    cookie, *attributes = str(answer.getheader("Set-Cookie")).split("; ")
    first.close()
    assert attributes == ["Path=/exapps/many", "HttpOnly", "SameSite=Lax"]
    crowd = [many.begin("/public/pod?after=100ms", f"a=b; {cookie}") for _ in range(12)]
    answers = [connection.getresponse() for connection in crowd]
    assert {one.read() for one in answers} == {pod}
    assert {one.getheader("Set-Cookie") for one in answers} == {None}
    for connection in crowd:
        connection.close()


def test_a_replica_that_goes_away_loses_no_request(many: Replicated) -> None:
    before = many.ready
    gone = min(before)
    over = threading.Event()

    def client() -> list[int]:
        statuses = []
        while not over.is_set():
            statuses.append(many.daemon.public(many.app, "/public/pod?after=50ms").status)
        return statuses

    with ThreadPoolExecutor(6) as crowd:
        clients = [crowd.submit(client) for _ in range(6)]
        try:
            many.daemon.room.delete("Pod", gone)  # it ends at once, whatever it is at
            until(lambda: (len(many.ready) == COUNT and gone not in many.ready) or None, "another pod", 180)
        finally:
            over.set()
        statuses = [status for one in clients for status in one.result()]
    assert len(statuses) > 12
    assert set(statuses) == {200}
    until(many.all_used, "answers of the new pod", 180)
