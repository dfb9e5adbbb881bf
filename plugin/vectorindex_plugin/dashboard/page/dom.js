// Elements out of plain values. Text is always text: nothing that the cluster says is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((one) => one !== undefined && one !== null && one !== false && one !== ""));
  return element;
}

/** An element of HTML; attributes named on... are listeners. */
export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

/** An element of SVG. */
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** A drawing with a sentence for who does not see it. */
export const drawing = (label, width, height, attributes, ...children) =>
  s("svg", { role: "img", "aria-label": label, viewBox: `0 0 ${width} ${height}`, width, height, ...attributes }, ...children);

/** Puts the children of a node into a new order, or in the place of others, with as few moves as there can be. */
export function arrange(parent, wanted) {
  const kept = new Set(wanted);
  for (const old of [...parent.children]) if (!kept.has(old)) old.remove();
  wanted.forEach((node, at) => {
    if (parent.children[at] !== node) parent.insertBefore(node, parent.children[at] ?? null);
  });
}

/** Sets a text only where it is another one, so that a selection in it stays. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
