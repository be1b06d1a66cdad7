"""An engine's own key opens its own tunnel, as long as its salt is good."""

from __future__ import annotations

from harp.policy.claims import engine_key_objection, engine_objection
from harp.policy.keys import engine_key, engine_of, is_engine_key, key_owner, own_key_of

SHARED = "the shared key"
TOKEN = engine_key(SHARED, "gpu.1", "salt")


def test_a_key_names_its_engine_and_proves_that_we_gave_it() -> None:
    assert engine_of(TOKEN) == "gpu.1"
    assert is_engine_key(TOKEN, SHARED, "gpu.1", "salt")
    assert "salt" not in TOKEN
    assert SHARED not in TOKEN


def test_another_salt_name_or_shared_key_is_another_key() -> None:
    assert not is_engine_key(TOKEN, SHARED, "gpu.1", "another salt")
    assert not is_engine_key(TOKEN, SHARED, "gpu.2", "salt")
    assert not is_engine_key(TOKEN, "another", "gpu.1", "salt")


def test_it_is_no_key_of_an_exapp_nor_the_other_way_round() -> None:
    assert own_key_of(TOKEN, SHARED) == ""
    assert key_owner(TOKEN) == "engine/gpu.1"  # which no ExApp can be named
    for token in ("", SHARED, "hello." + "0" * 64, "engine/gpu.1"):
        assert engine_of(token) == ""


def test_it_is_good_for_the_engines_own_name_and_port() -> None:
    assert engine_key_objection("gpu1", "gpu1", "gpu1") == ""
    assert "gpu1 only" in engine_key_objection("gpu1", "gpu2", "gpu2")
    assert "gpu1 only" in engine_key_objection("gpu1", "gpu1", "gpu2")
    assert engine_key_objection("", "", "") == ""  # nobody holds such a key


def test_with_the_shared_key_nobody_is_an_engine_that_has_its_own() -> None:
    assert engine_objection({24001: "gpu1"}, "gpu1", 24001) is None
    objection = engine_objection({24001: "gpu1"}, "gpu1", 24001, {"gpu1": "salt"})
    assert objection is not None
    assert objection.certain
    assert "harp engine add gpu1" in objection
