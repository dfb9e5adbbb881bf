// Which view there is, and news for it every few seconds while somebody looks.

import { detail } from "./detail.js";
import { h, say } from "./dom.js";
import { list } from "./list.js";
import { now, setNow, span, tick, unix } from "./words.js";

const POLL = 3000; // milliseconds after an answer
const main = document.getElementById("main");
const [lost, fresh, pulse, where] = ["lost", "fresh", "pulse", "where"].map((id) => document.getElementById(id));

let view; // {path, update(said), title}
let heard; // unix seconds of the last answer
let timer;
let turn = 0; // each look has a number: the answer to an earlier one is nobody's any more

function route() {
  const [namespace, name] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  view = namespace && name ? detail(namespace, name) : list();
  document.title = `${view.title} · vectorindex`;
  main.replaceChildren(h("p", { class: "loading" }, "Looking at the cluster …"));
  scrollTo(0, 0);
  look();
}

async function look() {
  const mine = (turn += 1);
  clearTimeout(timer);
  try {
    const answer = await fetch(view.path, { cache: "no-store" });
    const said = await answer.json();
    if (mine !== turn) return;
    if (answer.ok) show(said);
    else fail(said.error, answer.status === 404);
  } catch {
    if (mine === turn) fail("kubectl vectorindex dashboard does not answer: it was ended, or is being ended", false);
  }
  if (mine === turn && !document.hidden) timer = setTimeout(look, POLL);
}

function show(said) {
  setNow(said.now);
  heard = unix(said.now);
  const first = main.firstElementChild !== view.root;
  view.update(said);
  if (first) {
    main.replaceChildren(view.root);
    if (document.activeElement === document.body || document.activeElement?.closest(".top, main")) view.root.querySelector("h1").focus();
  }
  say(where, said.namespace === undefined ? said.index.namespace : said.namespace || "all namespaces");
  say(lost, said.error ? `No news from the cluster: ${said.error}` : "");
  pulse.classList.toggle("off", Boolean(said.error));
  tellAge();
}

function fail(words, gone) {
  pulse.classList.add("off");
  if (gone) main.replaceChildren(h("div", { class: "empty" }, h("h1", { tabindex: -1 }, "Not there"), h("p", {}, words), h("p", {}, h("a", { href: "#/" }, "All indexes"))));
  else if (main.firstElementChild !== view.root) main.replaceChildren(h("div", { class: "empty" }, h("h1", { tabindex: -1 }, "No answer"), h("p", {}, words)));
  say(lost, gone ? "" : `No news: ${words}`);
}

function tellAge() {
  if (heard) say(fresh, pulse.classList.contains("off") ? `as of ${span(now() - heard)} ago` : "live");
}

setInterval(() => {
  tick();
  tellAge();
}, 1000);
addEventListener("hashchange", route);
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : look()));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address tells which index is shown
  main.focus();
});
route();
