// Recall against its price, and recall of each class of queries with its bound.

import { drawing, h, s } from "./dom.js";
import { badge, count, digits, panel, share, short, table } from "./words.js";

const [TOP, RIGHT, BOTTOM, LEFT] = [12, 18, 36, 50];
const HEIGHT = 270;
const ROOM = 0.12; // recall from top to bottom at the most
const MOST = 5; // revisions that are drawn, the newest first: so many colours can be told apart
const WORDS = { Default: "default point, as tuned", Conservative: "conservative point, as tuned", Proven: "proven by the gate" };

export function frontier(facts, room) {
  const names = [...new Set(facts.points.map((one) => one.revision))].slice(0, MOST);
  const points = facts.points.filter((one) => names.includes(one.revision));
  const note = "recall against CPU of a query; bars reach down to the lower bound";
  if (!points.length) return null; // nothing has been built yet
  const width = Math.max(300, Math.min(620, (room > 900 ? room / 2 : room) - 52));
  const axes = scales(points, facts.floor, width);
  const summary = points.map((one) => `${short(one.revision)} ${one.kind}: recall ${share(one.recall)}, at least ${share(one.low)}, ${digits(one.costUs)} microseconds`).join("; ");
  return panel("Recall and its price", note,
    drawing(`Recall against CPU time of a query. ${summary}`, width, HEIGHT, { class: "frontier" },
      grid(axes, width), floor(facts.floor, axes, width), names.map((name, at) => curve(points.filter((one) => one.revision === name), at, axes))),
    h("ul", { class: "key", "aria-label": "Revisions and points" }, names.map((name, at) => h("li", {}, drawing("", 14, 12, { class: `c${at}`, role: "presentation" }, s("circle", { cx: 7, cy: 6, r: 5 })), h("span", { class: "mono" }, short(name)))),
      Object.entries(WORDS).filter(([kind]) => points.some((one) => one.kind === kind)).map(([kind, words]) => h("li", {}, drawing("", 16, 12, { class: "plain-mark", role: "presentation" }, shape(kind, 8, 6)), words))),
    h("details", { "data-id": "frontier" }, h("summary", {}, "As a table"), table("Recall and its price", ["Revision", "Point", "Recall", "At least", "CPU of a query", "Parameters"],
      points.map((one) => [h("td", { class: "mono" }, short(one.revision)), one.kind + (one.used ? " (in use)" : ""), share(one.recall), share(one.low), `${digits(one.costUs)} µs`, one.params]))));
}

function scales(points, floor, width) {
  const recalls = points.flatMap((one) => [one.recall, one.low]).concat(floor ?? []);
  const costs = points.map((one) => Math.log10(Math.max(one.costUs, 0.1)));
  const pad = Math.min(0.012, Math.max(0.004, (Math.max(...recalls) - Math.min(...recalls)) * 0.18));
  const high = Math.min(1.001, Math.max(...recalls) + pad);
  const low = Math.max(0, Math.min(...recalls) - pad, high - ROOM); // what is farther below stands on the edge
  const [least, most] = [Math.min(...costs) - 0.25, Math.max(...costs) + 0.25];
  return {
    low, high, least, most,
    x: (cost) => LEFT + ((Math.log10(Math.max(cost, 0.1)) - least) / (most - least)) * (width - LEFT - RIGHT),
    y: (recall) => TOP + ((high - Math.max(recall, low)) / (high - low)) * (HEIGHT - TOP - BOTTOM),
  };
}

function grid(axes, width) {
  const step = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2].find((one) => (axes.high - axes.low) / one <= 6) ?? 0.5;
  const rows = [];
  for (let at = Math.ceil(axes.low / step); at * step <= Math.min(axes.high, 1); at += 1) rows.push(at * step);
  const costs = [];
  for (let tens = Math.floor(axes.least); tens <= axes.most; tens += 1) for (const one of [1, 2, 5]) costs.push(one * 10 ** tens);
  const fits = costs.filter((cost) => axes.x(cost) >= LEFT && axes.x(cost) <= width - RIGHT);
  return s("g", {},
    rows.map((value) => [s("line", { class: "rule", x1: LEFT, x2: width - RIGHT, y1: axes.y(value), y2: axes.y(value) }), s("text", { class: "axis", x: LEFT - 8, y: axes.y(value) + 4, "text-anchor": "end" }, value.toFixed(step < 0.01 ? 3 : 2))]),
    fits.map((cost) => [s("line", { class: "rule", x1: axes.x(cost), x2: axes.x(cost), y1: TOP, y2: HEIGHT - BOTTOM }), s("text", { class: "axis", x: axes.x(cost), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, digits(cost))]),
    s("text", { class: "axis", x: width - RIGHT, y: HEIGHT - 4, "text-anchor": "end" }, "CPU of a query, µs"));
}

