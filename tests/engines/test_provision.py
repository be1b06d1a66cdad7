"""Certificates in containers: what is read, what is written, and that nothing else happens."""

from __future__ import annotations

import asyncio
import io
import tarfile
from pathlib import Path

import pytest

from harp.engines.archive import unpack
from harp.engines.docker import DockerEngine
from harp.engines.errors import EngineError, EngineMissing
from harp.policy.ca_stores import File, certificates, pem
from harp.policy.container import Names
from harp.policy.subject_hash import subject_hash
from tests.engines.conftest import OWNER
from tests.fakes.engine import FakeContainer, FakeEngine
from tests.policy.test_ca_stores import authority

APP = Names("app")
CONTAINER = "nc_app_app"
ONE, TWO = authority("plain"), authority("mail")
BUNDLE = (pem(ONE) + pem(TWO)).decode()
DEBIAN = [File("/usr/lib/os-release", b"ID=debian\n"), File("/etc/os-release", link="../usr/lib/os-release")]
CERTS = "/etc/ssl/certs"
ANCHORS = "/usr/local/share/ca-certificates"


@pytest.fixture
def container(fake: FakeEngine) -> FakeContainer:
    return fake.add(CONTAINER, OWNER.instance)


def put(container: FakeContainer, *files: File) -> None:
    container.files |= {file.path: file for file in files}


async def install(engine: DockerEngine, bundle: str = BUNDLE, *, tunnel: bool = False) -> None:
    await engine.install_certificates(APP, bundle, tunnel=tunnel)


