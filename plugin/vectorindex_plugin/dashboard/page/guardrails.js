// Each guardrail's value between nothing and beyond its bound, with the band in which the true value lies.

import { drawing, h, s } from "./dom.js";
import { ago, badge, count, mark, panel, short, table } from "./words.js";

const [WIDTH, HEIGHT, MIDDLE, EDGE] = [260, 34, 17, 6];

export function guardrails(revisions) {
  if (!revisions.length) return null;
  const [first, ...others] = [...revisions].sort((a, b) => Number(b.said.roles.includes("candidate")) - Number(a.said.roles.includes("candidate")));
  const budget = first.budget ? `a rollout is stopped by chance in at most ${first.budget} of all cases; ` : "";
  return panel("Guardrails", `${budget}values of when a verdict last changed`, part(first, true), others.map((one) => part(one, false)),
    h("ul", { class: "key", "aria-label": "How to read the charts" },
      h("li", {}, drawing("dot", 16, 12, {}, s("circle", { class: "value", cx: 8, cy: 6, r: 4 })), "value"),
      h("li", {}, drawing("band", 16, 12, {}, s("rect", { class: "band", x: 0, y: 2, width: 16, height: 8, rx: 3 })), "95% interval of a rate, from value and samples"),
      h("li", {}, drawing("line", 16, 12, {}, s("line", { class: "limit", x1: 8, x2: 8, y1: 0, y2: 12 })), "bound; what lies beyond is shaded")));
}

function part(one, open) {
  const { said, charts } = one;
  const failed = charts.filter((each) => ["Fail", "Error"].includes(each.said.verdict));
  const heading = h("summary", {}, h("span", { class: "mono strong" }, short(said.name)), h("span", { class: "sub inline" }, said.roles.join(", ") || said.phase),
    failed.length ? badge("bad", `${failed.length} failed`) : charts.every((each) => each.said.verdict === "Pass") ? badge("good", `${charts.length} pass`) : badge("moving", "not all have passed"));
  return h("details", { "data-id": `guardrails ${said.name}`, class: "rules", open },
    heading,
    table(`Guardrails of ${said.name}`, ["Rule", "Verdict", "Value against bound", "#Value", "#Bound", "#Samples", "Since"], charts.map(row), { class: "guardrails" }),
    failed.map((each) => h("p", { class: "callout bad" }, mark("bad"), h("span", {}, each.said.message || each.said.reason))));
}

function row(one) {
  const { said } = one;
  const where = [said.metric, said.segment && `segment ${said.segment}`, one.inShadow && "in shadow", one.mode === "Observe" && "only observed"].filter(Boolean).join(", ");
  return [
    h("th", { scope: "row" }, said.rule, h("span", { class: "sub" }, where)),
    badge(one.tone, said.verdict || "not yet"),
    h("td", { class: "chart" }, chart(one)),
    h("td", { class: "number" }, said.value || "–", one.low !== undefined && h("span", { class: "sub" }, `${one.lowText} to ${one.highText}`)),
    h("td", { class: "number" }, said.limit ? `${one.upwards ? "≤" : "≥"} ${said.limit}` : "–"),
    h("td", { class: "number" }, said.verdict ? count(said.samples) : "–", one.wanted > 0 && h("span", { class: "sub" }, `of ${count(one.wanted)} wanted`)),
    said.at ? ago(said.at) : "–",
  ];
}

export function chart(one) {
  const { said, value, limit } = one;
  if (value === undefined || limit === undefined) return h("span", { class: "sub" }, said.verdict ? "no bound to compare with" : "nothing was said yet");
  const numbers = [value, limit, one.low ?? value, one.high ?? value];
  let [from, to] = [Math.min(0, ...numbers), Math.max(...numbers)];
  if (!one.upwards && from >= 0) from = Math.min(...numbers) - Math.max(to - Math.min(...numbers), Math.abs(to) * 0.02);
  const room = Math.max(to - from, one.upwards ? Math.abs(limit) : 0, 1e-9);
  to = from + room * 1.25;
  const x = (number) => EDGE + ((number - from) / (to - from)) * (WIDTH - 2 * EDGE);
  const beyond = one.upwards ? { x: x(limit), width: WIDTH - EDGE - x(limit) } : { x: EDGE, width: x(limit) - EDGE };
  const words = `${said.value} ${one.low !== undefined ? `(${one.lowText} to ${one.highText}) ` : ""}where ${said.limit} is the ${one.upwards ? "most" : "least"}`;
  return drawing(words, WIDTH, HEIGHT, { class: `bullet ${one.tone}` },
    s("rect", { class: "ground", x: EDGE, y: MIDDLE - 5, width: WIDTH - 2 * EDGE, height: 10, rx: 3 }),
    s("rect", { class: "beyond", ...beyond, y: MIDDLE - 5, height: 10, rx: 3 }),
    one.low !== undefined && s("rect", { class: "band", x: x(one.low), y: MIDDLE - 8, width: Math.max(2, x(one.high) - x(one.low)), height: 16, rx: 4 }),
    s("line", { class: "limit", x1: x(limit), x2: x(limit), y1: 3, y2: HEIGHT - 3 }),
    s("circle", { class: "value", cx: x(value), cy: MIDDLE, r: 5 }));
}
