"""Writes the section Losses of docs/benchmarks.md: what losses cost in gradus and in pytorch-metric-learning (PML) on the same machine in the same minutes.

Usage: cargo build --release && pip install torch pytorch-metric-learning && python tools/benchmarks/losses.py
       python tools/benchmarks/losses.py --only triplet-margin --only pnp --batches 128    # a part: prints, writes nothing

Both sides compute forward and backward pass with default settings on random rows of unit length, float32, the same classes
(4 rows each), 2 threads (PML also 1: the better counts), every loss in a process of its own. Rounds alternate between both sides: a round is the median of some
passes after one that is not counted, a number in the table is that of the calmest round. What would take PML more than --limit GiB is
stopped by a limit on its memory, what takes it longer than --patience seconds a pass is measured in a single pass, and what has
not answered after --deadline seconds is stopped.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import resource
import statistics
import subprocess
import time
import warnings

from section import ROOT, machine, options_given, write_section

THREADS = 2
SAMPLES = 4
PASSES = {128: 15, 512: 7, 1024: 3}


def reference(name, classes, dim):
    """The loss of PML with the settings that are defaults of gradus; none where it has none."""
    from pytorch_metric_learning import losses

    size = {"num_classes": classes, "embedding_size": dim}
    by_name = {
        "angular": (losses.AngularLoss, {}),
        "arcface": (losses.ArcFaceLoss, size),
        "circle": (losses.CircleLoss, {}),
        "contrastive": (losses.ContrastiveLoss, {}),
        "cosface": (losses.CosFaceLoss, size),
        "dynamic-soft-margin": (losses.DynamicSoftMarginLoss, {}),
        "fast-ap": (losses.FastAPLoss, {}),
        "generalized-lifted-structure": (losses.GeneralizedLiftedStructureLoss, {}),
        "histogram": (losses.HistogramLoss, {}),
        "instance": (losses.InstanceLoss, {}),
        "intra-pair-variance": (losses.IntraPairVarianceLoss, {}),
        "large-margin-softmax": (losses.LargeMarginSoftmaxLoss, size),
        "lifted-structure": (losses.LiftedStructureLoss, {}),
        "manifold": (losses.ManifoldLoss, {"l": dim}),
        "margin": (losses.MarginLoss, {}),
        "multi-similarity": (losses.MultiSimilarityLoss, {}),
        "multiple-losses": (losses.MultipleLosses, {"losses": [losses.MultiSimilarityLoss(), losses.ContrastiveLoss()]}),
        "n-pairs": (losses.NPairsLoss, {}),
        "nca": (losses.NCALoss, {}),
        "normalized-softmax": (losses.NormalizedSoftmaxLoss, size),
        "nt-xent": (losses.NTXentLoss, {}),
        "p2s-grad": (losses.P2SGradLoss, {"descriptors_dim": dim, "num_classes": classes}),
        "pnp": (losses.PNPLoss, {}),
        "proxy-anchor": (losses.ProxyAnchorLoss, size),
        "proxy-nca": (losses.ProxyNCALoss, size),
        "ranked-list": (losses.RankedListLoss, {"margin": 0.4, "Tn": 10}),
        "self-supervised": (losses.SelfSupervisedLoss, {"loss": losses.NTXentLoss()}),
        "signal-to-noise-ratio-contrastive": (losses.SignalToNoiseRatioContrastiveLoss, {}),
        "smooth-ap": (losses.SmoothAPLoss, {}),
        "soft-triple": (losses.SoftTripleLoss, size),
        "sphereface": (losses.SphereFaceLoss, size),
        "sub-center-arcface": (losses.SubCenterArcFaceLoss, size),
        "sup-con": (losses.SupConLoss, {}),
        "threshold-consistent-margin": (losses.ThresholdConsistentMarginLoss, {}),
        "triplet-margin": (losses.TripletMarginLoss, {}),
        "tuplet-margin": (losses.TupletMarginLoss, {}),
        "vic-reg": (losses.VICRegLoss, {}),
    }
    if name not in by_name:
        return None
    loss, arguments = by_name[name]
    return loss(**arguments)


TWO_VIEWS = ("self-supervised", "vic-reg")


def peak_mib():
    # VmHWM of this process, which is what gradus reports of its own.
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def serve(connection, name, batch, dim, passes, limit, patience):
    """A process that measures one loss of PML: a round for every request."""
    import torch

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    loss = reference(name, -(-batch // SAMPLES), dim)
    if loss is None:
        return connection.send({"problem": "none"})
    idle = peak_mib()
    resource.setrlimit(resource.RLIMIT_DATA, (limit * 2**30, limit * 2**30))
    draw = lambda: torch.nn.functional.normalize(torch.randn(batch, dim))
    rows, view = draw(), draw()
    labels = torch.arange(batch) // SAMPLES

    def step():
        leaf = rows.clone().requires_grad_()
        second = view.clone().requires_grad_()
        for parameter in loss.parameters():
            parameter.grad = None
        started = time.perf_counter()
        if name == "self-supervised":
            value = loss(leaf, second)
        elif name == "vic-reg":
            value = loss(leaf, ref_emb=second)
        elif name == "manifold":
            value = loss(leaf)  # it takes no labels, and draws meta-classes at random
        else:
            value = loss(leaf, labels)
        value.backward()
        elapsed = time.perf_counter() - started
        if name == "dynamic-soft-margin":
            loss.hist_ = loss.hist_.detach()  # it keeps the graph of the last batch and would fail in the next one
        assert torch.isfinite(leaf.grad.sum()), "the gradient is not finite"
        return elapsed

    try:
        first = step()
        while connection.recv():
            medians = [first]
            # Torch's threads wait for each other badly on a busy machine: the better of both numbers counts.
            for threads in (1, THREADS) if first <= patience else ():
                torch.set_num_threads(threads)
                times, started = [], time.perf_counter()
                while len(times) < passes and time.perf_counter() - started < patience:
                    times.append(step())
                medians.append(statistics.median(times))
            connection.send({"median_ms": 1e3 * min(medians), "peak_mib": peak_mib(), "idle_mib": idle})
    except (MemoryError, RuntimeError) as problem:
        if isinstance(problem, RuntimeError) and "memory" not in str(problem):
            raise
        connection.send({"problem": "memory"})


def compare(binary, name, batch, options):
    """[gradus, PML] by the calmest of rounds that alternate; PML holds `problem` where there is nothing to compare."""
    passes = PASSES.get(batch, 3)
    # A copy of this process, which has loaded torch and never used it.
    context = multiprocessing.get_context("fork")
    connection, other_end = context.Pipe()
    arguments = (other_end, name, batch, options.dim, passes, options.limit, options.patience)
    theirs = context.Process(target=serve, args=arguments, daemon=True)
    theirs.start()
    other_end.close()
    command = [str(binary), "bench", "losses", "--json", "--loss", name, "--batch", str(batch), "--dim", str(options.dim)]
    command += ["--samples-per-class", str(SAMPLES), "--repeats", str(passes)]
    ours, other = [], []
    for _ in range(options.rounds):
        finished = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "RAYON_NUM_THREADS": str(THREADS)}
        )
        if finished.returncode != 0:
            raise SystemExit(f"{name}: {finished.stderr}")
        ours.append(json.loads(finished.stdout)[name])
        if other and "problem" in other[-1]:
            continue
        try:
            connection.send(True)
        except BrokenPipeError:
            pass  # it has said why
        try:
            other.append(connection.recv() if connection.poll(options.deadline) else {"problem": "time"})
        except EOFError:
            raise SystemExit(f"{name}: the process of PML ended without a word") from None
    theirs.kill()
    theirs.join()
    # Whatever else runs on the machine only ever adds to a time.
    calmest = lambda rounds: {
        "median_ms": min(each["median_ms"] for each in rounds),
        "peak_mib": max(each["peak_mib"] for each in rounds),
    }
    return calmest(ours), other[-1] if "problem" in other[-1] else {**calmest(other), "idle_mib": other[-1]["idle_mib"]}


def milliseconds(number):
    return f"{number:.2f}" if number < 10 else f"{number:.1f}" if number < 100 else f"{number:.0f}"


def row(name, ours, theirs, options):
    cells = [name, milliseconds(ours["median_ms"])]
    if theirs.get("problem") == "none":
        cells += ["–", "–", f"{ours['peak_mib']:.0f}", "–"]
    elif theirs.get("problem") == "memory":
        cells += ["out of memory", "–", f"{ours['peak_mib']:.0f}", f"over {options.limit * 1024}"]
    elif theirs.get("problem") == "time":
        cells += [f"over {1000 * options.deadline:.0f}", "–", f"{ours['peak_mib']:.0f}", "–"]
    else:
        ratio = ours["median_ms"] / theirs["median_ms"]
        cells += [milliseconds(theirs["median_ms"]), f"{ratio:.2f}", f"{ours['peak_mib']:.0f}", f"{theirs['peak_mib']:.0f}"]
    return "| " + " | ".join(cells) + " |"


HEADING = "| loss | gradus ms | PML ms | ratio | gradus peak MiB | PML peak MiB |\n|---|---:|---:|---:|---:|---:|"


def document(binary, tables, idle, load, options):
    import pytorch_metric_learning
    import torch

    version = subprocess.run([str(binary), "-V"], capture_output=True, text=True).stdout.strip()
    lines = [
        f"Machine: {machine()}. {version} (release, processor); torch {torch.__version__}, pytorch-metric-learning "
        f"{pytorch_metric_learning.__version__} (PML). Command: `python tools/benchmarks/losses.py{options_given()}`. Load average "
        f"before and after: {load:.1f} and {os.getloadavg()[0]:.1f} (above {os.cpu_count()}: other programs had a part of the machine, and times of single "
        "rows are no measure).",
        "",
        f"Forward and backward pass, default settings, B rows of width {options.dim} (random, unit length, {SAMPLES} of each class; two views for",
        f"`self-supervised` and `vic-reg`), float32, {THREADS} threads (PML: the better of {THREADS} and one). Every loss in a process of its own; {options.rounds} rounds that alternate between both",
        "programs, each the median of " + ", ".join(f"{passes} (B = {batch})" for batch, passes in PASSES.items()) + " passes after one that is not counted; the table has the",
        "calmest round. *ratio* is gradus over PML: below 1 gradus is faster. *Peak* is the most memory the whole process ever had",
        f"(`VmHWM`): that of PML has {idle:.0f} MiB before it has seen a batch, for Python and torch. *out of memory*: PML was stopped at {options.limit} GiB; *over*: after {options.deadline:.0f} s. –: PML has no such",
        "loss. `gradus bench losses` measures gradus alone.",
    ]
    for batch, rows in tables.items():
        lines += ["", f"### B = {batch}", "", HEADING, *rows]
    write_section("Losses", lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gradus", type=pathlib.Path, default=ROOT / "target" / "release" / "gradus", help="the program")
    parser.add_argument("--batches", type=int, nargs="+", default=list(PASSES))
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=8, help="GiB that PML may use")
    parser.add_argument("--patience", type=float, default=10.0, help="seconds that a pass of PML may take to be repeated, and all repetitions together")
    parser.add_argument("--only", action="append", help="a loss (repeatable); then nothing is written")
    parser.add_argument("--deadline", type=float, default=120.0, help="seconds PML may take for its first round")
    options = parser.parse_args()
    import pytorch_metric_learning.losses  # noqa: F401, once for all processes

    warnings.simplefilter("ignore")
    listed = subprocess.run([str(options.gradus), "list", "losses", "--json"], capture_output=True, text=True, check=True)
    names = options.only or [loss["name"] for loss in json.loads(listed.stdout)["losses"]]
    tables, idle, load = {}, 0.0, os.getloadavg()[0]
    for batch in options.batches:
        print(f"B = {batch}\n{HEADING}", flush=True)
        tables[batch] = []
        for name in names:
            ours, theirs = compare(options.gradus, name, batch, options)
            idle = theirs.get("idle_mib", idle)
            tables[batch].append(row(name, ours, theirs, options))
            print(tables[batch][-1], flush=True)
    if not options.only and options.batches == list(PASSES):
        document(options.gradus, tables, idle, load, options)


if __name__ == "__main__":
    main()
