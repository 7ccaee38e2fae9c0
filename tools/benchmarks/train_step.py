"""Writes the section Training steps of docs/benchmarks.md: steps of gradus and of PyTorch on the same machine in the same minutes.

Usage: cargo build --release && pip install torch && python tools/benchmarks/train_step.py
       python tools/benchmarks/train_step.py --only resnet18 --rounds 1    # a part: prints, writes nothing

The same work on both sides: networks with the same number of parameters and multiply-adds (written out below in plain torch), average pooling, a linear head of width 512 to unit
length, Proxy-Anchor over 100 classes (alpha 32, margin 0.1), batch normalisation that keeps statistics, scale and shift, AdamW over
everything else; random images and labels made once, two steps that are not counted. Inference is the same network without gradients.
PyTorch runs in both memory formats, every measurement in a process of its own, rounds alternate between all of them. A number in the
table is that of the calmest round: whatever else runs on the machine only ever adds to a time.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

from section import ROOT, machine, options_given, write_section

WIDTH, CLASSES, WARM_UP = 512, 100, 2
# Verb of gradus bench, network, side of the images, images of a batch, steps of a round.
ROWS = [
    ("train-step", "convnet", 64, 64, 10),
    ("train-step", "resnet18", 112, 32, 5),
    ("train-step", "resnet50", 224, 16, 3),
    ("train-step", "mobilenet-v2", 96, 64, 5),
    ("infer", "resnet50", 224, 16, 5),
]


def trunk(name):
    """[network up to the last feature map, its channels]"""
    from torch import nn

    def convolution(inputs, outputs, kernel, stride=1, groups=1):
        return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)

    def block(inputs, outputs, kernel, stride=1, groups=1, activation=nn.ReLU):
        layers = [convolution(inputs, outputs, kernel, stride, groups), nn.BatchNorm2d(outputs)]
        return layers + ([activation(inplace=True)] if activation else [])

    class Residual(nn.Module):
        def __init__(self, branch, shortcut, rectified):
            super().__init__()
            self.branch, self.shortcut, self.rectified = branch, shortcut, rectified

        def forward(self, x):
            sum_of_both = self.branch(x) + self.shortcut(x)
            return nn.functional.relu(sum_of_both, inplace=True) if self.rectified else sum_of_both

    def convnet():
        layers, inputs = [], 3
        for outputs in (32, 64, 128, 256):
            layers += [*block(inputs, outputs, 3), nn.MaxPool2d(2)]
            inputs = outputs
        return layers, inputs

    def resnet(depths, bottleneck):
        layers, inputs = [*block(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)], 64
        for stage, depth in enumerate(depths):
            width = 64 << stage
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                if bottleneck:
                    outputs = 4 * width
                    branch = block(inputs, width, 1) + block(width, width, 3, stride) + block(width, outputs, 1, activation=None)
                else:
                    outputs = width
                    branch = block(inputs, width, 3, stride) + block(width, width, 3, activation=None)
                changes = stride != 1 or inputs != outputs
                shortcut = nn.Sequential(*block(inputs, outputs, 1, stride, activation=None)) if changes else nn.Identity()
                layers.append(Residual(nn.Sequential(*branch), shortcut, True))
                inputs = outputs
        return layers, inputs

    def mobilenet():
        layers, inputs = block(3, 32, 3, 2, activation=nn.ReLU6), 32
        stages = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
        for expansion, outputs, count, first in stages:
            for index in range(count):
                stride, hidden = first if index == 0 else 1, inputs * expansion
                branch = block(inputs, hidden, 1, activation=nn.ReLU6) if expansion > 1 else []
                branch += block(hidden, hidden, 3, stride, hidden, nn.ReLU6) + block(hidden, outputs, 1, activation=None)
                branch = nn.Sequential(*branch)
                layers.append(Residual(branch, nn.Identity(), False) if stride == 1 and inputs == outputs else branch)
                inputs = outputs
        return [*layers, *block(inputs, 1280, 1, activation=nn.ReLU6)], 1280

    layers, channels = {
        "convnet": convnet,
        "resnet18": lambda: resnet([2, 2, 2, 2], False),
        "resnet50": lambda: resnet([3, 4, 6, 3], True),
        "mobilenet-v2": mobilenet,
    }[name]()
    network = nn.Sequential(*layers)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network, channels


def peak_mib():
    # VmHWM of this process, which is what gradus reports of its own.
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not say how much memory a process had")


def measure(verb, name, size, batch, steps, channels_last, threads):
    """What `gradus bench` measures, in PyTorch and in this process."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    idle = peak_mib()
    layers, channels = trunk(name)
    network = torch.nn.Sequential(layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(channels, WIDTH))
    network.eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.requires_grad_(False)
            module.bias.requires_grad_(False)
    images = torch.randn(batch, 3, size, size)
    if channels_last:
        network, images = (each.to(memory_format=torch.channels_last) for each in (network, images))
    proxies = torch.nn.Parameter(torch.nn.init.kaiming_normal_(torch.empty(CLASSES, WIDTH), mode="fan_out"))
    own = functional.one_hot(torch.randint(CLASSES, (batch,)), CLASSES).T.bool()  # [classes, batch]
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [{"params": trained, "lr": 1e-4}, {"params": [proxies], "lr": 1e-2}]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-4)
    alpha, margin = 32.0, 0.1

    def train():
        rows = functional.normalize(network(images))
        similarities = functional.normalize(proxies) @ rows.T  # [classes, batch]
        zero = similarities.new_zeros(CLASSES, 1)
        infinite = float("-inf")
        pull = (-alpha * (similarities - margin)).masked_fill(~own, infinite)
        push = (alpha * (similarities + margin)).masked_fill(own, infinite)
        pull, push = (torch.logsumexp(torch.cat([zero, each], 1), 1) for each in (pull, push))
        loss = pull.sum() / own.any(1).sum() + push.mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    def infer():
        with torch.inference_mode():
            return functional.normalize(network(images)).sum().item()

    step = train if verb == "train-step" else infer
    times, value = [], 0.0
    for _ in range(WARM_UP + steps):
        started = time.perf_counter()
        value = step()
        times.append(1e3 * (time.perf_counter() - started))
    assert value == value, f"{name}: not a number"
    parameters = sum(each.numel() for each in [*network.parameters(), proxies])
    median = statistics.median(times[WARM_UP:])
    return {"median_ms": median, "peak_mib": peak_mib(), "idle_mib": idle, "parameters": parameters}


