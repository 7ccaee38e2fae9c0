// The explorer: puts maps, classes, panel and search together.

import * as server from "./interface.js";
import { PlaneMap } from "./map.js";
import { GRADIENT, choices, paint } from "./colours.js";
import { classList } from "./classes.js";
import { described, element, grid, lineup, picture } from "./gallery.js";
import { listen } from "./search.js";

const SHOWN = 12;
const status = document.getElementById("status");
const panel = document.getElementById("panel");
const tip = document.getElementById("tip");
const colour = document.getElementById("colour");
const method = document.getElementById("method");
const lasso = document.getElementById("lasso");

let indexes = [];
let places = [];
let maps = [];
let markClass = () => {};
let factor = null;

const say = (text) => { status.textContent = text; };

// The same item in every index: its place, or undefined.
const everywhere = (id) => places.map((place) => place.get(id));

function hover(number, at) {
  const id = at === null ? null : indexes[number].ids[at];
  const all = id === null ? indexes.map(() => null) : everywhere(id).map((place) => place ?? null);
  maps.forEach((map, other) => map.hover(all[other]));
  if (id === null) {
    tip.hidden = true;
    return;
  }
  const index = indexes[number];
  const words = element("div", {}, element("b", { textContent: index.classes[index.class[at]] ?? "" }));
  const values = Object.entries(index.factors).filter(([, column]) => column[at] !== null)
    .map(([name, column]) => `${name} ${Math.round(column[at] * 100) / 100}`);
  if (values.length) words.append(element("div", { className: "soft", textContent: values.slice(0, 5).join(", ") }));
  if (tip.dataset.id !== id) {
    tip.dataset.id = id;
    tip.replaceChildren(picture(number, index, at, id), words);
  }
  tip.hidden = false;
  const [x, y] = maps[number].position(at);
  const bounds = tip.getBoundingClientRect();
  tip.style.left = `${Math.min(x + 16, window.innerWidth - bounds.width - 8)}px`;
  tip.style.top = `${Math.max(4, Math.min(y + 16, window.innerHeight - bounds.height - 8))}px`;
}

const entries = (number, hits, wanted) => hits.map((hit) => ({
  id: hit.id,
  at: places[number].get(hit.id),
  class: hit.class ?? "",
  words: hit.score.toFixed(3),
  hit: wanted === undefined ? undefined : hit.class === wanted,
}));

let asked = 0;

// Shows an item and what a search for it finds in every index.
async function select(id) {
  asked += 1;
  const mine = asked;
  const all = everywhere(id);
  maps.forEach((map, number) => map.select(all[number] ?? null));
  const first = all.findIndex((at) => at !== undefined);
  if (first < 0) return;
  const index = indexes[first];
  const wanted = index.classes[index.class[all[first]]];
  const content = [element("h2", { textContent: wanted ?? id }), described(first, index, all[first])];
  for (let number = 0; number < indexes.length; number += 1) {
    if (all[number] === undefined) continue;
    try {
      const { hits } = await server.neighbours(number, id, SHOWN);
      content.push(element("h3", { textContent: `Nearest in ${indexes[number].name}` }),
        grid(number, indexes[number], entries(number, hits, wanted), select));
    } catch (error) {
      content.push(element("p", { textContent: error.message }));
    }
  }
  if (mine === asked) show("item", content);
}

function show(kind, content) {
  panel.dataset.shows = kind;
  panel.replaceChildren(...content);
  panel.scrollTop = 0;
}

function showLasso(number, points) {
  asked += 1;
  const index = indexes[number];
  const ids = new Set(points.map((at) => index.ids[at]));
  maps.forEach((map, other) => map.show(points.length
    ? [...ids].map((id) => places[other].get(id)).filter((at) => at !== undefined) : null));
  const list = points.slice(0, 300).map((at) => ({
    id: index.ids[at], at, class: index.classes[index.class[at]] ?? "", words: "", hit: undefined,
  }));
  const title = points.length > list.length ? `${points.length} items, the first ${list.length}` : `${points.length} items`;
  show("lasso", [element("h2", { textContent: title }), grid(number, index, list, select)]);
}

