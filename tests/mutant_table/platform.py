"""What a platform says about pods and the Service, and what it refuses: never in the way of what serves."""

from __future__ import annotations

from .mutant import Mutant

_OPERATOR = "operator/vectorindex_operator"
_EXECUTE = f"{_OPERATOR}/reconcile/execute.py"
_PODS = "unit/test_pods_of_a_platform.py"
_REFUSED = "unit/test_pods_refused.py"
_FRONT = "unit/test_front_service.py"

PLATFORM = (
    Mutant(
        "pods that no API server makes are frozen into a revision",
        _EXECUTE,
        "                return self._pods_are_valid() and self._write(action)\n",
        "                return self._write(action)\n",
        (f"{_PODS}::test_pods_that_no_api_server_makes_are_told_and_nothing_is_frozen",),
        "A typo would be built and proven, and then hang in a rollout.",
    ),
    Mutant(
        "a quota of today keeps a revision from being made",
        _EXECUTE,
        "        except InvalidError as error:\n",
        "        except (InvalidError, RefusedError) as error:\n",
        (f"{_PODS}::test_what_may_pass_by_itself_stops_nothing",),
        "Nothing would be built while the namespace is full of what the new revision replaces.",
    ),
    Mutant(
        "the kubelet fills in what a user names",
        "searcher/vectorindex_searcher/contract/model.py",
        '    return text.replace("$", "\\\\u0024")\n',
        "    return text\n",
        (f"{_PODS}::test_nothing_that_a_user_names_is_filled_in_by_the_kubelet",),
        "A prefix `$(SOURCE_...)` would be shown, with the Secret's key in its place, in a status.",
    ),
    Mutant(
        "labels that a user gives go before ours",
        f"{_OPERATOR}/manifests/podspec.py",
        "            meta[field] = {**marks, **meta.get(field, {})}\n",
        "            meta[field] = {**meta.get(field, {}), **marks}\n",
        (f"{_PODS}::test_a_label_of_ours_stands_whatever_is_asked_for",),
        "Pods of one revision would get the queries of another, where an older CRD lets such a label pass.",
    ),
    Mutant(
        "a release that drops variables may render a revision that has some",
        f"{_OPERATOR}/manifests/revisions.py",
        '    env = (POD_ENV,) if "env" in template["spec"]["containers"][0] else ()\n',
        '    env = (POD_ENV,) if "env" in template["spec"] else ()\n',
        (f"{_PODS}::test_a_revision_with_variables_is_left_alone_by_releases_that_would_drop_them",),
        "After a downgrade its pods would be replaced by ones without the proxy through which they load.",
    ),
    Mutant(
        "an edit of the Service counts as one of the pods",
        f"{_OPERATOR}/core/identity.py",
        '    none_of_theirs = {"searcher": {"network_policy", "service"}}\n',
        '    none_of_theirs = {"searcher": {"network_policy"}}\n',
        (f"{_FRONT}::test_it_touches_no_pod_and_makes_no_revision",),
        "Every Deployment would be written for an annotation of the Service.",
    ),
    Mutant(
        "what a note on the Service names is taken off it, whatever it is",
        f"{_OPERATOR}/manifests/service.py",
        "if isinstance(one, str) and not one.startswith(",
        'if isinstance(one, str) and not one.startswith("/" + ',
        (f"{_FRONT}::test_a_garbled_note_takes_nothing_of_ours_away",),
        "A note that somebody garbled would take away the decision that says who has the traffic, and why.",
    ),
    Mutant(
        "every number of a quota is written",
        f"{_OPERATOR}/core/safety/keep_loaded.py",
        "            words = row.message\n",
        "            words = str(words)\n",
        (f"{_REFUSED}::test_numbers_that_change_are_no_news",),
        "A full namespace would have its status written at each try of each controller.",
    ),
    Mutant(
        "a quota counts against the revision",
        f"{_OPERATOR}/core/progress/surge.py",
        "    if not placed or loaded.refused or waiting",
        "    if not placed or waiting",
        (f"{_REFUSED}::test_a_quota_is_no_fault_of_the_revision",),
        "A good revision would be given up because the namespace has room for one pod of two.",
    ),
)
