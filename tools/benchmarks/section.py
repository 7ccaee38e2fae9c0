"""What the scripts beside this one share: on which machine, with which options, and one section of docs/benchmarks.md."""

import os
import pathlib
import platform
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def machine():
    model, memory = platform.processor(), ""
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            model = line.split(":")[1].strip()
    for line in open("/proc/meminfo"):
        if line.startswith("MemTotal"):
            memory = f", {int(line.split()[1]) / 2**20:.0f} GiB"
    return f"{os.cpu_count()} cores of {model}{memory}, {platform.system()} {platform.machine()}"


def options_given():
    # All but the place of the program.
    given, arguments = "", iter(sys.argv[1:])
    for argument in arguments:
        if argument == "--gradus":
            next(arguments)
        elif not argument.startswith("--gradus="):
            given += f" {argument}"
    return given


def write_section(heading, lines):
    """Replaces one section of docs/benchmarks.md, or adds it at the end; the others stay."""
    path = ROOT / "docs" / "benchmarks.md"
    text = path.read_text() if path.exists() else "# Benchmarks\n"
    before, found, after = text.partition(f"## {heading}\n")
    _, next_heading, others = after.partition("\n## ")
    section = "\n".join([f"## {heading}", "", *lines]) + "\n"
    if not found:
        before = before.rstrip("\n") + "\n\n"
    temporary = path.with_suffix(".md.new")
    temporary.write_text(before + section + next_heading + others)
    temporary.rename(path)
    print(f"wrote {path.relative_to(ROOT)}", file=sys.stderr)
