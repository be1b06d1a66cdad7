"""The list of what a cluster must and may allow."""

from __future__ import annotations

import pytest

from harp.policy.kubernetes_rights import (
    DEPLOY,
    FEATURES,
    LOGS,
    NODES,
    WATCH,
    Right,
    Rule,
    missing,
    rules_for,
)

EVERYTHING = Rule(["*"], ["*"], ["*"])


def test_a_role_made_for_features_lacks_none_of_their_rights() -> None:
    rules = rules_for(FEATURES)
    assert not any(missing(rules, feature) for feature in FEATURES)


def test_a_role_has_one_rule_for_each_kind_of_object() -> None:
    kinds = [(rule.apiGroups, rule.resources) for rule in rules_for(FEATURES)]
    assert all(kinds.count(kind) == 1 for kind in kinds)


def test_the_role_for_deploying_is_the_one_that_is_documented_elsewhere() -> None:
    assert {(str(rule.resources), " ".join(rule.verbs)) for rule in rules_for([DEPLOY, NODES])} == {
        ("['deployments']", "get list create patch delete"),
        ("['services']", "get list create delete"),
        ("['persistentvolumeclaims']", "create delete"),
        ("['pods']", "list"),
        ("['nodes']", "list"),
    }


def test_what_is_missing_is_named_verb_by_verb() -> None:
    rules = [*rules_for([DEPLOY]), Rule(["watch"], ["apps"], ["deployments"])]
    assert missing(rules, DEPLOY) == []
    assert missing(rules, WATCH) == [Right("", "services", ("watch",))]
    assert str(missing(rules, LOGS)[0]) == "get pods/log"
    assert str(missing([], WATCH)[0]) == "watch deployments.apps"


@pytest.mark.parametrize("rule", [EVERYTHING, Rule(["get"], [""], ["*/log"]), Rule(["*"], [""], ["pods/log"])])
def test_wildcards_allow_what_they_stand_for(rule: Rule) -> None:
    assert missing([rule], LOGS) == []


def test_a_right_to_objects_of_some_names_is_not_the_right_to_all() -> None:
    assert missing([Rule(["get"], [""], ["pods/log"], ["one"])], LOGS) != []


def test_pods_are_not_their_logs() -> None:
    assert missing([Rule(["get"], [""], ["pods"])], LOGS) != []
