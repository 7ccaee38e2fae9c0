// The list of classes, the worst first.

import { element } from "./gallery.js";
import { ofClass } from "./colours.js";

// `choose(name or null)` is told which class is wanted.
export function classList(index, choose) {
  const counts = index.classes.map(() => ({ members: 0, misses: 0 }));
  index.class.forEach((label, at) => {
    if (label < counts.length) {
      counts[label].members += 1;
      counts[label].misses += index.miss[at] ? 1 : 0;
    }
  });
  const sorted = counts.map((count, label) => ({ ...count, label, share: 1 - count.misses / Math.max(count.members, 1) }))
    .sort((a, b) => a.share - b.share || a.label - b.label);
  const list = document.getElementById("classes");
  const entries = sorted.map(({ label, share, members }) => {
    const name = index.classes[label];
    const dot = element("span", { className: "dot" });
    dot.style.background = ofClass(label);
    const button = element("button", { type: "button", title: `${name}: ${members} items, nearest neighbour right for ${(share * 100).toFixed(0)} %` },
      dot, element("span", { className: "name", textContent: name }),
      element("span", { className: "share", textContent: `${(share * 100).toFixed(0)} %` }));
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      choose(on ? name : null);
    });
    return { name, button, row: element("li", {}, button) };
  });
  list.replaceChildren(...entries.map((entry) => entry.row));
  document.getElementById("class-filter").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const entry of entries) entry.row.hidden = !entry.name.toLowerCase().includes(wanted);
  });
  // Marks the chosen one.
  return (name) => {
    for (const entry of entries) entry.button.setAttribute("aria-pressed", String(entry.name === name));
  };
}
