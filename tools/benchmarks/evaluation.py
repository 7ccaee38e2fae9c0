"""Times `gradus evaluate` against faiss-cpu's exact search on a set of the size of Stanford Online Products.

    pip install faiss-cpu numpy
    python tools/benchmarks/evaluation.py --gradus target/release/gradus

60,502 unit vectors of width 512 in 11,316 classes (seeded): Recall@{1,10,100,1000} and MAP@R by gradus, the 1,001 nearest by
`faiss.IndexFlatIP` (the query itself is among them), both with --threads threads and alternating, so that both meet the same
neighbours on a shared machine. faiss is timed for the search alone (its metrics would come on top), gradus for the whole command,
reading the files included. The numbers are compared, too.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy

FAISS = """
import sys, time, json, numpy, faiss, resource
folder, threads = sys.argv[1], int(sys.argv[2])
x, labels = numpy.load(folder + "/embeddings.npy"), numpy.load(folder + "/labels.npy")
faiss.omp_set_num_threads(threads)
index = faiss.IndexFlatIP(x.shape[1])
index.add(x)
begin = time.perf_counter(), time.process_time()
_, nearest = index.search(x, 1001)
wall, cpu = time.perf_counter() - begin[0], time.process_time() - begin[1]
keep = nearest != numpy.arange(len(x))[:, None]
keep[keep.all(1), -1] = False
hits = (labels[nearest] == labels[:, None])[keep].reshape(len(x), 1000)
result = {f"recall@{k}": float(hits[:, :k].any(1).mean()) for k in (1, 10, 100, 1000)}
others = numpy.bincount(labels)[labels] - 1
places = numpy.arange(1, 1001)
precision = numpy.cumsum(hits, 1) / places
within = hits & (places[None, :] <= others[:, None])
result["map@r"] = float(((precision * within).sum(1) / numpy.maximum(others, 1)).mean())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": wall, "cpu": cpu, "peak_mib": peak, "version": faiss.__version__, **result}))
"""


def make(folder, noise):
    random = numpy.random.default_rng(0)
    rows, width, classes = 60502, 512, 11316
    labels = random.integers(0, classes, rows)
    labels[:classes] = numpy.arange(classes)
    random.shuffle(labels)
    x = random.standard_normal((classes, width), dtype=numpy.float32)[labels]
    x += noise * random.standard_normal((rows, width), dtype=numpy.float32)
    x /= numpy.linalg.norm(x, axis=1, keepdims=True)
    numpy.save(folder / "embeddings.npy", x)
    numpy.save(folder / "labels.npy", labels)


def run(command, environment):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - begin
    if done.returncode:
        sys.exit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": wall, "process_cpu": cpu, **json.loads(done.stdout)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gradus", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--noise", type=float, nargs="+", default=[2.5, 6.0], help="scatter of the members (classes: 1)")
    arguments = parser.parse_args()
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    lines = ["| set | | seconds | CPU seconds | peak MiB |", "|---|---|---|---|---|"]
    for noise in arguments.noise:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            make(folder, noise)
            mine, theirs = [], []
            for _ in range(arguments.rounds):
                theirs.append(run([sys.executable, "-c", FAISS, name, str(arguments.threads)], environment))
                command = [arguments.gradus, "evaluate", "--embeddings", f"{name}/embeddings.npy", "--labels"]
                command += [f"{name}/labels.npy", "--metrics", "recall,map@r", "--k", "1,10,100,1000"]
                command += ["--threads", str(arguments.threads), "--json"]
                mine.append(run(command, environment))
                print(json.dumps({"scatter": noise, "faiss": theirs[-1], "gradus": mine[-1]}), file=sys.stderr, flush=True)
        keys = ["recall@1", "recall@10", "recall@100", "recall@1000", "map@r"]
        for key in keys:
            difference = abs(mine[0][key] - theirs[0][key])
            assert difference < 1e-4, (key, mine[0][key], theirs[0][key])
        fast = {"gradus": min(mine, key=lambda one: one["wall"]), "faiss": min(theirs, key=lambda one: one["seconds"])}
        seconds = {"gradus": fast["gradus"]["wall"], "faiss": fast["faiss"]["seconds"]}
        cpu = {"gradus": min(one["process_cpu"] for one in mine), "faiss": min(one["cpu"] for one in theirs)}
        values = ", ".join(f"{key} {mine[0][key]:.4f}" for key in keys)
        version = theirs[0]["version"]
        lines.append(f"| scatter {noise} | faiss-cpu {version}, IndexFlatIP, k = 1001 | {seconds['faiss']:.1f} | {cpu['faiss']:.1f} | {fast['faiss']['peak_mib']:.0f} |")
        lines.append(f"| {values} | gradus evaluate | {seconds['gradus']:.1f} | {cpu['gradus']:.1f} | {fast['gradus']['peak_mib']:.0f} |")
        pairs = sorted(one["wall"] / other["seconds"] for one, other in zip(mine, theirs))
        lines.append(
            f"| | **ratio** (rounds: {', '.join(f'{pair:.2f}' for pair in pairs)}) | **{seconds['gradus'] / seconds['faiss']:.2f}** "
            f"| {cpu['gradus'] / cpu['faiss']:.2f} | |"
        )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
