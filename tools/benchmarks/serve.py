"""Writes the section Server of docs/benchmarks.md: requests per second, waiting times and memory of `gradus serve` on this machine.

Usage: cargo build --release && pip install numpy && python tools/benchmarks/serve.py
       python tools/benchmarks/serve.py --rows 10000 --minutes 0.2 --dry    # a part: prints, writes nothing

An index of --rows clustered vectors x --dim is built and served on loopback; the load comes from a process of its own on the same cores, which
posts vectors as JSON over connections that are kept. First --connections clients that wait for their answer measure the capacity; then for --minutes
requests are sent at --overload times that rate, whatever the answers: what is beyond the queue has to be answered 429 at once. A wrong answer, a
connection that breaks or a status other than 200 and 429 fails the script.
"""

import argparse
import asyncio
import collections
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy
from section import ROOT, machine, options_given, write_section


def build(program, folder, rows, dim, seed=0):
    draw = numpy.random.default_rng(seed)
    centres = draw.standard_normal((max(1, rows // 100), dim), numpy.float32)
    vectors = centres[numpy.arange(rows) % len(centres)] + 0.5 * draw.standard_normal((rows, dim), numpy.float32)
    numpy.save(folder / "vectors.npy", vectors)
    words = [program, "index", "build", "--embeddings", folder / "vectors.npy", "--out", folder / "index", "--json"]
    return vectors, json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)


def resident(process):
    for line in open(f"/proc/{process.pid}/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return float("nan")


class Load:
    """Connections that post searches and count what comes back."""

    def __init__(self, port, bodies):
        self.port, self.bodies = port, bodies
        self.next, self.statuses, self.times, self.wrong = 0, collections.Counter(), [], []

    async def connect(self):
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, connection):
        reader, writer = connection
        row = self.next = (self.next + 1) % len(self.bodies)
        body = self.bodies[row]
        head = f"POST /search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        started = time.perf_counter()
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        status = int(answer.split(b" ", 2)[1])
        length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        content = await reader.readexactly(length)
        self.statuses[status] += 1
        if status == 200:
            self.times.append(time.perf_counter() - started)
            if json.loads(content)["hits"][0]["id"] != str(row):
                self.wrong.append(row)
        elif status != 429:
            self.wrong.append((status, content[:200]))

    async def waiting(self, connections, seconds):
        """Every connection asks again when it has been answered."""
        end = time.perf_counter() + seconds

        async def client():
            connection = await self.connect()
            while time.perf_counter() < end:
                await self.ask(connection)
            connection[1].close()

        await asyncio.gather(*(client() for _ in range(connections)))

    async def paced(self, rate, connections, seconds, tick):
        """Requests at a rate, as long as there is a connection that is not waiting."""
        # In turn, so that none waits so long that the server closes it.
        free = collections.deque([await self.connect() for _ in range(connections)])
        started, sent, tasks, next_tick, unsent = time.perf_counter(), 0, set(), 0.0, 0

        async def one(connection):
            try:
                await self.ask(connection)
            except (OSError, asyncio.IncompleteReadError) as problem:
                self.wrong.append(repr(problem))
                connection = await self.connect()
            free.append(connection)

        while (now := time.perf_counter() - started) < seconds:
            if now >= next_tick:
                tick(now)
                next_tick += 10
            due = int(now * rate)
            while sent < due:
                sent += 1
                if free:
                    task = asyncio.create_task(one(free.popleft()))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                else:
                    unsent += 1
            await asyncio.sleep(0.001)
        await asyncio.gather(*tasks)
        for _, writer in free:
            writer.close()
        return sent - unsent, unsent


def percentile(times, share):
    return 1e3 * float(numpy.quantile(times, share)) if times else float("nan")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gradus", default=str(ROOT / "target" / "release" / "gradus"))
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--overload", type=float, default=2)
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        vectors, built = build(options.gradus, folder, options.rows, options.dim)
        bodies = [json.dumps({"vector": [round(float(value), 4) for value in row], "k": 10}).encode() for row in vectors[:2000]]
        server = subprocess.Popen(
            [options.gradus, "serve", "--index", folder / "index", "--port", "0", "--json"], stdout=subprocess.PIPE, text=True
        )
        try:
            port = json.loads(server.stdout.readline())["port"]
            asyncio.run(Load(port, bodies).waiting(options.connections, 2))
            alone = Load(port, bodies)
            asyncio.run(alone.waiting(1, options.seconds / 2))
            full = Load(port, bodies)
            asyncio.run(full.waiting(options.connections, options.seconds))
            capacity = full.statuses[200] / options.seconds
            memory = []
            over = Load(port, bodies)
            seconds = 60 * options.minutes
            sent, unsent = asyncio.run(
                over.paced(options.overload * capacity, 512, seconds, lambda _: memory.append(resident(server)))
            )
            memory.append(resident(server))
            wrong = alone.wrong + full.wrong + over.wrong
            server.terminate()
            code = server.wait(30)
        finally:
            server.kill()
    if wrong or code != 0:
        sys.exit(f"wrong answers: {wrong[:5]} ({len(wrong)}), exit code {code}")
    lines = [
        f"`python tools/benchmarks/serve.py{options_given()}` on {machine()}, {time.strftime('%Y-%m-%d')}; server and load share the cores. Index: "
        f"{options.rows} x {options.dim}, engine {built['engine']}, recall@10 {built['recall@10']:.4f}, built in {built['build_s']} s, "
        f"{built['size_mib']} MiB.",
        "",
        "| load | requests per second answered | median ms | 99 of 100 below, ms | 429 |",
        "|---|---|---|---|---|",
    ]
    for title, load, duration in [
        ("one client", alone, options.seconds / 2),
        (f"{options.connections} clients (the capacity)", full, options.seconds),
        (f"{options.overload:g} times the capacity for {options.minutes:g} min", over, seconds),
    ]:
        lines.append(
            f"| {title} | {load.statuses[200] / duration:.0f} | {percentile(load.times, 0.5):.1f} | {percentile(load.times, 0.99):.1f} | "
            f"{load.statuses[429]} |"
        )
    half = memory[len(memory) // 4 :]
    lines += [
        "",
        f"Under overload {sent} requests were sent and all answered (200: {over.statuses[200]}, 429: {over.statuses[429]}; {unsent} could not be sent because "
        f"all 512 connections were waiting). Resident memory of the server: {memory[0]:.0f} MiB before, {half[0]:.0f} MiB after a quarter of the time, "
        f"{memory[-1]:.0f} MiB at the end (largest {max(memory):.0f}). It then ended on SIGTERM with exit code 0.",
    ]
    print("\n".join(lines))
    if not options.dry:
        write_section("Server", lines)


if __name__ == "__main__":
    main()
