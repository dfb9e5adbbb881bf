// The recall of an index's revisions, from the oldest to the newest, in the size of a word.

import { drawing, s } from "./dom.js";

const [WIDTH, HEIGHT, EDGE] = [96, 26, 5];
const [LEAST, MOST] = [0.02, 0.06]; // recall from bottom to top: noise does not look like a change, and a failure hides none

export function sparkline(dots) {
  const measured = dots.filter((dot) => dot.recall !== undefined);
  if (!dots.length) return drawing("no revisions", WIDTH, HEIGHT, { class: "spark" });
  const [low, high] = [Math.min(...measured.map((dot) => dot.recall)), Math.max(...measured.map((dot) => dot.recall))];
  const room = Math.min(MOST, Math.max(high - low, LEAST));
  const middle = high - Math.min(high - low, MOST) / 2;
  const step = Math.min(28, (WIDTH - 2 * EDGE) / Math.max(1, dots.length - 1));
  const x = (at) => EDGE + at * step;
  const y = (dot) => (dot.recall === undefined ? HEIGHT / 2 : HEIGHT / 2 - Math.max(-0.5, (dot.recall - middle) / room) * (HEIGHT - 2 * EDGE));
  const line = dots.map((dot, at) => [x(at), y(dot)]).filter((_, at) => dots[at].recall !== undefined);
  const last = dots[dots.length - 1];
  const words = measured.length ? `recall of ${dots.length} revisions from ${low.toFixed(3)} to ${high.toFixed(3)}; ` : "";
  return drawing(`${words}the newest is ${last.phase}`, WIDTH, HEIGHT, { class: "spark" },
    s("line", { class: "rail", x1: 0, x2: WIDTH, y1: HEIGHT - 1, y2: HEIGHT - 1 }),
    s("polyline", { points: line.map((point) => point.map((value) => value.toFixed(1)).join()).join(" ") }),
    dots.map((dot, at) => s("circle", { class: `${dot.tone}${dot.recall === undefined ? " hollow" : ""}`, cx: x(at), cy: y(dot).toFixed(1), r: at === dots.length - 1 ? 3.5 : 2.5 })));
}
