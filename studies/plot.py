#!/usr/bin/env python3
"""Draws what every arm of a kept study does to recall and to structure, one panel a data set, as an SVG.

    python3 studies/plot.py studies/results/controls.json studies/results/generators-and-rivals.json --out docs/images/controls.svg

Of several studies the first one that has an arm gives it. A point is an arm's difference to the baseline, its bars the 95 % intervals over seeds and test classes. Python 3.11, no packages.
"""

import argparse
import json

NAMED = {
    "gradus": "#c2410c",
    "gradus-members-only": "#c2410c",
    "gradus-shuffled-teacher": "#6b7280",
    "sgar": "#1d4ed8",
    "sgar-released": "#1d4ed8",
    "projection-only": "#1d4ed8",
    "rival-iaa": "#047857",
    "rival-embedding-expansion": "#047857",
}
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 350, 320, 52, 28, 12, 40


def points(arms, across, up):
    for name, values in arms.items():
        difference = values.get("difference", {})
        if name in NAMED and all(measure in difference and difference[measure]["interval"] for measure in (across, up)):
            x, y = difference[across], difference[up]
            yield name, 100 * x["difference"], [100 * v for v in x["interval"]], y["difference"], y["interval"]


def ticks(low, high, step):
    first = int(low // step) + 1
    return [step * number for number in range(first, int(high // step) + 1)]


def panel(title, marks, offset, limits):
    (left, right), (low, high) = limits
    place_x = lambda value: offset + LEFT + (value - left) / (right - left) * (WIDTH - LEFT - RIGHT)
    place_y = lambda value: TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)
    out = [f'<text x="{offset + LEFT}" y="18" font-weight="bold">{title}</text>']
    for value in ticks(left, right, 2):
        out.append(f'<line x1="{place_x(value):.1f}" x2="{place_x(value):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="{"#9ca3af" if value == 0 else "#eee"}"/>')
        out.append(f'<text x="{place_x(value):.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle" fill="#555">{value:+.0f}</text>')
    for value in ticks(low, high, 0.05):
        out.append(f'<line y1="{place_y(value):.1f}" y2="{place_y(value):.1f}" x1="{offset + LEFT}" x2="{offset + WIDTH - RIGHT}" stroke="{"#9ca3af" if abs(value) < 1e-9 else "#eee"}"/>')
        out.append(f'<text x="{offset + LEFT - 5}" y="{place_y(value) + 4:.1f}" text-anchor="end" fill="#555">{value:+.2f}</text>')
    out.append(f'<text x="{offset + (LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">Recall@1, points</text>')
    label = TOP
    for name, x, (x_low, x_high), y, (y_low, y_high) in sorted(marks, key=lambda mark: -mark[3]):
        colour = NAMED[name]
        # Names go down where they would lie on each other.
        label = max(label + 11, place_y(y) - 5)
        out.append(f'<path d="M{place_x(x_low):.1f} {place_y(y):.1f}H{place_x(x_high):.1f}M{place_x(x):.1f} {place_y(y_low):.1f}V{place_y(y_high):.1f}" stroke="{colour}" fill="none" opacity="0.55"/>')
        out.append(f'<circle cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="3.5" fill="{colour}"><title>{name}</title></circle>')
        out.append(f'<text x="{place_x(x) + 6:.1f}" y="{label:.1f}" fill="{colour}" font-size="10">{name}</text>')
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    data = {}
    for study in arguments.studies:
        with open(study) as file:
            for name, arms in json.load(file)["data"].items():
                data[name] = arms | data.get(name, {})
    panels = {name: list(points(arms, "recall@1", "reference_spearman")) for name, arms in data.items()}
    marks = [mark for found in panels.values() for mark in found]
    limits = (
        (min(mark[2][0] for mark in marks) - 0.5, max(mark[2][1] for mark in marks) + 2.5),
        (min(mark[4][0] for mark in marks) - 0.01, max(mark[4][1] for mark in marks) + 0.02),
    )
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * len(panels)} {HEIGHT}" font-family="sans-serif" font-size="11">']
    lines.append(f'<rect width="{WIDTH * len(panels)}" height="{HEIGHT}" fill="white"/>')
    for number, (name, found) in enumerate(panels.items()):
        lines += panel(f"{name}: structure against recall", found, number * WIDTH, limits)
    lines.append("</svg>")
    with open(arguments.out, "w") as file:
        file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