def run(command, threads):
    threads = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
    finished = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **threads})
    if finished.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{finished.stderr}")
    return json.loads(finished.stdout)


def compare(options, verb, name, size, batch, steps):
    """{which: the calmest of its rounds}"""
    described = ["--model", name, "--size", str(size), "--batch", str(batch), "--threads", str(options.threads)]
    count = ["--steps" if verb == "train-step" else "--repeats", str(steps)]
    this = [sys.executable, str(pathlib.Path(__file__).resolve()), "--measure", verb, "--only", name, "--size", str(size)]
    this += ["--batch", str(batch), "--steps", str(steps), "--threads", str(options.threads)]
    commands = {
        "nchw": this,
        "gradus": [str(options.gradus), "bench", verb, *described, *count, "--json"],
        "channels-last": [*this, "--channels-last"],
    }
    rounds = {which: [] for which in commands}
    for _ in range(options.rounds):
        for which, command in commands.items():
            rounds[which].append(run(command, options.threads))
            print(f"  {verb} {name} {which}: {rounds[which][-1]['median_ms']:.1f} ms", file=sys.stderr, flush=True)
    found = {}
    for which, measured in rounds.items():
        found[which] = {
            **measured[0],
            "median_ms": min(each["median_ms"] for each in measured),
            "peak_mib": max(each["peak_mib"] for each in measured),
        }
    if verb == "train-step":
        counts = {which: each["parameters"] for which, each in found.items()}
        assert len(set(counts.values())) == 1, f"{name}: the networks differ: {counts} parameters"
    return found


