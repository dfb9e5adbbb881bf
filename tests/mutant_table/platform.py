"""What a platform says about pods and the Service, and what it refuses: never in the way of what serves."""

from __future__ import annotations

from .mutant import Edit, Mutant, seeds

_OPERATOR = "operator/vectorindex_operator"
_EXECUTE = f"{_OPERATOR}/reconcile/execute.py"
_PODS = "unit/test_pods_of_a_platform.py"
_KUEUE = "unit/test_kueue.py"
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
        f"{_OPERATOR}/core/state.py",
        "                words = row.message\n",
        "                words = str(words)\n",
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
    Mutant(
        "a Job for a queue begins before its turn",
        f"{_OPERATOR}/manifests/jobs.py",
        '        job["spec"]["suspend"] = True\n',
        "        pass\n",
        (f"{_KUEUE}::test_what_takes_cores_waits_for_its_turn_and_what_is_small_does_not",),
        "Where Kueue's webhook is not asked, it would take cores that others were promised.",
    ),
    Mutant(
        "a Job waits for its turn in no queue",
        f"{_OPERATOR}/manifests/jobs.py",
        '        job["metadata"]["labels"][labels.QUEUE] = name\n',
        "        pass\n",
        (f"{_KUEUE}::test_what_takes_cores_waits_for_its_turn_and_what_is_small_does_not",),
        "Nobody would ever let it go.",
        each=(seeds("builds_in_a_queue"), seeds("shards_in_a_queue"), seeds("taken_out_of_a_queue")),
    ),
    Mutant(
        "the pods of a Job are in the queue, too",
        f"{_OPERATOR}/manifests/jobs.py",
        '        job["metadata"]["labels"][labels.QUEUE] = name\n',
        '        for one in (job, job["spec"]["template"]):\n'
        '            one["metadata"]["labels"][labels.QUEUE] = name\n',
        (f"{_KUEUE}::test_what_takes_cores_waits_for_its_turn_and_what_is_small_does_not",),
        "Kueue would count their cores twice, and hold back pods of a Job that it has let go.",
    ),
    Mutant(
        "a Workload that cannot be read ends the pass",
        f"{_OPERATOR}/reconcile/kueue.py",
        "    except ClusterError as error:\n",
        "    except RefusedError as error:\n",
        (f"{_KUEUE}::test_whatever_ails_kueue_ends_no_pass",),
        "While Kueue's conversion webhook is down, no rollback of an index with a waiting Job would be made.",
        also=(
            Edit(
                f"{_OPERATOR}/reconcile/kueue.py",
                "from vectorindex_operator.reconcile.errors import ClusterError\n",
                "from vectorindex_operator.reconcile.errors import RefusedError\n",
            ),
        ),
    ),
    Mutant(
        "a forged Workload speaks for Kueue",
        f"{_OPERATOR}/reconcile/kueue.py",
        "    mine = [one for one in found if raw.is_owned(one, uid)]\n",
        "    mine = found\n",
        (f"{_KUEUE}::test_a_workload_of_somebody_elses_making_says_nothing",),
        "A label is anybody's to write, and would put words into the status.",
    ),
    Mutant(
        "every Job that carries our labels is asked about",
        f"{_OPERATOR}/reconcile/kueue.py",
        "for uid in waiting[:MOST_ASKED]}",
        "for uid in waiting}",
        (f"{_KUEUE}::test_only_a_job_that_waits_in_a_queue_is_asked_about_and_few_of_them",),
        "Somebody's thousand Jobs would be a thousand requests in each pass.",
    ),
    Mutant(
        "a Job in the wrong queue is waited for",
        f"{_OPERATOR}/core/progress/validate.py",
        "    if queue:\n",
        "    if False:\n",
        (f"{_KUEUE}::test_another_queue_is_another_try_of_what_waits_in_the_one_before",),
        "Whoever corrects `build.queueName` would wait for ever for the gate's Job in the old one.",
    ),
    Mutant(
        "nobody knows that a Job is suspended",
        f"{_OPERATOR}/reconcile/cache.py",
        '        small["spec"] = {"suspend": True} if raw.get("spec", {}).get("suspend") else {}\n',
        '        small["spec"] = {}\n',
        (f"{_KUEUE}::test_the_cache_keeps_whether_a_job_is_suspended_and_no_workload",),
        "One that waits for its turn would be said to be refused by a quota or a webhook.",
    ),
)
