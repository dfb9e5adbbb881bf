// When each revision was in which phase. Where all of it is long ago, time is drawn the smaller the older it is.

import { drawing, h, s } from "./dom.js";
import { panel, short, span, unix } from "./words.js";

const [ROW, BAR, TOP, LEFT, RIGHT] = [40, 24, 26, 128, 14];
const LINEAR = 2 * 3600; // seconds up to which every second is as long as the others
const RECENT = 120;
const TICKS = [10, 30, 60, 300, 900, 3600, 6 * 3600, 86400, 7 * 86400, 30 * 86400, 90 * 86400, 365 * 86400];
const LETTER = 6.6; // width in the font of the labels

/** Seconds ago -> share of the width, from 0 for the oldest to 1 for now. */
export function scale(oldest) {
  if (oldest <= LINEAR) return (age) => 1 - age / oldest;
  const whole = Math.log1p(oldest / RECENT);
  return (age) => 1 - Math.log1p(age / RECENT) / whole;
}

export function timeline(facts, roles, revisions, now, room) {
  const at = unix(now);
  const width = Math.max(320, room - 40);
  const narrow = width < 560;
  const left = narrow ? 4 : LEFT;
  const row = narrow ? ROW + 16 : ROW;
  const tracks = facts.tracks.filter((one) => one.spans.length);
  if (!tracks.length) return panel("Timeline", "", h("p", { class: "none" }, "No revision has begun."));
  const oldest = Math.max(30, ...tracks.map((one) => at - unix(one.spans[0].since))) * 1.02;
  const place = scale(oldest);
  const x = (time) => left + place(Math.max(0, at - time)) * (width - left - RIGHT);
  const height = TOP + tracks.length * row + 6;
  const label = (one) => [...(roles.find((each) => each.name === one.revision)?.roles ?? [])].join(", ");
  const sentence = tracks.map((one) => `${one.revision}: ${one.spans.map((each) => each.phase).join(", ")}`).join("; ");
  return panel("Timeline", oldest > LINEAR ? "the older, the smaller" : "",
    drawing(`Phases of revisions, the newest first. ${sentence}`, width, height, { class: "timeline" },
      ticks(oldest, x, at, height), move(facts.move, x, height),
      tracks.map((one, number) => track(one, label(one), TOP + number * row, { x, at, left, narrow }))),
    h("details", { "data-id": "timeline" }, h("summary", {}, "As text"),
      h("ul", { class: "plain" }, tracks.map((one) => h("li", {}, h("b", { class: "mono" }, one.revision), ` ${one.spans.map((each) => `${each.phase} ${span(at - unix(each.since))} ago`).join(" → ")}`)))));
}

function ticks(oldest, x, at, height) {
  const found = [s("text", { class: "axis", x: x(at), y: 14, "text-anchor": "end" }, "now")];
  let free = x(at) - 70; // right of it stands "now"
  for (const age of candidates(oldest)) {
    const where = x(at - age);
    if (where > free || where < x(at - oldest) + 8) continue;
    found.push(s("line", { class: "rule", x1: where, x2: where, y1: 20, y2: height }), s("text", { class: "axis", x: where, y: 14, "text-anchor": "middle" }, `${span(age)} ago`));
    free = where - 84;
  }
  return found;
}

/** Ages at which a line may stand. */
function candidates(oldest) {
  if (oldest > LINEAR) return TICKS.filter((age) => age < oldest);
  const step = TICKS.find((one) => oldest / one <= 8) ?? 3600;
  return Array.from({ length: Math.floor(oldest / step) }, (_, number) => (number + 1) * step);
}

function move(facts, x, height) {
  if (!facts) return "";
  const where = x(unix(facts.at));
  return s("g", { class: `move ${facts.what === "RolledBack" ? "bad" : "good"}` }, s("line", { x1: where, x2: where, y1: 20, y2: height }), s("circle", { cx: where, cy: 21, r: 3.5 }));
}

function track(one, roles, y, { x, at, left, narrow }) {
  const bar = narrow ? y + 18 : y + 6;
  const title = [s("tspan", { class: "name" }, short(one.revision)), roles && s("tspan", narrow ? { class: "roles", dx: 8 } : { class: "roles", x: 0, dy: 13 }, roles)];
  return s("g", { class: "track" },
    s("line", { class: "rail", x1: left, x2: x(at), y1: bar + BAR / 2, y2: bar + BAR / 2 }),
    s("text", { x: 0, y: narrow ? y + 13 : roles ? y + 15 : y + 22 }, title),
    one.spans.filter((each, at) => each.until !== each.since || at === one.spans.length - 1).map((each) => phase(each, bar, x, at)));
}

function phase(each, y, x, at) {
  const from = x(unix(each.since));
  if (each.until === each.since) {
    const flip = from + each.phase.length * LETTER + 14 > x(at); // no room to its right
    return s("g", { class: `end ${each.tone}` }, s("title", {}, each.phase), s("circle", { cx: from, cy: y + BAR / 2, r: 6 }), s("text", { x: flip ? from - 11 : from + 11, y: y + BAR / 2 + 4, "text-anchor": flip ? "end" : "start" }, each.phase));
  }
  const until = each.until === undefined ? at : unix(each.until);
  const wide = Math.max(2, x(until) - from);
  const took = span(until - unix(each.since));
  const words = each.phase.length * LETTER + 14 < wide ? each.phase : "";
  const more = words && (each.phase.length + took.length + 2) * LETTER + 14 < wide ? `  ${took}` : "";
  return s("g", { class: `phase p-${each.phase} ${each.tone}` }, s("title", {}, `${each.phase}, ${took}`),
    s("rect", { x: from, y, width: wide, height: BAR, rx: Math.min(4, wide / 2) }), s("rect", { class: "edge", x: from, y, width: Math.min(3, wide), height: BAR }),
    words && s("text", { x: from + 9, y: y + BAR / 2 + 4 }, s("tspan", {}, words), more && s("tspan", { class: "took" }, more)));
}
