"""The five revisions, one after the other, under traffic that never stops."""

from __future__ import annotations

import time
from contextlib import ExitStack

from demo import data, words
from demo.follow import Follower, counts
from demo.printer import Printer
from demo.stage import BUILD, Stage, manifest_for
from demo.summary import Summary
from harness import traffic as loads
from harness.base import CHECKOUT
from harness.errors import HarnessError
from harness.kube import Json
from harness.traffic import Traffic
from harness.waiting import wait_for

MANIFESTS = CHECKOUT / "examples" / "pydocs"
RATE = 250.0
QUIET_SECONDS = 5.0
"""A revision that gave no answer for so long is taken to be out of the traffic."""
RESYNC_SECONDS = 8.0


class Story:
    """Acts 1 to 5; each notes in the summary how its revision ended."""

    def __init__(self, stage: Stage, printer: Printer, summary: Summary) -> None:
        self._index, self._stage = stage.index, stage
        self._printer, self._summary = printer, summary
        self._follower = Follower(stage.index, printer, None)
        self._known: set[str] = set()

    def tell(self) -> None:
        """Everything, in order. Raises HarnessError when it cannot go on."""
        with ExitStack() as stack:
            try:
                first = self._first(stack)
                self._too_coarse(first)
                self._wrong_embedding(first)
                self._lost_module(first)
                self._more_documents(first)
            finally:
                if self._follower.traffic is not None:
                    self._summary.traffic = self._follower.traffic.stop()

    # ------------------------------------------------------------ the acts

    def _first(self, stack: ExitStack) -> str:
        self._printer.title("Revision 1: good data, a graph index")
        name = self._apply("1-first.yaml", "rev 1")
        self._follower.until_serving(name, "rev 1")
        queries = data.live_queries(BUILD)
        running = loads.to_index(self._stage.kube, self._stage.images, self._index, queries, rate=RATE)
        self._follower.traffic = stack.enter_context(running)
        status = self._follower.follow(name, "rev 1")
        self._outcome(name, "rev 1", status, "Stable", str(status.get("message", "")))
        seen = self._running.wait_answers(name, 30)
        self._printer.say(
            "traffic",
            f"{RATE:.0f} queries/s from now on: {len(set(queries)):,} keyword and question queries in turn, and every "
            f'{data.POPULAR_EVERY}th is "{data.POPULAR}"',
        )
        if seen.failed:
            raise HarnessError(seen.describe_failures())
        return name

    def _too_coarse(self, stable: str) -> None:
        self._printer.title("Revision 2: an index too coarse")
        before = self._running.snapshot().queries
        name = self._apply("2-too-coarse.yaml", "rev 2")
        status = self._follower.follow(name, "rev 2")
        self._outcome(name, "rev 2", status, "Rejected", f"{stable} goes on serving")
        self._say_untouched(stable, name, before)

    def _wrong_embedding(self, stable: str) -> None:
        self._printer.title("Revision 3: documents embedded wrongly, which recall cannot see")
        self._printer.say("data", f"docs-v3-wrong/: {self._stage.prepared.spoiled}")
        before = self._running.snapshot().queries
        name = self._apply("3-wrong-embedding.yaml", "rev 3")
        status = self._follower.follow(name, "rev 3")
        self._outcome(name, "rev 3", status, "ShadowRejected", f"{stable} goes on serving")
        self._say_untouched(stable, name, before)
        self._same_again("3-wrong-embedding.yaml", name)

    def _lost_module(self, stable: str) -> None:
        self._printer.title("Revision 4: what many ask for is gone, which is one query of many to a shadow")
        lost = self._stage.prepared.lost_rows
        self._printer.say("data", f"docs-v4-lost/: the first data without the {lost} documents of {data.LOST_MODULE}")
        name = self._apply("4-lost-module.yaml", "rev 4")
        status = self._follower.follow(name, "rev 4")
        if status.get("phase") == "RolledBack":
            self._summary.rollback = self._index.decision()
            self._wait_quiet(name)
            self._say_rollback(name, stable)
        self._outcome(name, "rev 4", status, "RolledBack", f"to {stable}, which had stayed loaded")

    def _more_documents(self, stable: str) -> None:
        with_words = ", and questions in words" if self._stage.encoder is not None else ""
        self._printer.title(f"Revision 5: all documents again, and more{with_words}")
        new = self._stage.prepared.new_rows
        self._printer.say("data", f"docs-v5/: the first data and {new} documents of {', '.join(data.NEW_MODULES)}")
        name = self._apply("5-more-documents.yaml", "rev 5")
        with ExitStack() as stack:
            asking = self._in_words(stack, name, stable) if self._stage.encoder is not None else None
            status = self._follower.follow(name, "rev 5")
            self._outcome(name, "rev 5", status, "Stable", str(status.get("message", "")))
            if asking is not None:
                self._summary.words = seen = asking.wait(lambda now: now.done, 90, "the last question in words")
                asked = f"questions in words, {words.RATE:.0f} a second beside the vectors: {words.told(seen)}"
                self._printer.say("words", asked, "bad" if seen.failed else "good")

    def _in_words(self, stack: ExitStack, name: str, before: str) -> Traffic | None:
        """Questions in words to the first revision that takes them, from when it alone answers; None: it never did."""
        self._follower.until_serving(name, "rev 5")
        if self._index.traffic() != name:
            return None
        self._wait_quiet(before)
        return stack.enter_context(words.asked(self._stage))

    # ------------------------------------------------------------ parts of them

    @property
    def _running(self) -> Traffic:
        assert self._follower.traffic is not None
        return self._follower.traffic

    def _apply(self, manifest: str, topic: str) -> str:
        """What a user types; the name of the revision that comes of it."""
        self._kubectl_apply(manifest)
        self._printer.say(topic, f"kubectl apply -f examples/pydocs/{manifest}")
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            new = [name for name in self._index.revisions() if name not in self._known]
            if new:
                self._known.update(new)
                return new[0]
            self._follower.count()
            time.sleep(0.25)
        raise HarnessError(f"no new revision in 120 s after applying {manifest}:\n{self._index.explain()}")

    def _kubectl_apply(self, manifest: str) -> str:
        with_words = self._stage.encoder is not None
        text = manifest_for(self._stage.kube.cluster, MANIFESTS / manifest, words=with_words)
        return self._stage.kube.kubectl("-n", self._index.namespace, "apply", "-f", "-", stdin=text).strip()

    def _outcome(self, name: str, topic: str, status: Json, expected: str, text: str) -> None:
        """Notes and says how a revision ended. Raises HarnessError when that is not what this act shows."""
        outcome = self._summary.add(name, status)
        if outcome != expected:
            raise HarnessError(f"{name} ended as {outcome}, expected {expected}\n{self._index.explain()}")
        shown = {"ShadowRejected": "REJECTED IN SHADOW", "RolledBack": "ROLLED BACK"}.get(outcome, outcome.upper())
        self._printer.say(topic, f"{shown}: {text}", "good")

    def _say_untouched(self, stable: str, rejected: str, before: int) -> None:
        """`before`: queries until its manifest was applied. Raises HarnessError if a user met what was rejected."""
        seen = self._running.snapshot()
        strays = seen.revisions[rejected].answers if rejected in seen.revisions else 0
        self._printer.say(
            "rev 1",
            f"{self._index.traffic()} was never touched: {seen.queries - before:,} queries meanwhile, {strays} of them "
            f"answered by {rejected}, {seen.failed} failed",
        )
        if self._index.traffic() != stable or strays:
            raise HarnessError(f"{stable} alone should have answered\n{self._index.explain()}")

    def _wait_quiet(self, name: str) -> None:
        """Until `name` has given no answer for a while: its last answer is known."""

        def quiet() -> bool:
            seen = self._running.snapshot()
            self._follower.count()
            return name not in seen.revisions or seen.at - seen.revisions[name].last_at > QUIET_SECONDS

        wait_for(quiet, 90, f"the last answer of {name}", last_seen=lambda: counts(self._running.snapshot()))

    def _say_rollback(self, bad: str, stable: str) -> None:
        self._summary.traffic = seen = self._running.snapshot()
        figures = self._summary.document()
        answers = seen.revisions[bad]
        self._printer.say(
            "rollback",
            f"one write to the Service, {figures['first_bad_to_trip_s']:.1f} s after the first bad answer; {stable} "
            f"answered again {figures['trip_to_switch_s']:.2f} s later, the last bad answer came "
            f"{figures['trip_to_last_bad_answer_s']:.2f} s later",
        )
        self._printer.say(
            "rollback",
            f"{answers.answers:,} answers were of it ({answers.zero_rate:.1%} without a hit, mean first hit "
            f"{answers.top_score:.3f} instead of {seen.revisions[stable].top_score:.3f}); {seen.failed} queries failed",
        )

    def _same_again(self, manifest: str, name: str) -> None:
        """What a GitOps tool does all day: the same manifest, and an annotation that makes the operator look."""
        before, generation = self._work(), self._index.get()["metadata"]["generation"]
        self._kubectl_apply(manifest)
        stamp = f"demo/synced-at={time.time():.0f}"
        self._stage.kube.kubectl(
            "-n", self._index.namespace, "annotate", "--overwrite", f"vix/{self._index.name}", stamp
        )
        until = time.monotonic() + RESYNC_SECONDS
        while time.monotonic() < until:
            self._follower.count()
            time.sleep(0.25)
        new = self._work() - before
        stalled = self._index.condition("Stalled")
        after = self._index.get()["metadata"]["generation"]
        if new or stalled.get("status") != "True" or after != generation:
            raise HarnessError(f"the same manifest again started {sorted(new)}\n{self._index.explain()}")
        self._printer.say(
            "again",
            f"the same manifest applied again: no new revision, no Job. {name} is remembered: Ready="
            f"{self._index.condition('Ready').get('status')}, RolledOut="
            f"{self._index.condition('RolledOut').get('status')}, Stalled=True/{stalled.get('reason')}",
            "good",
        )

    def _work(self) -> set[str]:
        """What builds or measures, by uid."""
        return {job["metadata"]["uid"] for job in self._index.jobs("build", "validate")} | set(self._index.revisions())
