// Pictures in the panel: neighbours, a lasso's content, a class along a factor.

import * as server from "./interface.js";

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// A picture of an item, or its name where it has none.
export function picture(number, index, at, id) {
  const has = at === undefined ? true : index.picture[at];
  if (!has) return element("span", { className: "none", textContent: id });
  const image = element("img", { src: server.thumbnail(number, id), alt: id, loading: "lazy" });
  image.addEventListener("error", () => image.replaceWith(element("span", { className: "none", textContent: id })));
  return image;
}

// A grid of entries {id, at, class, words, hit}; `select(id)` is told of a click.
export function grid(number, index, entries, select) {
  const list = element("ul", { className: "grid" });
  for (const entry of entries) {
    const kind = entry.hit === undefined ? "" : entry.hit ? "hit" : "miss";
    const button = element("button", { type: "button", className: kind, title: entry.id },
      picture(number, index, entry.at, entry.id));
    const words = element("span", { className: "words" });
    if (kind) words.append(element("span", { className: "mark", textContent: entry.hit ? "✓ " : "✗ " }));
    words.append(entry.words ?? "");
    button.append(words, element("span", { className: "words soft", textContent: entry.class ?? "" }));
    button.addEventListener("click", () => select(entry.id));
    list.append(element("li", {}, button));
  }
  return list;
}

// What is known of one item.
export function described(number, index, at) {
  const id = index.ids[at];
  const details = element("dl");
  const row = (name, value) => details.append(element("dt", { textContent: name }), element("dd", { textContent: value }));
  row("class", index.classes[index.class[at]] ?? "none");
  for (const [name, values] of Object.entries(index.factors)) {
    if (values[at] !== null) row(name, Math.round(values[at] * 1000) / 1000);
  }
  row("hits among 10", index.precision[at]);
  row("id", id);
  const link = element("a", { href: server.image(number, index.image[at]), target: "_blank" }, picture(number, index, at, id));
  return element("div", { className: "large" }, index.picture[at] ? link : picture(number, index, at, id), details);
}

// The members of a class along a factor: each picture stands at its value; above it, how far the embedding has moved from the first
// member, so that a space that keeps the order shows a rising line.
export function lineup(number, index, members, factor, distances, select) {
  const values = index.factors[factor];
  const sorted = members.filter((at) => values[at] !== null).sort((a, b) => values[a] - values[b]);
  if (sorted.length < 2) return element("p", { textContent: `No two members of this class have a value of ${factor}.` });
  const shown = sorted.length > 60 ? sorted.filter((_, at) => at % Math.ceil(sorted.length / 60) === 0) : sorted;
  const space = "http://www.w3.org/2000/svg";
  const step = 46;
  const height = 150;
  const width = shown.length * step + 20;
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("width", width);
  svg.setAttribute("height", height + 24);
  svg.setAttribute("role", "group");
  svg.setAttribute("aria-label", `Members by ${factor}; higher is farther from the first one in the embedding`);
  const put = (name, attributes, parent = svg) => {
    const made = document.createElementNS(space, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    parent.append(made);
    return made;
  };
  const largest = Math.max(...shown.map((at) => distances.get(index.ids[at]) ?? 0), 1e-9);
  const place = shown.map((at, order) =>
    [10 + order * step, 8 + (height - 56) * (1 - (distances.get(index.ids[at]) ?? largest) / largest)]);
  put("line", { x1: 4, x2: width - 4, y1: height, y2: height });
  put("polyline", {
    points: place.map(([x, y]) => `${x + 20},${y + 20}`).join(" "), fill: "none", stroke: "var(--mark)", "stroke-width": 1.5,
  });
  shown.forEach((at, order) => {
    const [x, y] = place[order];
    const group = put("g", { tabindex: 0, role: "button" });
    put("title", {}, group).textContent = `${index.ids[at]}: ${factor} ${values[at]}`;
    if (index.picture[at]) {
      put("image", { href: server.thumbnail(number, index.ids[at]), x, y, width: 40, height: 40 }, group);
    } else {
      put("circle", { cx: x + 20, cy: y + 20, r: 6, fill: "var(--mark)" }, group);
    }
    group.addEventListener("click", () => select(index.ids[at]));
    group.addEventListener("keydown", (event) => { if (event.key === "Enter") select(index.ids[at]); });
    put("text", { x: x + 20, y: height + 14, "text-anchor": "middle" }).textContent = Math.round(values[at] * 100) / 100;
  });
  return element("div", { className: "lineup", tabIndex: 0 }, svg);
}