def written(fake: FakeEngine) -> list[tarfile.TarInfo]:
    """The members of the one archive that was sent."""
    puts = fake.called("PUT", f"/containers/{CONTAINER}/archive")
    assert len(puts) == 1
    assert puts[0].query == {"path": "/"}
    assert puts[0].headers["content-type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(puts[0].body)) as tar:
        return tar.getmembers()


async def test_the_tunnels_files_are_put_where_the_entry_point_looks_readable_for_anybody(
    engine: DockerEngine, fake: FakeEngine, container: FakeContainer
) -> None:
    await install(engine, "", tunnel=True)
    members = {member.name: (member.mode, member.uid, member.isdir()) for member in written(fake)}
    assert members == {
        "certs": (0o755, 0, True),
        "certs/frp": (0o755, 0, True),
        "certs/frp/ca.crt": (0o644, 0, False),
        "certs/frp/client.crt": (0o644, 0, False),
        "certs/frp/client.key": (0o644, 0, False),
    }
    assert container.files["/certs/frp/client.key"].content == b"this is client.key"


async def test_directories_that_are_there_are_left_alone(
    engine: DockerEngine, fake: FakeEngine, container: FakeContainer
) -> None:
    put(container, File("/certs/frp/old", b""))
    await install(engine, "", tunnel=True)
    assert not any(member.isdir() for member in written(fake))


async def test_without_a_complete_set_of_files_nothing_is_put(
    engine: DockerEngine, fake: FakeEngine, container: FakeContainer, frp_directory: Path
) -> None:
    await asyncio.to_thread((frp_directory / "client.key").unlink)
    await install(engine, "", tunnel=True)
    assert not fake.called("PUT", f"/containers/{CONTAINER}/archive")


async def test_a_debian_gets_cas_in_its_bundle_its_anchors_and_its_hashed_directory(
    engine: DockerEngine, container: FakeContainer
) -> None:
    put(container, *DEBIAN, File(f"{CERTS}/ca-certificates.crt", pem(ONE)), File(f"{ANCHORS}/.keep", b""))
    await install(engine)
    files = container.files
    assert certificates(files[f"{CERTS}/ca-certificates.crt"].content) == [ONE, TWO]
    link = files[f"{CERTS}/{subject_hash(TWO)}.0"].link
    assert link.startswith(f"{ANCHORS}/harp-")
    assert files[link].content == pem(TWO)
    assert f"{CERTS}/{subject_hash(ONE)}.0" not in files


async def test_a_second_time_there_is_nothing_to_do(
    engine: DockerEngine, fake: FakeEngine, container: FakeContainer
) -> None:
    put(container, *DEBIAN)
    await install(engine)
    await install(engine)
    assert len(fake.called("PUT", f"/containers/{CONTAINER}/archive")) == 1


async def test_a_bundle_is_found_through_links(engine: DockerEngine, container: FakeContainer) -> None:
    put(
        container,
        File("/etc/os-release", b'ID="fedora"'),
        File("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", link="../real.pem"),
        File("/etc/pki/ca-trust/extracted/real.pem", link="/data/bundle.pem"),
        File("/data/bundle.pem", pem(ONE), "", 0o444, 3, 4),
    )
    await install(engine)
    bundle = container.files["/data/bundle.pem"]
    assert certificates(bundle.content) == [ONE, TWO]
    assert (bundle.mode, bundle.uid, bundle.gid) == (0o444, 3, 4)
    assert container.files["/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"].link == "../real.pem"


async def test_a_hashed_directory_that_is_a_link_is_followed(engine: DockerEngine, container: FakeContainer) -> None:
    put(container, *DEBIAN, File(CERTS, link="/data/certs"), File("/data/certs/x.0", b""))
    await install(engine)
    assert f"/data/certs/{subject_hash(ONE)}.0" in container.files


async def test_a_loop_of_links_is_no_bundle(engine: DockerEngine, container: FakeContainer) -> None:
    put(container, File("/etc/os-release", link="os-release"), File("/usr/lib/os-release", link="/etc/os-release"))
    await install(engine)
    assert certificates(container.files[f"{CERTS}/ca-certificates.crt"].content) == [ONE, TWO]


async def test_an_empty_image_gets_a_bundle_all_the_same(engine: DockerEngine, container: FakeContainer) -> None:
    await install(engine, tunnel=True)
    assert certificates(container.files[f"{CERTS}/ca-certificates.crt"].content) == [ONE, TWO]
    assert "/certs/frp/ca.crt" in container.files


async def test_a_bundle_without_certificates_is_no_reason_to_fail(
    engine: DockerEngine, fake: FakeEngine, container: FakeContainer
) -> None:
    await install(engine, "not a certificate")
    assert not fake.called("PUT", f"/containers/{CONTAINER}/archive")


async def test_nothing_is_started_stopped_or_executed(engine: DockerEngine, fake: FakeEngine) -> None:
    for running in (True, False):
        fake.add(CONTAINER, OWNER.instance, Status="running" if running else "created", Running=running)
        await install(engine, tunnel=True)
    assert {call.method for call in fake.calls} <= {"GET", "HEAD", "PUT"}


async def test_a_container_that_is_not_there_is_missing(engine: DockerEngine) -> None:
    with pytest.raises(EngineMissing):
        await install(engine)


async def test_renewed_files_go_to_all_our_containers_that_have_them_and_to_nobody_else(
    engine: DockerEngine, fake: FakeEngine
) -> None:
    old = File("/certs/frp/client.crt", b"old")
    for name, owner in (("nc_app_a", OWNER.instance), ("nc_app_b", OWNER.instance), ("nc_app_c", "two")):
        fake.add(name, owner)
        if name != "nc_app_b":
            put(fake.containers[name], old)
    assert await engine.renew_tunnel_files() == 1
    assert fake.containers["nc_app_a"].files["/certs/frp/client.crt"].content == b"this is client.crt"
    assert fake.containers["nc_app_b"].files == {}
    assert fake.containers["nc_app_c"].files == {old.path: old}


def test_an_archive_that_is_none_is_an_error_of_the_engine() -> None:
    with pytest.raises(EngineError, match="archive of /x cannot be read"):
        unpack(b"x" * 2000, "/x")


async def test_an_engines_sparse_archive_is_refused_and_never_expanded(
    engine: DockerEngine, fake: FakeEngine, container: FakeContainer
) -> None:
    member = tarfile.TarInfo("ca-certificates.crt")
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 40)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member)
    fake.bodies["GET", f"/containers/{CONTAINER}/archive"] = buffer.getvalue()
    with pytest.raises(EngineError, match="sparse"):
        await install(engine)


async def test_an_archive_of_too_many_members_is_refused() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(10_001):
            tar.addfile(tarfile.TarInfo(str(number)))
    with pytest.raises(EngineError, match="more than 10000 members"):
        unpack(buffer.getvalue(), "/etc/ssl/certs")


async def test_an_alpine_or_debian_image_costs_one_file_read(
    engine: DockerEngine, fake: FakeEngine, container: FakeContainer
) -> None:
    bundle = File(f"{CERTS}/ca-certificates.crt", pem(ONE))
    put(container, *DEBIAN, bundle, File(f"{ANCHORS}/.", b""))
    await install(engine)
    assert [call.query["path"] for call in fake.called("GET", f"/containers/{CONTAINER}/archive")] == [CERTS]
    assert f"{ANCHORS}/" in "".join(container.files)