HEADING = (
    "| work | torch NCHW ms | torch channels-last ms | gradus ms | ratio | gradus GFLOP/s | torch peak MiB | gradus peak MiB | ratio of peaks |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def row(found, verb, name, size, batch):
    nchw, last, ours = found["nchw"], found["channels-last"], found["gradus"]
    # The better format counts, for memory too.
    best = min(nchw, last, key=lambda each: each["median_ms"])
    cells = [
        f"{'training step' if verb == 'train-step' else 'inference'}, {name}, {batch} x {size} px",
        f"{nchw['median_ms']:.0f}",
        f"{last['median_ms']:.0f}",
        f"{ours['median_ms']:.0f}",
        f"{ours['median_ms'] / best['median_ms']:.2f}",
        f"{ours['gflops']:.0f}",
        f"{best['peak_mib']:.0f}",
        f"{ours['peak_mib']:.0f}",
        f"{ours['peak_mib'] / best['peak_mib']:.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def document(options, rows, idle, load):
    import torch

    version = subprocess.run([str(options.gradus), "-V"], capture_output=True, text=True).stdout.strip()
    lines = [
        f"Machine: {machine()}. {time.strftime('%Y-%m-%d')}. {version} (release, processor); torch {torch.__version__}, Python {platform.python_version()}. "
        f"Command: `python tools/benchmarks/train_step.py{options_given()}`. Load average before and after: {load:.1f} and {os.getloadavg()[0]:.1f} "
        f"(above {os.cpu_count()}: other programs had a part of the machine).",
        "",
        f"float32, {options.threads} threads, random images; average pooling, linear head of width {WIDTH}, Proxy-Anchor over {CLASSES} classes, batch",
        "normalisation that is not trained (statistics, scale and shift stay), AdamW over everything else. Forward pass, loss, backward pass and update",
        f"are timed, or one pass without gradients. Every number from a process of its own; {options.rounds} rounds that alternate between the programs, each the median of",
        "several steps after two that are not counted; the table has the calmest round. *ratio* is gradus over the better format of torch: below 1 gradus",
        f"is faster. *Peak* is the most memory the process ever had (`VmHWM`), that of torch in its better format; {idle:.0f} MiB of it are there before there is a network,",
        "for Python and torch. GFLOP/s count convolutions, head and proxies (2 for a multiply-add).",
        "`gradus bench train-step` and `gradus bench infer` measure gradus alone.",
        "",
        HEADING,
        *rows,
    ]
    write_section("Training steps", lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gradus", type=pathlib.Path, default=ROOT / "target" / "release" / "gradus", help="the program")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", action="append", help="a network (repeatable); then nothing is written")
    # How this program calls itself: one measurement of PyTorch.
    for option in ("--size", "--batch", "--steps"):
        parser.add_argument(option, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=["train-step", "infer"], help=argparse.SUPPRESS)
    parser.add_argument("--channels-last", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        work = options.measure, options.only[0], options.size, options.batch, options.steps
        print(json.dumps(measure(*work, options.channels_last, options.threads)))
        return
    unknown = set(options.only or []) - {name for _, name, *_ in ROWS}
    if unknown:
        parser.error(f"--only takes {', '.join(dict.fromkeys(name for _, name, *_ in ROWS))}, not {', '.join(sorted(unknown))}")
    rows, idle, load = [], 0.0, os.getloadavg()[0]
    print(HEADING, flush=True)
    for verb, name, size, batch, steps in ROWS:
        if options.only and name not in options.only:
            continue
        found = compare(options, verb, name, size, batch, steps)
        idle = found["nchw"]["idle_mib"]
        rows.append(row(found, verb, name, size, batch))
        print(rows[-1], flush=True)
    if not options.only:
        document(options, rows, idle, load)


if __name__ == "__main__":
    main()
