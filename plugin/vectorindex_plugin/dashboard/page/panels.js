// Panels that are lists: shadow, pods, Jobs, decisions, Events, and what one types.

import { h } from "./dom.js";
import { chart } from "./guardrails.js";
import { ago, badge, count, mark, now, panel, short, span, table, unix } from "./words.js";

export function shadow(shadows) {
  const [one] = shadows; // of the newest revision that had one
  if (!one) return null;
  const over = Boolean(one.endedAt);
  const tone = over ? (["Passed", "Switched"].includes(one.outcome) ? "good" : one.outcome === "Failed" ? "bad" : "moving") : "moving";
  return panel("Shadow pairs", `${short(one.revision)} answers the queries of ${short(one.reference)}, unseen`,
    h("p", { class: "line" }, badge(tone, over ? one.outcome : "compares"), h("span", { class: "sub inline" }, over ? ["ended ", ago(one.endedAt)] : ["began ", ago(one.startedAt), `, for ${one.duration} to ${one.most}`])),
    one.message && h("p", { class: "note" }, one.message),
    h("p", { class: "meter" }, bar(one.compared, one.wanted, `${count(one.compared)} of ${count(one.wanted)} queries`), h("span", { class: "sub inline" }, `${count(one.compared)} queries compared, ${count(one.wanted)} wanted`)),
    table("What the pairs say", ["Rule", "Verdict", "Value against bound", "#Value", "#Pairs"],
      one.rows.map((row) => [h("th", { scope: "row" }, row.said.rule, h("span", { class: "sub" }, row.said.metric)), badge(row.tone, row.said.verdict), h("td", { class: "chart" }, chart(row)), h("td", { class: "number" }, row.said.value || "–"), h("td", { class: "number" }, count(row.said.samples))])));
}

/** A bar that says its words to who does not see it. */
const bar = (value, most, words) => h("progress", { value: Math.min(value, most), max: Math.max(1, most), "aria-label": words });

export function pods(revisions) {
  const loaded = revisions.filter((one) => one.pods.length || one.replicas);
  if (!loaded.length) return null;
  const tones = { Ready: "good", Failed: "bad", Unschedulable: "bad" };
  return panel("Searchers", "", loaded.map((one) => h("div", { class: "group" },
    h("h3", {}, h("span", { class: "mono" }, short(one.name)), h("span", { class: "sub inline" }, `${one.ready} of ${one.replicas} ready`)),
    h("ul", { class: "plain" }, one.pods.map((pod) => h("li", {}, badge(tones[pod.state] ?? "moving", pod.state), h("span", { class: "mono" }, pod.name), (pod.restarts > 0 || pod.why) && h("span", { class: "sub inline" }, [pod.restarts > 0 && `${pod.restarts} restarts`, pod.why].filter(Boolean).join("; "))))))));
}

const JOBS = 5; // that are shown at once

export function jobs(found) {
  if (!found.length) return null;
  const rows = found.map((one) => [
    h("th", { scope: "row" }, one.task, h("span", { class: "sub mono" }, one.revision ? short(one.revision) : "", one.device === "gpu" ? " on a GPU" : "")),
    badge(one.tone, one.state), h("td", {}, far(one)), ago(one.createdAt)]);
  const some = (name, shown) => table(name, ["Task", "State", "How far", "Begun"], shown);
  return panel("Jobs", "", some("Jobs", rows.slice(0, JOBS)),
    rows.length > JOBS && h("details", { "data-id": "jobs" }, h("summary", {}, `${rows.length - JOBS} more`), some("Earlier Jobs", rows.slice(JOBS))));
}

function far(one) {
  if (one.finishedAt) return h("span", {}, `took ${span(unix(one.finishedAt) - unix(one.createdAt))}`, one.why && h("span", { class: "sub" }, one.why));
  if (one.why) return h("span", { class: "sub" }, one.why);
  const { progress, expectedSeconds } = one;
  if (progress?.total) return h("span", {}, bar(progress.done, progress.total, `${progress.step}: ${count(progress.done)} of ${count(progress.total)} rows`), h("span", { class: "sub" }, `${progress.step}, ${count(progress.done)} of ${count(progress.total)} rows${progress.etaSeconds !== undefined ? `, ${span(progress.etaSeconds)} left` : ""}`));
  const usual = expectedSeconds !== undefined ? `; the last one took ${span(expectedSeconds)}` : "";
  const elapsed = now() - unix(one.createdAt);
  return h("span", {}, expectedSeconds !== undefined && bar(elapsed, Math.max(expectedSeconds, elapsed), `runs${usual}`), h("span", { class: "sub" }, `${progress?.step || "runs"}${usual}`));
}

const SHOWN = 8;

/** The first rows, and the others behind a word. */
function folded(id, rows) {
  const list = (some) => h("ol", { class: "story" }, some);
  return [list(rows.slice(0, SHOWN)), rows.length > SHOWN && h("details", { "data-id": id }, h("summary", {}, `${rows.length - SHOWN} more`), list(rows.slice(SHOWN)))];
}

export function decisions(found) {
  if (!found.length) return null;
  const tones = { RolledBack: "bad", Rejected: "bad", Failed: "bad", Held: "moving" };
  return panel("Decisions", "by which rule, with which numbers", folded("decisions", found.map((one) => h("li", {},
    h("div", {}, badge(tones[one.what] ?? "good", one.what), h("span", { class: "mono" }, short(one.revision)), h("span", { class: "sub inline" }, ago(one.at))),
    h("p", {}, one.message || one.reason), one.runbook && h("p", { class: "note mono" }, one.runbook)))));
}

export function events(found, refused) {
  if (refused) return null; // it is named among what may not be read
  const rows = found.map((one) => h("li", {}, h("div", {}, mark(one.warning ? "bad" : "quiet"), h("b", {}, one.reason), h("span", { class: "unseen" }, one.warning ? "(warning)" : ""), h("span", { class: "sub inline" }, ago(one.at))), h("p", {}, one.note)));
  return panel("Events", "", rows.length ? folded("events", rows) : h("p", { class: "none" }, "None in the last hour."));
}

export function commands(lines) {
  const group = (title, some) => h("div", { class: "group" }, h("h3", {}, title), h("ul", { class: "lines" }, some.map((one) => h("li", {}, h("span", { class: "does" }, one.does.split("\n")[0]), h("code", {}, one.line), copy(one)))));
  return panel("In a terminal", "this page only reads", h("div", { class: "halves" }, group("Ask for something", lines.filter((one) => one.writes)), group("See more", lines.filter((one) => !one.writes))));
}

function copy(one) {
  const words = h("span", { "aria-live": "polite" }, "Copy");
  const button = h("button", { type: "button", class: "copy", "aria-label": `Copy the command for ${one.verb}`, onclick: async () => {
    try {
      await navigator.clipboard.writeText(one.line);
      words.textContent = "Copied";
    } catch { // a browser that lets no page copy: it is selected, to be copied by hand
      getSelection().selectAllChildren(button.previousElementSibling);
      words.textContent = "Selected";
    }
    setTimeout(() => (words.textContent = "Copy"), 2000);
  } }, words);
  return button;
}