// A class: strong on the maps, its members along a factor for every index.
async function showClass(name) {
  asked += 1;
  const mine = asked;
  markClass(name);
  const members = indexes.map((index) => {
    const label = index.classes.indexOf(name);
    return name === null ? [] : index.ids.map((_, at) => at).filter((at) => index.class[at] === label);
  });
  maps.forEach((map, number) => map.show(name === null ? null : members[number]));
  if (name === null) return;
  const factors = [...new Set(indexes.flatMap((index) => Object.keys(index.factors)))];
  if (!factors.includes(factor)) [factor] = factors;
  const content = [element("h2", { textContent: `${name}: ${members[0].length} items` })];
  if (factors.length) {
    const chooser = element("select", { id: "factor" });
    for (const one of factors) chooser.append(element("option", { value: one, textContent: one, selected: one === factor }));
    chooser.addEventListener("change", () => { factor = chooser.value; showClass(name); });
    content.push(element("label", {}, "Along ", chooser),
      element("p", { textContent: "Each member stands at its place in this order; the higher, the farther from the first one in the embedding." }));
    for (let number = 0; number < indexes.length; number += 1) {
      const index = indexes[number];
      const values = index.factors[factor];
      const known = values ? members[number].filter((at) => values[at] !== null) : [];
      if (known.length < 2) continue;
      const first = known.reduce((a, b) => (values[b] < values[a] ? b : a));
      try {
        const { hits } = await server.neighbours(number, index.ids[first], 1000);
        const distances = new Map(hits.map((hit) => [hit.id, Math.sqrt(Math.max(0, 2 - 2 * hit.score))]));
        distances.set(index.ids[first], 0);
        content.push(element("h3", { textContent: index.name }), lineup(number, index, known, factor, distances, select));
      } catch (error) {
        content.push(element("p", { textContent: error.message }));
      }
    }
  }
  const index = indexes[0];
  const sorted = [...members[0]].sort((a, b) => index.precision[a] - index.precision[b]);
  content.push(element("h3", { textContent: "Members, the worst first" }), grid(0, index, sorted.slice(0, 120).map((at) => ({
    id: index.ids[at], at, class: "", words: `${Math.round(index.precision[at] * 10)} of 10`, hit: !index.miss[at],
  })), select));
  if (mine === asked) show("class", content);
}

async function search(file) {
  asked += 1;
  const mine = asked;
  say(`searching with ${file.name}…`);
  const seen = element("img", { alt: `query: ${file.name}`, src: URL.createObjectURL(file) });
  try {
    const { hits } = await server.searchImage(file, SHOWN);
    if (mine !== asked) return;
    say("");
    maps[0].select(places[0].get(hits[0]?.id) ?? null);
    show("search", [element("h2", { textContent: `Nearest to ${file.name}` }), element("div", { className: "large" }, seen),
      grid(0, indexes[0], entries(0, hits), select)]);
  } catch (error) {
    say("");
    show("search", [element("h2", { textContent: `Search with ${file.name}` }), element("p", { textContent: error.message })]);
  }
}

function repaint() {
  maps.forEach((map, number) => {
    const painted = paint(indexes[number], colour.value);
    map.paint(painted);
    map.legend.replaceChildren();
    if (painted.ends) {
      const bar = element("span", { className: "bar" });
      bar.style.background = GRADIENT;
      const short = (value) => String(Math.round(value * 100) / 100);
      map.legend.append(short(painted.ends[0]), bar, short(painted.ends[1]));
    } else if (painted.words) {
      painted.words.forEach((word, at) => {
        const dot = element("span", { className: "dot" });
        dot.style.background = painted.palette[at];
        map.legend.append(dot, word);
      });
    }
  });
}

function replace() {
  maps.forEach((map, number) => map.place(indexes[number].maps[method.value]));
}

function options(select, list, kept) {
  select.replaceChildren(...list.map(([value, textContent]) => element("option", { value, textContent })));
  if (list.some(([value]) => value === kept)) select.value = kept;
}

function take(data, again) {
  indexes = data.indexes;
  places = indexes.map((index) => new Map(index.ids.map((id, at) => [id, at])));
  const known = Object.keys(indexes[0].maps).filter((name) => indexes.every((index) => index.maps[name]));
  options(method, known.map((name) => [name, name === "neighbours" ? "neighbours (t-SNE)" : name]),
    data.complete ? "neighbours" : "principal components");
  if (!again) {
    options(colour, choices(indexes), "class");
    document.getElementById("file-label").hidden = !data.images;
    maps = indexes.map((index, number) => new PlaneMap(document.getElementById("maps"), index, {
      hover: (at) => hover(number, at),
      select: (at) => select(index.ids[at]),
      lasso: (points) => showLasso(number, points),
    }));
    markClass = classList(indexes[0], showClass);
    repaint();
  }
  replace();
}

const later = (milliseconds) => new Promise((done) => { setTimeout(done, milliseconds); });

async function load() {
  let again = false;
  for (;;) {
    try {
      const data = await server.data();
      if (!again || data.complete) take(data, again);
      again = true;
      if (data.complete) {
        say("");
        document.body.dataset.ready = "true";
        return;
      }
      say("laying out the map…");
      await later(1000);
    } catch (error) {
      say(error.message);
      if (error.status !== 503) return;
      await later(500);
    }
  }
}

function setLasso(on) {
  lasso.setAttribute("aria-pressed", String(on));
  maps.forEach((map) => { map.lassoing = on; });
}

colour.addEventListener("change", repaint);
method.addEventListener("change", replace);
lasso.addEventListener("click", () => setLasso(lasso.getAttribute("aria-pressed") !== "true"));
document.getElementById("reset").addEventListener("click", () => {
  maps.forEach((map) => { map.reset(); map.show(null); });
  markClass(null);
});
document.addEventListener("keydown", (event) => {
  if (["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName)) return;
  if (event.key === "l" || event.key === "L") setLasso(lasso.getAttribute("aria-pressed") !== "true");
  if (event.key === "0") document.getElementById("reset").click();
  if (event.key === "Escape") {
    setLasso(false);
    maps.forEach((map) => { map.show(null); map.select(null); });
    markClass(null);
    hover(0, null);
  }
});
listen(search);
load();
