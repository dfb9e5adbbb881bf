"""What `kubectl vectorindex` must never do: take another's answer, pass what it could not check, overwrite."""

from __future__ import annotations

from .mutant import Mutant

_PLUGIN = "plugin/vectorindex_plugin"
_ASKING = "unit/test_plugin_asking.py::"
_LINT = "unit/test_plugin_lint.py::"
_DASHBOARD = "unit/test_plugin_dashboard.py::"
_SERVER = f"{_PLUGIN}/dashboard/server.py"

PLUGIN = (
    Mutant(
        "an answer to an earlier request is taken for one's own",
        f"{_PLUGIN}/asking.py",
        "if (one.verb, one.nonce) == (verb, self.nonce))",
        "if one.verb == verb)",
        (f"{_ASKING}test_an_older_answer_is_no_answer",),
        "A script would go on as if its rollback had been done.",
    ),
    Mutant(
        "a field is answered for before a pass has seen it",
        f"{_PLUGIN}/asking.py",
        "            if status.observed_generation < generation:\n                return None\n",
        "",
        (f"{_ASKING}test_a_field_is_answered_once_it_was_seen",),
        "`suspend` would say Done while the operator still begins something.",
    ),
    Mutant(
        "a rule that cannot be evaluated passes",
        f"{_PLUGIN}/lint/rules.py",
        '"" if holds else row["message"] + (',
        '"" if holds in (True, None) else row["message"] + (',
        (f"{_LINT}test_a_rule_that_cannot_be_evaluated_is_a_fault",),
        "An evaluator that breaks would have every manifest pass.",
    ),
    Mutant(
        "lint fills no defaults in before it asks the rules",
        f"{_PLUGIN}/lint/check.py",
        "    filled = schema.with_defaults(whole, index_schema())\n",
        "    filled = whole\n",
        (f"{_LINT}test_what_the_api_server_takes_is_taken",),
        "Rules would miss what a manifest leaves to its default, and refuse nearly all of them.",
    ),
    Mutant(
        "init overwrites a manifest",
        f"{_PLUGIN}/verbs/begin.py",
        '.open("x", encoding="utf-8")',
        '.open("w", encoding="utf-8")',
        ("unit/test_plugin_begin.py::test_what_is_there_is_not_overwritten",),
        "Somebody's work would be gone.",
    ),
    Mutant(
        "plan knows nothing of what an autoscaler wrote",
        f"{_PLUGIN}/applying.py",
        "if name in wanted or name not in before}",
        "if name in wanted}",
        ("unit/test_plugin_plan.py::test_an_apply_leaves_what_the_manifest_never_named",),
        "A plan would tell of pods that go, and none would.",
    ),
    Mutant(
        "the dashboard answers without its token",
        _SERVER,
        "if not hmac.compare_digest(given.encode(), self.token.encode()) or not slash:",
        "if not slash:",
        (f"{_DASHBOARD}test_without_the_token_there_is_nothing",),
        "Whatever runs on the machine could read the cluster with somebody else's kubeconfig.",
    ),
    Mutant(
        "the dashboard answers to any name",
        _SERVER,
        'if self.headers.get_all("Host", []) != [self.server.host]:',
        "if False:",
        (f"{_DASHBOARD}test_another_name_for_this_machine_is_refused",),
        "A name that somebody points to 127.0.0.1 would make their page one of ours (DNS rebinding).",
    ),
    Mutant(
        "a browser is told the dashboard's address as an argument",
        f"{_PLUGIN}/verbs/browse.py",
        "webbrowser.open(_way(Path(folder), server.url).as_uri())",
        "webbrowser.open(server.url)",
        (f"{_DASHBOARD}test_the_address_is_printed_and_no_program_is_told_of_it",),
        "Others on the machine could read its token in the list of processes.",
    ),
)
