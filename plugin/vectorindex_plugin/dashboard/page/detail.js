// One index: where it stands and why, then each panel with what there is.

import { guardrails } from "./guardrails.js";
import { arrange, h } from "./dom.js";
import { classes, frontier } from "./frontier.js";
import { commands, decisions, events, jobs, pods, shadow } from "./panels.js";
import { timeline } from "./timeline.js";
import { ago, badge, count, digits, mark, reachable, share, short, size } from "./words.js";

const SAID = { Ready: "Not ready", UpToDate: "Edits", RollbackPossible: "Way back", FreshRows: "Fresh rows" };
const ALWAYS_SAID = "FreshRows"; // the others when they are not true

export function detail(namespace, name) {
  const head = h("div", { class: "head" });
  const [top, left, right, bottom] = ["parts", "column", "column", "parts"].map((name) => h("div", { class: name }));
  const grid = h("div", { class: "parts" }, top, h("div", { class: "columns" }, left, right), bottom);
  grid.addEventListener("toggle", () => reachable(grid), true);
  const root = h("div", { class: "view" },
    h("nav", { "aria-label": "Breadcrumb", class: "crumbs" }, h("a", { href: "#/" }, "Indexes"), h("span", { "aria-hidden": "true" }, "/"), h("span", {}, namespace)),
    h("h1", { tabindex: -1 }, name), head, grid);
  const drawn = new Map(); // panel -> {said, node}

  /** The panel again, or the one that stands there if it would say the same: what somebody reads, or has focused, stays. */
  function part(id, draw, ...facts) {
    const said = JSON.stringify(facts);
    const had = drawn.get(id);
    if (had?.said === said) return had.node;
    const node = draw(...facts);
    drawn.set(id, { said, node });
    return node;
  }

  let last;
  const draw = () => {
    const { index, revisions } = last;
    const shadows = revisions.map((one) => one.shadow).filter(Boolean);
    head.replaceChildren(part("summary", summary, index, last.tone), part("strip", strip, last));
    swap(grid, [
      [top, [part("timeline", timeline, last.timeline, index.revisions, revisions, last.now, root.clientWidth), part("guardrails", guardrails, revisions.filter((one) => one.charts.length))]],
      [left, [part("frontier", frontier, last.frontier, root.clientWidth), part("jobs", jobs, last.jobs, last.jobs.some((one) => !one.finishedAt) && last.now), part("decisions", decisions, last.decisions)]],
      [right, [part("shadow", shadow, shadows), part("classes", classes, revisions, last.frontier.floor), part("pods", pods, index.revisions), part("events", events, last.events, index.hidden.Event)]],
      [bottom, [part("commands", commands, last.lines), part("hidden", unread, index.hidden)]],
    ]);
    reachable(grid);
  };
  new ResizeObserver(() => last && requestAnimationFrame(draw)).observe(root);
  return { path: `api/index/${namespace}/${name}`, title: `${namespace}/${name}`, root, update: (said) => { last = said; draw(); } };
}

/** New panels in the places of old ones; the others are not touched. What is open, and what has the focus, stays so. */
function swap(grid, places) {
  const focused = grid.contains(document.activeElement) ? handle(document.activeElement) : "";
  const open = new Map([...grid.querySelectorAll("details")].map((one) => [one.dataset.id, one.open]));
  for (const [place, parts] of places) arrange(place, parts.filter(Boolean));
  for (const one of grid.querySelectorAll("details")) if (open.has(one.dataset.id)) one.open = open.get(one.dataset.id);
  if (focused && !grid.contains(document.activeElement)) grid.querySelector(focused)?.focus({ preventScroll: true });
}

/** A selector by which an element is found again when its panel was drawn anew. */
function handle(element) {
  if (element.tagName === "SUMMARY") return `details[data-id="${CSS.escape(element.parentElement.dataset.id)}"] > summary`;
  const label = element.getAttribute("aria-label");
  return label ? `${element.tagName.toLowerCase()}[aria-label="${CSS.escape(label)}"]` : "";
}

function summary(index, tone) {
  const reason = index.reason && index.reason !== index.phase ? h("span", { class: "reason" }, index.reason) : "";
  const waits = index.waitsFor.map((one) => h("li", { class: "callout moving" }, mark("moving"), h("span", {}, h("b", {}, `Waits: ${one.rule} `), `${one.subject} ${one.message}`)));
  const notes = index.conditions.filter((one) => SAID[one.type] && (one.status === "False" || one.type === ALWAYS_SAID)).map((one) => h("div", {}, h("dt", {}, SAID[one.type]), h("dd", {}, one.message)));
  return h("div", { class: `summary ${tone}` },
    h("p", { class: "line" }, badge(tone, index.phase), reason),
    h("p", { class: "why" }, index.why),
    waits.length ? h("ul", { class: "callouts" }, waits) : "",
    h("dl", { class: "notes" }, h("div", {}, h("dt", {}, "Next"), h("dd", {}, index.next)), notes));
}

function strip(last) {
  const { index, source } = last;
  const one = index.revisions.find((each) => each.name === index.serving) ?? index.revisions[0];
  const recall = one?.recall;
  const cells = [
    ["Serving", h("span", { class: "mono" }, index.serving ? short(index.serving) : "nothing"), one?.shards ? `${one.factory}, ${one.shards} shards` : one?.factory],
    ["Recall", recall ? share(recall.recall) : "–", recall && `at least ${share(recall.low)}, ${count(recall.queries)} queries`],
    ["P95", one?.p95Ms !== undefined ? `${digits(one.p95Ms)} ms` : "–", "as the gate measured"],
    ["Rows", index.rows !== undefined ? count(index.rows) : "–", source && h("span", {}, `${count(source.objects)} objects, ${size(source.bytes)}, listed `, ago(source.at))],
    ["Memory", one?.memoryBytes !== undefined ? size(one.memoryBytes) : "–", one?.indexBytes !== undefined ? `index ${size(one.indexBytes)}` : "of each pod"],
    ["Pods ready", one ? `${one.ready}/${one.replicas}` : "–", one?.pods.some((pod) => pod.restarts) ? `${one.pods.reduce((sum, pod) => sum + pod.restarts, 0)} restarts` : "no restarts"],
  ];
  return h("dl", { class: "strip" }, cells.map(([name, value, note]) => h("div", {}, h("dt", {}, name), h("dd", {}, h("b", {}, value), note && h("span", { class: "sub" }, note)))));
}

function unread(hidden) {
  const kinds = Object.entries(hidden);
  if (!kinds.length) return null;
  return h("section", { class: "panel" }, h("h2", {}, "Not shown"), h("ul", { class: "plain" }, kinds.map(([kind, words]) => h("li", {}, h("b", {}, `${kind}: `), words))));
}
