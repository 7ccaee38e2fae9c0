#!/usr/bin/env python3
"""Cuts the JSON of `gradus compare` down to what is kept under studies/results, and prints its tables as Markdown.

    gradus compare --config studies/controls.toml --data-root DATA --out runs/controls --json > controls.json
    python3 studies/summary.py controls.json --keep studies/results/controls.json > table.md

Python 3.11, no packages.
"""

import argparse
import json

MEASURES = ("recall@1", "map@r", "reference_spearman", "order_preservation", "order_preservation_combined", "order_preservation_near", "recall_far")


def kept(study):
    """Means of every seed and differences with their intervals, rounded to five digits."""
    data = {}
    for name, part in study["data"].items():
        arms = {}
        for arm, values in {"untrained": part.get("untrained"), **part["arms"]}.items():
            if not values:
                continue
            runs = [{m: run[m] for m in (*MEASURES, "seed", "seconds") if m in run} for run in values["runs"]]
            arms[arm] = {"runs": rounded(runs)}
            if arm in part["differences"]:
                difference = part["differences"][arm]
                arms[arm]["difference"] = {
                    m: rounded({k: difference[m][k] for k in ("difference", "interval", "class_interval", "seed_half_width")})
                    for m in MEASURES
                    if m in difference
                }
        data[name] = arms
    return {"seeds": study["seeds"], "data": data}


def rounded(value):
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, list):
        return [rounded(entry) for entry in value]
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    return value


def table(arms):
    """One row an arm: mean over seeds, and the difference to the baseline with its 95 % interval."""
    names = [m for m in MEASURES[:4] if all(isinstance(run.get(m), float) for arm in arms.values() for run in arm["runs"])]
    lines = ["| arm | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for arm, values in arms.items():
        cells = []
        for name in names:
            mean = sum(run[name] for run in values["runs"]) / len(values["runs"])
            difference = values.get("difference", {}).get(name)
            text = f"{mean:.4f}"
            if difference and difference.get("interval"):
                low, high = difference["interval"]
                text += f" {difference['difference']:+.4f} [{low:+.4f}, {high:+.4f}]"
            cells.append(text)
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("--keep")
    arguments = parser.parse_args()
    with open(arguments.study) as file:
        small = kept(json.load(file))
    if arguments.keep:
        with open(arguments.keep, "w") as file:
            json.dump(small, file, separators=(",", ":"))
            file.write("\n")
    for name, arms in small["data"].items():
        print(f"### {name}\n\n{table(arms)}\n")


if __name__ == "__main__":
    main()
