// Colours of points: by class, by error, by a number.

const STEPS = 64;

// Classes of neighbouring numbers lie far apart on the circle of colours (the golden angle).
export const ofClass = (number) => `hsl(${((number * 0.6180339887498949) % 1) * 360} 62% 50%)`;

// From blue over green to yellow and red.
const ofShare = (share) => `hsl(${(1 - share) * 232} 68% 50%)`;

export const GRADIENT = `linear-gradient(90deg, ${Array.from({ length: 9 }, (_, at) => ofShare(at / 8)).join(", ")})`;

// What points can be coloured by: [value of the choice, words].
export function choices(indexes) {
  const factors = new Set(indexes.flatMap((index) => Object.keys(index.factors)));
  return [["class", "class"], ["error", "error"], ["precision", "share of hits among 10"],
    ...[...factors].map((name) => [`factor:${name}`, name])];
}

// For one index: the colours that occur, the colour number of each point, and the ends of the scale where there is one.
export function paint(index, choice) {
  const count = index.ids.length;
  const numbers = new Uint16Array(count);
  if (choice === "class") {
    index.class.forEach((label, at) => { numbers[at] = label; });
    const grey = index.classes.length;
    return { palette: [...index.classes.map((_, number) => ofClass(number)), "#8a929b"], numbers, grey };
  }
  if (choice === "error") {
    index.miss.forEach((miss, at) => { numbers[at] = miss ? 1 : 0; });
    return { palette: ["#7d98b3", "#e0433a"], numbers, words: ["hit", "miss"] };
  }
  const values = choice === "precision" ? index.precision : index.factors[choice.slice(7)] || [];
  const known = values.filter((value) => value !== null && value !== undefined);
  const [low, high] = choice === "precision" ? [0, 1]
    : known.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
  for (let at = 0; at < count; at += 1) {
    const value = values[at];
    numbers[at] = value === null || value === undefined ? STEPS
      : Math.round(((value - low) / Math.max(high - low, 1e-12)) * (STEPS - 1));
  }
  const palette = Array.from({ length: STEPS }, (_, step) => ofShare(step / (STEPS - 1)));
  return { palette: [...palette, "#8a929b"], numbers, ends: known.length ? [low, high] : null };
}