function floor(value, axes, width) {
  if (value === undefined) return "";
  const y = axes.y(value);
  return s("g", { class: "floor" }, s("line", { x1: LEFT, x2: width - RIGHT, y1: y, y2: y }), s("text", { x: LEFT + 4, y: y + 14 }, `floor of the gate ${value}`));
}

function curve(points, at, axes) {
  const tuned = points.filter((one) => one.kind !== "Proven").sort((a, b) => a.costUs - b.costUs);
  return s("g", { class: `c${at}` },
    tuned.length > 1 && s("polyline", { points: tuned.map((one) => `${axes.x(one.costUs)},${axes.y(one.recall)}`).join(" ") }),
    points.map((one) => s("g", {}, s("title", {}, `${one.revision}, ${WORDS[one.kind]}: recall ${share(one.recall)}, at least ${share(one.low)}, ${digits(one.costUs)} µs`),
      s("line", { class: "error", x1: axes.x(one.costUs), x2: axes.x(one.costUs), y1: axes.y(one.recall), y2: axes.y(one.low) }),
      s("line", { class: "error", x1: axes.x(one.costUs) - 4, x2: axes.x(one.costUs) + 4, y1: axes.y(one.low), y2: axes.y(one.low) }),
      one.recall < axes.low && s("text", { class: "axis", x: axes.x(one.costUs) + 10, y: axes.y(one.recall) - 3 }, `▼ ${one.recall.toFixed(2)}`),
      shape(one.kind, axes.x(one.costUs), axes.y(one.recall)))));
}

function shape(kind, x, y) {
  if (kind === "Proven") return s("rect", { x: x - 5, y: y - 5, width: 10, height: 10, rx: 1.5 });
  if (kind === "Conservative") return s("path", { class: "open", d: `M${x} ${y - 6}l6 6-6 6-6-6z` });
  return s("circle", { class: "open", cx: x, cy: y, r: 5 });
}

/** Recall of all queries, of segments, and of live ones, of the newest revision that was measured. */
export function classes(revisions, limit) {
  const one = revisions.find((each) => each.proof);
  if (!one) return null;
  const { proof } = one;
  const low = Math.min(...proof.classes.map((each) => each.low), limit ?? 1) - 0.01;
  const tone = { Pass: "good", Fail: "bad" }[proof.verdict] ?? "moving";
  return panel("Proof", `${short(one.said.name)}: recall@${proof.k} of each class of queries, bounds with ${Math.round(proof.confidence * 100)}% confidence`,
    h("p", { class: "line" }, badge(tone, proof.verdict || "not judged yet"), h("span", { class: "sub inline" }, proof.message)),
    table(`Recall of ${one.said.name} by class of queries`, ["Queries", "#Count", "Recall and its bound", "#Recall", "#At least"],
      proof.classes.map((each) => [h("th", { scope: "row" }, each.name, each.judged === false && h("span", { class: "sub" }, "reported only")), h("td", { class: "number" }, count(each.queries)), h("td", { class: "chart" }, forest(each, low, limit)), h("td", { class: "number" }, share(each.recall)), h("td", { class: "number" }, share(each.low))])),
    proof.live && h("p", { class: "note" }, proof.live),
    h("p", { class: "note mono" }, proof.page));
}

function forest(one, low, limit) {
  const x = (value) => 4 + ((Math.min(Math.max(value, low), 1) - low) / (1 - low)) * 152;
  return drawing(`${share(one.recall)}, at least ${share(one.low)}${limit !== undefined ? `, floor ${limit}` : ""}`, 160, 24, { class: `bullet ${one.low >= (limit ?? 0) ? "good" : "bad"}` },
    s("rect", { class: "ground", x: 4, y: 9, width: 152, height: 6, rx: 3 }),
    s("rect", { class: "band", x: x(one.low), y: 6, width: Math.max(2, x(one.recall) - x(one.low)), height: 12, rx: 3 }),
    limit !== undefined && s("line", { class: "limit", x1: x(limit), x2: x(limit), y1: 2, y2: 22 }),
    s("circle", { class: "value", cx: x(one.recall), cy: 12, r: 4.5 }));
}
