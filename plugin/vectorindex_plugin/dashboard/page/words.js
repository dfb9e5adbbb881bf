// Times, sizes and numbers as people read them, and the parts that every panel has.

import { h, s } from "./dom.js";

const UNITS = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]];
const SIZES = [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]];

let ahead = 0; // how far the clock that wrote the page's times is ahead of this browser's, milliseconds

/** The time at which the cluster was looked at is now. */
export function setNow(text) {
  ahead = Date.parse(text) - Date.now();
}

/** Unix seconds. */
export const now = () => (Date.now() + ahead) / 1000;
export const unix = (text) => Date.parse(text) / 1000;

/** The two largest units of a duration: "3d4h", "12m", "40s". */
export function span(seconds) {
  let left = Math.max(0, Math.round(seconds));
  const parts = [];
  for (const [size, unit] of UNITS) {
    if (left >= size && parts.length < 2) {
      parts.push(`${Math.floor(left / size)}${unit}`);
      left %= size;
    } else if (parts.length) break;
  }
  return parts.join("") || "0s";
}

export function size(bytes) {
  for (const [unit, name] of SIZES) if (bytes >= unit) return `${digits(bytes / unit)} ${name}`;
  return `${bytes} B`;
}

/** Three digits that count. */
export const digits = (value) => (value >= 100 ? Math.round(value).toString() : Number(value.toPrecision(3)).toString());
export const count = (value) => value.toLocaleString("en");
export const share = (value) => value.toFixed(4);

/** The end of a revision's name, which tells it from the others of its index. */
export const short = (revision) => revision.slice(revision.lastIndexOf("-") + 1);

/** "3m ago", which goes on by itself (`tick`). */
export function ago(text) {
  const node = h("time", { datetime: text, title: text, "data-since": unix(text) });
  node.textContent = `${span(now() - unix(text))} ago`;
  return node;
}

/** Sets all times of the page. */
export function tick() {
  const at = now();
  for (const node of document.querySelectorAll("time[data-since]")) {
    const text = `${span(at - Number(node.dataset.since))} ago`;
    if (node.textContent !== text) node.textContent = text;
  }
}

const MARKS = {
  good: "M3.5 8.5 6.5 11.5 12.5 4.5",
  bad: "M4.5 4.5 11.5 11.5M11.5 4.5 4.5 11.5",
  moving: "M8 4v4l3 2",
  quiet: "M4.5 8h7",
};

/** A sign for who does not tell colours apart. */
export const mark = (tone, attributes) =>
  s("svg", { class: `mark ${tone}`, viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true", ...attributes },
    s("circle", { cx: 8, cy: 8, r: 7 }), s("path", { d: MARKS[tone] ?? MARKS.quiet }));

/** A state with its sign. */
export const badge = (tone, text) => h("span", { class: `badge ${tone}` }, mark(tone), text);

/** A part of the page with its heading. */
export const panel = (title, note, ...children) =>
  h("section", { class: "panel" },
    h("div", { class: "panel-head" }, h("h2", {}, title), note && h("p", { class: "note" }, note)), ...children);

/** Boxes that scroll can be reached by the keyboard, the others are passed over. */
export function reachable(root) {
  for (const box of root.querySelectorAll(".scroll")) {
    const given = box.scrollWidth > box.clientWidth ? { tabindex: "0", role: "region", "aria-label": box.dataset.name } : {};
    for (const name of ["tabindex", "role", "aria-label"]) {
      if (name in given) box.setAttribute(name, given[name]);
      else box.removeAttribute(name);
    }
  }
}

/** A table in a box that scrolls by itself where there is no room. Names of columns of numbers begin with "#". */
export function table(caption, head, rows, attributes) {
  const cell = (one) => (one instanceof Element && (one.tagName === "TD" || one.tagName === "TH") ? one : h("td", {}, one));
  const [text, names] = [h("caption", { class: "unseen" }, caption), head.map((one) => h("th", { scope: "col", class: one.startsWith("#") && "number" }, one.replace("#", "")))];
  return h("div", { class: "scroll", "data-name": caption },
    h("table", attributes ?? {}, text, h("thead", {}, h("tr", {}, names)),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map(cell))))));
}
