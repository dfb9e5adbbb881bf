"""The page of the dashboard in a real browser, on what the simulator's loop wrote: what it shows, and for whom."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from boards import Clock
from browsers import Tab
from layers import CHECKOUT
from record_objects import MOMENTS
from recorded import Recorded
from stories import crowd, life, livelier

NAMES = tuple(moment.__name__ for moment in MOMENTS)
INDEX = "search/products"
REACHED = "main a, main button, main summary"
SERIOUS = ("serious", "critical")
Show = Callable[..., Tab]


def everybody() -> list[Recorded]:
    """Each moment; the first is the one that most indexes are in."""
    return [Recorded.at(name) for name in ("promoted", *NAMES)]


def moment(name: str) -> Recorded:
    """One index as it was, with numbers of its own."""
    cluster = Recorded.at(name)
    livelier(cluster.objects, random.Random(name))
    return cluster


@pytest.fixture(scope="session")
def faults(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Faults of accessibility of all pages that were looked at. With --write they become the headline fact."""
    found: list[str] = []
    yield found
    if request.config.getoption("--write"):
        sys.path.insert(0, str(CHECKOUT / "bench"))
        import results

        results.add_to_summary({"dashboard.axe_serious": len(found)})


def has_text(page: Any, selector: str, words: str) -> None:
    """Waits until it has, and no other."""
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_have_text(words, timeout=20_000)


def judge(page: Any) -> list[str]:
    """What axe-core finds serious or critical, a line each."""
    from axe_playwright_python.sync_playwright import Axe

    said = Axe().run(page).response["violations"]
    return [
        f"{one['impact']} {one['id']}: {one['help']}: {', '.join(str(node['target']) for node in one['nodes'][:5])}"
        for one in said
        if one["impact"] in SERIOUS
    ]


# ---------------------------------------------------------------- what is shown


@pytest.mark.parametrize("name", NAMES)
def test_each_state_of_an_index(shown: Show, name: str) -> None:
    cluster = moment(name)
    tab = shown(cluster)
    tab.go(INDEX)
    page, status = tab.page, cluster.objects[0]["status"]
    assert page.inner_text("h1") == "products"
    assert page.inner_text(".summary .badge") == status["phase"]
    assert page.inner_text("#fresh") in ("live", "connecting")
    headings = page.locator("h2").all_inner_texts()
    assert {"Timeline", "Events", "In a terminal"} <= set(headings)
    if name == "building":
        assert "nvidia.com/gpu" in page.inner_text(".callout")
    else:
        assert {"Recall and its price", "Proof", "Searchers", "Jobs", "Decisions"} <= set(headings)
        assert page.locator(".timeline .phase, .timeline .end").count() >= 4
    assert ("Shadow pairs" in headings) == (name == "shadowing")
    tab.is_quiet()


def test_a_rollback_shows_its_numbers(shown: Show) -> None:
    tab = shown(moment("rolled_back"))
    tab.go(INDEX)
    page = tab.page
    failed = page.locator(".guardrails tr", has=page.locator(".badge.bad"))
    assert failed.count() == 1
    assert "zero" in failed.inner_text()
    assert failed.locator("svg.bullet").get_attribute("aria-label").startswith("50% (45% to 55%) where 5% is the most")
    assert "zero-result rate 50%" in page.inner_text(".summary .why")
    assert page.locator(".timeline .end.bad text").text_content() == "RolledBack"
    tab.is_quiet()


def test_two_hundred_indexes_with_a_filter(shown: Show) -> None:
    tab = shown(crowd(everybody(), 200))
    tab.go()
    page = tab.page
    assert page.locator("tbody tr").count() == 200
    assert page.locator("svg.spark").count() == 200
    tones = page.eval_on_selector_all("tbody .badge", "all => all.map((one) => one.className.split(' ')[1])")
    assert [tone for tone, _ in itertools.groupby(tones)] == ["bad", "moving", "good"], "what needs somebody is first"
    page.keyboard.press("/")
    page.keyboard.type("search tickets")
    names = page.locator("tbody a").all_inner_texts()
    assert names
    assert all(name.startswith("tickets") for name in names)
    page.fill("#filter", "nothing like this")
    assert page.inner_text(".none") == "None of them is like this."
    page.fill("#filter", "")
    page.click(".chip.bad")
    assert set(page.locator("tbody .badge").all_inner_texts()) <= {"RolledBack", "Rejected", "Stalled"}
    tab.is_quiet()


