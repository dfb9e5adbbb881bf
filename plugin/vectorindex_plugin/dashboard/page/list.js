// All indexes: what needs somebody first, a filter, and a line for each.

import { arrange, h, say } from "./dom.js";
import { sparkline } from "./sparkline.js";
import { ago, badge, mark, short } from "./words.js";

const TONES = [["bad", "need attention"], ["moving", "on their way"], ["good", "healthy"], ["quiet", "not looked at yet"]];
const ORDER = { bad: 0, moving: 1, quiet: 2, good: 3 };
const SORTS = {
  attention: (a, b) => ORDER[a.tone] - ORDER[b.tone] || byName(a, b),
  name: (a, b) => byName(a, b),
  changed: (a, b) => (a.since < b.since ? 1 : a.since > b.since ? -1 : byName(a, b)),
};
const key = (one) => `${one.row.namespace}/${one.row.name}`;
const byName = (a, b) => (key(a) < key(b) ? -1 : 1);
const kept = { text: "", tone: "", sort: "attention" }; // also when one comes back from an index

export function list() {
  const rows = new Map(); // key -> {node, said}
  const chips = new Map(TONES.map(([tone, words]) => [tone, chip(tone, words)]));
  const body = h("tbody");
  const shown = h("p", { class: "note", role: "status" });
  const empty = h("p", { class: "none" });
  const search = h("input", { type: "search", id: "filter", placeholder: "Filter by name, state or reason", autocomplete: "off", spellcheck: "false", value: kept.text, oninput: () => { kept.text = search.value; draw(); } });
  const sort = h("select", { id: "sort", onchange: () => { kept.sort = sort.value; draw(); } },
    [["attention", "Needs attention"], ["name", "Name"], ["changed", "Changed last"]].map(([value, words]) => h("option", { value, selected: kept.sort === value }, words)));
  const root = h("div", { class: "view" },
    h("h1", { tabindex: -1 }, "Indexes"),
    h("div", { class: "bar" },
      h("div", { class: "chips", role: "group", "aria-label": "Only those that" }, [...chips.values()].map((one) => one.node)),
      h("label", { class: "field grow", for: "filter" }, h("span", { class: "unseen" }, "Filter"), search, h("kbd", { "aria-hidden": "true" }, "/")),
      h("label", { class: "field", for: "sort" }, h("span", {}, "Sort"), sort)),
    h("div", { class: "panel flat" },
      h("table", { class: "indexes" },
        h("caption", { class: "unseen" }, "Indexes with their state"),
        h("thead", {}, h("tr", {}, ["State", "Index", "Recall", "Serving", "Ready", "Why", "Since"].map((name) => h("th", { scope: "col", class: name.toLowerCase() }, name)))),
        body), empty),
    shown);
  let all = [];
  let hidden = "";

  function chip(tone, words) {
    const number = h("b", {}, "0");
    const node = h("button", { type: "button", class: `chip ${tone}`, "aria-pressed": String(kept.tone === tone), onclick: () => {
      kept.tone = kept.tone === tone ? "" : tone;
      for (const [other, one] of chips) one.node.setAttribute("aria-pressed", String(kept.tone === other));
      draw();
    } }, mark(tone), number, ` ${words}`);
    return { node, number };
  }

  function draw() {
    for (const [tone, one] of chips) {
      const number = all.filter((row) => row.tone === tone).length;
      say(one.number, String(number));
      one.node.hidden = !number && kept.tone !== tone;
    }
    const words = kept.text.toLowerCase().split(/\s+/).filter(Boolean);
    const found = all.filter((one) => (!kept.tone || one.tone === kept.tone) && words.every((word) => one.text.includes(word)));
    found.sort(SORTS[kept.sort]);
    arrange(body, found.map((one) => line(one)));
    const known = new Set(all.map(key));
    for (const name of rows.keys()) if (!known.has(name)) rows.delete(name);
    say(empty, found.length ? "" : all.length ? "None of them is like this." : "There is no VectorIndex here. `kubectl vectorindex init` begins one.");
    say(shown, `${found.length} of ${all.length}${hidden ? `; their revisions are not shown: ${hidden}` : ""}`);
  }

  function line(one) {
    const had = rows.get(key(one));
    if (had?.said === one.said) return had.node;
    const { row } = one;
    const cells = [
      h("td", { class: "state" }, badge(one.tone, row.phase || "Unseen")),
      h("th", { scope: "row", class: "index" }, h("a", { href: `#/${row.namespace}/${row.name}` }, row.name), h("span", { class: "sub" }, row.namespace), h("span", { class: "sub narrow" }, one.why)),
      h("td", { class: "recall" }, sparkline(one.dots), h("span", { class: "number" }, row.recall)),
      h("td", { class: "serving mono" }, row.stable ? short(row.stable) : "–", row.candidate && h("span", { class: "sub" }, `→ ${short(row.candidate)}`)),
      h("td", { class: "ready" }, row.ready || "–"),
      h("td", { class: "why" }, h("span", { class: "clamp", title: one.why }, one.why), one.waits && h("span", { class: "sub" }, `waits: ${one.waits}`)),
      h("td", { class: "since" }, ago(one.since)),
    ];
    if (had) had.node.replaceChildren(...cells); // the row stays: so does the focus of another one
    const node = had?.node ?? h("tr", {}, cells);
    rows.set(key(one), { node, said: one.said });
    return node;
  }

  return {
    path: "api/indexes",
    title: "Indexes",
    root,
    update(said) {
      all = said.rows.map((one) => ({ ...one, said: JSON.stringify(one), text: [one.row.namespace, one.row.name, one.row.phase, one.row.reason, one.why, one.waits].join(" ").toLowerCase() }));
      hidden = said.hidden;
      const focused = document.activeElement?.closest?.("tbody a")?.getAttribute("href");
      draw();
      if (focused && document.activeElement === document.body) body.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
    },
  };
}

addEventListener("keydown", (event) => {
  const field = document.getElementById("filter");
  if (event.key !== "/" || !field || event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select, textarea")) return;
  event.preventDefault();
  field.focus();
});
