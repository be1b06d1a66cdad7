"""Which engine has which port is remembered beside the certificates."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harp.state.engine_names import EngineNames, EngineNamesError


def test_nothing_is_known_before_the_first_engine(tmp_path: Path) -> None:
    assert EngineNames(tmp_path / "frp").all() == {}


def test_engines_are_remembered_by_their_ports(tmp_path: Path) -> None:
    names = EngineNames(tmp_path / "frp")
    with names.changing() as engines:
        engines[24002] = "gpu2"
        engines[24001] = "gpu1"
    assert EngineNames(tmp_path / "frp").all() == {24001: "gpu1", 24002: "gpu2"}
    assert names.path.read_text() == '{"24001":"gpu1","24002":"gpu2"}\n'


def test_a_change_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    names = EngineNames(tmp_path)
    with pytest.raises(KeyError), names.changing() as engines:
        engines[24001] = "gpu1"
        raise KeyError
    assert names.all() == {}


def test_changes_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    def add(port: int) -> None:
        with EngineNames(tmp_path).changing() as engines:
            engines[port] = f"gpu{port}"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(24001, 24041)))
    assert len(EngineNames(tmp_path).all()) == 40


@pytest.mark.parametrize("content", ["", "[]", '{"x": "gpu1"}', '{"24001": 1}', "\0"])
def test_a_damaged_file_is_reported_with_its_name_and_the_cure(tmp_path: Path, content: str) -> None:
    names = EngineNames(tmp_path)
    names.path.write_text(content)
    with pytest.raises(EngineNamesError, match=r"engines\.json: .*; put it right or remove it"):
        names.all()


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "frp").write_text("a file where the directory should be")
    with (
        pytest.raises(EngineNamesError, match="engine ports are remembered there"),
        EngineNames(tmp_path / "frp").changing(),
    ):
        pass
