"""What an installation says about every pod that the operator makes: its user, its proxies, whom it trusts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from observations import actions, run, seen, spec
from unit.test_manifests_golden import CASES, INSTALLED, SECURED
from unit.test_pods_of_a_platform import PLAIN, revision

from vectorindex_operator.core.plan import EnsureSearchers, StartBuild
from vectorindex_operator.core.state import Installation, TrustBundle
from vectorindex_operator.manifests.render import render

Json = dict[str, Any]
ASSIGNED = replace(INSTALLED, fixed_user=False)
USER = {"runAsUser", "runAsGroup", "fsGroup"}
WITH_PODS = sorted(case for case in CASES if not case.startswith(("service", "network-policy")))


def pods(case: str, settings: Installation) -> Iterator[Json]:
    """Every pod template of the objects of a case."""
    action, obs, of = CASES[case]
    for manifest in render(action, obs, of, settings):
        if manifest["kind"] in ("Job", "Deployment"):
            yield manifest["spec"]["template"]["spec"]
        if manifest["kind"] == "VectorIndexRevision":
            yield manifest["spec"]["podTemplate"]["spec"]


# ---------------------------------------------------------------- the user


@pytest.mark.parametrize("case", [case for case in WITH_PODS if "searchers" not in case])
def test_without_a_fixed_user_pods_name_none_and_are_restricted_all_the_same(case: str) -> None:
    (fixed,), (pod,) = pods(case, INSTALLED), pods(case, ASSIGNED)
    assert fixed["securityContext"].keys() >= USER
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert pod["containers"][0]["securityContext"] == fixed["containers"][0]["securityContext"]


def test_secrets_can_be_read_where_no_group_owns_them() -> None:
    (fixed,), (pod,) = pods("revision-secured", INSTALLED), pods("revision-secured", ASSIGNED)
    modes = [
        [volume["secret"]["defaultMode"] for volume in one["volumes"] if "secret" in volume] for one in (fixed, pod)
    ]
    assert modes == [[0o440] * 2, [0o444] * 2]


@pytest.mark.parametrize("settings", [INSTALLED, ASSIGNED])
def test_what_was_frozen_with_one_user_is_loaded_with_it(settings: Installation) -> None:
    """A change of the installation restarts no pods: they go on as they were made."""
    view = revision(SECURED, "Stable")
    (template,) = pods("revision-secured", settings)
    frozen = view.spec.pod_template | {"spec": template}
    view = replace(view, spec=view.spec.model_copy(update={"pod_template": frozen}))
    obs = seen(SECURED, view, traffic=view)
    (action,) = actions(run(obs), EnsureSearchers)
    loaded = [render(action, obs, SECURED, one)[0]["spec"]["template"]["spec"] for one in (INSTALLED, ASSIGNED)]
    assert loaded[0] == loaded[1]
    assert loaded[0]["securityContext"] == template["securityContext"]
    assert loaded[0]["volumes"] == template["volumes"]


# ---------------------------------------------------------------- proxies, and whom pods trust

PROXIES = {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "localhost,.svc"}
HOUSE = replace(INSTALLED, proxies=PROXIES, trust_bundle=TrustBundle("house-ca", "ca.crt"))


@pytest.mark.parametrize("case", [case for case in WITH_PODS if "searchers" not in case])
def test_every_pod_gets_proxies_and_trusts_the_bundle(case: str) -> None:
    (pod,) = pods(case, HOUSE)
    (one,) = pod["containers"]
    given = {each["name"]: each.get("value") for each in one["env"]}
    assert given.items() >= PROXIES.items()
    (mount,) = [each for each in one["volumeMounts"] if each["name"] == "trust-bundle"]
    (volume,) = [each for each in pod["volumes"] if each["name"] == "trust-bundle"]
    (item,) = volume["configMap"]["items"]
    assert (volume["configMap"]["name"], item["key"], mount["readOnly"]) == ("house-ca", "ca.crt", True)
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        assert given[name] == f"{mount['mountPath']}/{item['path']}"


def test_searchers_keep_what_their_revision_was_made_with() -> None:
    """And a release that would drop it leaves such a revision alone."""
    (revision_of,) = render(*CASES["revision"], HOUSE)
    assert revision_of["spec"]["requires"] == ["pod.env"]
    view = revision(PLAIN, "Stable")
    view = replace(view, spec=view.spec.model_copy(update={"pod_template": revision_of["spec"]["podTemplate"]}))
    obs = seen(PLAIN, view, traffic=view)
    (action,) = actions(run(obs), EnsureSearchers)
    pod = render(action, obs, PLAIN, INSTALLED)[0]["spec"]["template"]["spec"]
    assert {each["name"] for each in pod["containers"][0]["env"]} >= {*PROXIES, "AWS_CA_BUNDLE"}
    assert [each["name"] for each in pod["volumes"]] == ["tmp", "cache", "trust-bundle"]


def test_a_user_may_choose_another_proxy() -> None:
    env = [{"name": "HTTPS_PROXY", "value": "http://other:1"}]
    of = spec(build={"device": "CPU", "pod": {"env": env}})
    obs = seen(of, revision(of, "Pending"))
    (action,) = actions(run(obs), StartBuild)
    (one,) = render(action, obs, of, HOUSE)[0]["spec"]["template"]["spec"]["containers"]
    names = [each["name"] for each in one["env"]]
    assert len(names) == len(set(names)), "a list that is keyed by name takes none twice"
    assert {"name": "HTTPS_PROXY", "value": "http://other:1"} in one["env"]
    assert "NO_PROXY" in names