def test_news_of_200_indexes_cost_the_page_little(shown: Show) -> None:
    """Of the processor, so that it holds beside other programs: a tenth of a second every three is not felt."""
    cluster, clock = crowd(everybody(), 200), Clock()
    tab = shown(cluster, clock=clock)
    tab.go()
    session = tab.page.context.new_cdp_session(tab.page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def script_seconds() -> float:
        metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
        return float(metrics["ScriptDuration"] + metrics["LayoutDuration"] + metrics["RecalcStyleDuration"])

    before = script_seconds()
    indexes = [one for one in cluster.objects if one["kind"] == "VectorIndex"]
    for one in indexes[::10]:
        one["status"]["ready"] = "1/2"
    clock.at += 60
    with tab.page.expect_response("**/api/indexes"):
        pass
    has_text(tab.page, f"tr:has(a:text-is('{indexes[0]['metadata']['name']}')) .ready >> nth=0", "1/2")
    assert script_seconds() - before < 0.3
    tab.is_quiet()


class Film(Recorded):
    """A cluster that goes on to the next picture when it is told to."""

    def show(self, picture: Recorded) -> None:
        self.objects, self.now, self.logs = picture.objects, picture.now, picture.logs


def test_a_rollout_and_a_rollback_in_the_order_of_time(shown: Show) -> None:
    """The page is never loaded again: each picture reaches it by its next look."""
    pictures = life()
    first = next(one for one in pictures if one.objects[0].get("status", {}).get("phase"))
    film, clock = Film(first.objects, first.now), Clock()
    tab = shown(film, clock=clock)
    tab.go(INDEX)
    page = tab.page
    page.evaluate("document.querySelector('h1').dataset.same = 'yes'")
    seen, said = ["Resolving"], ""
    for picture in pictures:
        now = picture.objects[0]["status"]["phase"]
        if now == said:
            continue
        said = now
        film.show(picture)
        clock.at += 10
        tab.look()  # looks at once
        has_text(page, ".summary .badge", now)
        seen.append(now)
        if now == "Building":
            assert page.locator("progress").first.get_attribute("aria-label").startswith("adding rows: 5,212,000 of")
    story = [name for name, _ in itertools.groupby(seen)]
    for wanted in ("Building", "Stable", "Soaking", "RolledBack"):
        assert wanted in story
    assert story[-1] == "RolledBack"
    assert page.get_attribute("h1", "data-same") == "yes"
    assert page.locator(".timeline .track").count() == 4
    assert "GuardrailTripped" in page.inner_text("section:has(h2:text-is('Events'))")
    tab.is_quiet()


def test_the_cluster_goes_away_and_comes_back(shown: Show) -> None:
    cluster, clock = moment("soaking"), Clock()
    tab = shown(cluster, clock=clock)
    tab.go(INDEX)
    page = tab.page
    for down, words in ((True, "No news from the cluster: connection refused"), (False, "")):
        cluster.down = down
        clock.at += 10
        tab.look()
        has_text(page, "#lost", words)
        assert page.inner_text("h1") == "products"
    tab.is_quiet()


def test_an_index_that_goes(shown: Show) -> None:
    cluster, clock = moment("at_rest"), Clock()
    tab = shown(cluster, clock=clock)
    tab.go(INDEX)
    cluster.objects.clear()
    clock.at += 10
    tab.look()
    tab.page.wait_for_selector(".empty")
    assert "there is no VectorIndex 'products'" in tab.page.inner_text("main")
    tab.page.click("main a")
    tab.page.wait_for_selector(".indexes")
    assert "There is no VectorIndex here" in tab.page.inner_text("main")
    assert all("404" in words for words in tab.errors), tab.errors
    assert tab.elsewhere == []


def test_what_the_cluster_says_is_text(shown: Show) -> None:
    cluster = moment("rolled_back")
    for one in cluster.objects[0]["status"]["conditions"]:
        one["message"] = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
    tab = shown(cluster)
    tab.go(INDEX)
    assert "<img src=x" in tab.page.inner_text(".summary .why")
    tab.go()
    assert "<img src=x" in tab.page.inner_text("td.why")
    assert "taken" not in tab.page.title()
    tab.is_quiet()


# ---------------------------------------------------------------- for whom


@pytest.mark.parametrize("narrow", [False, True], ids=["wide", "narrow"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_who_reads_otherwise_can_use_it(shown: Show, faults: list[str], dark: bool, narrow: bool) -> None:
    """axe-core finds nothing serious, and nothing is wider than the screen."""
    found = []
    tab = shown(crowd(everybody(), 12), dark=dark, narrow=narrow)
    tab.go()
    found += judge(tab.page)
    cut = [_too_wide(tab.page)]
    for name in ("rolled_back", "shadowing", "building"):
        tab = shown(moment(name), dark=dark, narrow=narrow)
        tab.go(INDEX)
        tab.page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        found += [f"{name}: {line}" for line in judge(tab.page)]
        cut.append(_too_wide(tab.page))
        tab.is_quiet()
    faults += found
    assert found == []
    assert cut == [0] * 4


def _too_wide(page: Any) -> int:
    """Pixels that one would have to scroll to the side."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def test_everything_is_reached_by_the_keyboard(shown: Show) -> None:
    tab = shown(moment("rolled_back"))
    tab.go()
    page = tab.page
    page.evaluate("document.activeElement.blur()")
    assert {"a.skip", "input", "select"} <= {_tab(page) for _ in range(8)}
    page.focus("tbody a")
    page.keyboard.press("Enter")
    page.wait_for_selector(".summary")
    assert page.evaluate("document.activeElement.tagName") == "H1", "a reader of the screen hears the new view"
    wanted = page.evaluate(f"[...document.querySelectorAll({REACHED!r})].filter((one) => one.checkVisibility()).length")
    reached = [_tab(page) for _ in range(wanted + 30)]
    assert reached.count("summary") + reached.count("button") + reached.count("a") >= wanted
    outline = page.evaluate(
        "getComputedStyle(document.querySelector('.copy:focus') ?? document.activeElement).outlineStyle"
    )
    assert outline in ("solid", "auto")
    tab.is_quiet()


def _tab(page: Any) -> str:
    """What the next press of Tab comes to."""
    page.keyboard.press("Tab")
    found = page.evaluate("[document.activeElement.tagName.toLowerCase(), document.activeElement.className]")
    return "a.skip" if found[1] == "skip" else str(found[0])


def test_what_is_open_and_focused_stays_through_news(shown: Show) -> None:
    cluster, clock = moment("soaking"), Clock()
    tab = shown(cluster, clock=clock)
    tab.go(INDEX)
    page = tab.page
    page.click("details[data-id=timeline] > summary")
    page.focus("details[data-id=timeline] > summary")
    cluster.now += 5
    clock.at += 10
    with page.expect_response("**/products"):
        tab.look()
    page.wait_for_timeout(100)
    assert page.locator("details[data-id=timeline]").get_attribute("open") is not None
    assert page.evaluate("document.activeElement.parentElement.dataset.id") == "timeline"
    tab.is_quiet()


def test_a_command_is_copied(shown: Show) -> None:
    tab = shown(moment("rolled_back"))
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.go(INDEX)
    button = "button[aria-label='Copy the command for rollback']"
    tab.page.click(button)
    has_text(tab.page, button, "Copied")
    line = tab.page.evaluate("navigator.clipboard.readText()")
    assert line == "kubectl vectorindex rollback products -n search --context=prod"
    tab.is_quiet()


def test_nobody_looks_and_nothing_is_asked(shown: Show) -> None:
    cluster, clock = moment("soaking"), Clock()
    tab = shown(cluster, clock=clock)
    tab.go(INDEX)
    tab.page.evaluate("Object.defineProperty(document, 'hidden', {get: () => true})")
    tab.look()
    asked = []
    tab.page.on("request", lambda one: asked.append(one.url))
    tab.page.wait_for_timeout(3500)
    assert asked == []
