"""Writes the section Input pipeline of docs/benchmarks.md: images per second of gradus and of torchvision with PIL, in the same minutes.

Usage: cargo build --release && pip install torch torchvision pillow && python tools/benchmarks/loader.py FOLDER
       python tools/benchmarks/loader.py FOLDER --rounds 1 --images 500 --dry    # a part: prints, writes nothing

FOLDER is any folder with images below it. Both sides read the same files once per
round and make the same views: RandomResizedCrop (share of the area 0.2 to 1, ratio 3/4 to 4/3), horizontal flip with probability 1/2,
mean and deviation of ImageNet, batches of 64 in float32. torchvision: PIL images in a DataLoader with --workers processes; gradus: as many
threads. Nothing is kept from one round to the next but the system's own cache of files, which a first pass over all files fills.
Starting the processes of the DataLoader is not counted, nor is that of gradus. Rounds alternate; the best of each counts.
"""

import argparse
import json
import os
import pathlib
import platform
import resource
import subprocess
import sys
import tempfile
import time

from section import ROOT, machine, options_given, write_section

BATCH, SMALLEST_CROP = 64, 0.2
ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def torchvision_round(files, size, workers):
    """Images per second, and MiB of this process and its largest worker."""
    import torch
    from PIL import Image
    from torchvision import transforms

    torch.set_num_threads(1)
    view = transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(SMALLEST_CROP, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return len(files)

        def __getitem__(self, index):
            # -1: a worker says that it is there.
            return torch.zeros(1) if index < 0 else view(Image.open(files[index]).convert("RGB"))

    # The first batches are only there to start the workers; what follows waits until all of them have been handed out.
    first = [[-1]] * workers
    batches = [list(range(start, min(start + BATCH, len(files)))) for start in range(0, len(files), BATCH)]
    started = None

    class Order:
        def __iter__(self):
            nonlocal started
            yield from first
            while ready < workers:
                yield [-1]
            started = time.perf_counter()
            yield from batches

    ready, images = 0, 0
    loader = torch.utils.data.DataLoader(Images(), batch_sampler=Order(), num_workers=workers, multiprocessing_context="fork")
    for batch in loader:
        if batch.dim() == 2:
            ready += 1
        else:
            images += len(batch)
    seconds = time.perf_counter() - started
    assert images == len(files), (images, len(files))
    del loader
    usage = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {"images": images, "seconds": seconds, "images_per_second": images / seconds, "peak_mib": usage[0], "worker_peak_mib": usage[1]}


def run(command):
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{finished.stderr}")
    return json.loads(finished.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--gradus", type=pathlib.Path, default=ROOT / "target" / "release" / "gradus", help="the program")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 96])
    parser.add_argument("--images", type=int, help="take only so many, spread over the folder")
    parser.add_argument("--name", help="what the images are called in the documentation [default: the folder's name]")
    parser.add_argument("--dry", action="store_true", help="print only")
    # How this program calls itself: one round of torchvision.
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    files = sorted(str(path) for path in options.folder.rglob("*") if path.suffix.lower() in ENDINGS)
    if not files:
        raise SystemExit(f"{options.folder} holds no image ({', '.join(sorted(ENDINGS))})")
    if options.measure:
        print(json.dumps(torchvision_round(files, options.measure, options.workers)))
        return
    if options.images and options.images < len(files):
        files = [files[index * len(files) // options.images] for index in range(options.images)]
    load, rows = os.getloadavg()[0], []
    heading = (
        "| size | torchvision images/s | gradus images/s | ratio | torchvision peak MiB (each worker) | gradus peak MiB |\n"
        "|---:|---:|---:|---:|---:|---:|"
    )
    print(heading, flush=True)
    with tempfile.TemporaryDirectory() as name:
        # The same files for both, as links in folders of some classes, whatever lists a data set may have.
        folder = pathlib.Path(name) / "images"
        size_on_disk = 0
        for number, file in enumerate(files):
            size_on_disk += len(pathlib.Path(file).read_bytes())
            link = folder / f"class-{number * 10 // len(files)}" / f"{number:07}{pathlib.Path(file).suffix.lower()}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(pathlib.Path(file).resolve())
        for size in options.sizes:
            rounds = {"torchvision": [], "gradus": []}
            this = [sys.executable, str(pathlib.Path(__file__).resolve()), str(folder), "--measure", str(size)]
            commands = {
                "torchvision": [*this, "--workers", str(options.workers)],
                "gradus": [str(options.gradus), "bench", "loader", "--data", str(folder), "--layout", "image-folder", "--json"]
                + ["--size", str(size), "--batch", str(BATCH), "--crop-scale", str(SMALLEST_CROP), "--threads", str(options.workers)],
            }
            for _ in range(options.rounds):
                for which, command in commands.items():
                    rounds[which].append(run(command))
                    rate = rounds[which][-1]["images_per_second"]
                    print(f"  {size} px, {which}: {rate:.0f} images/s", file=sys.stderr, flush=True)
            counts = {which: found[0]["images"] for which, found in rounds.items()}
            assert len(set(counts.values())) == 1, f"both must read the same images: {counts}"
            theirs, ours = (max(found, key=lambda each: each["images_per_second"]) for found in rounds.values())
            ratio = ours["images_per_second"] / theirs["images_per_second"]
            peak = f"{theirs['peak_mib']:.0f} ({theirs['worker_peak_mib']:.0f})"
            cells = [size, f"{theirs['images_per_second']:.0f}", f"{ours['images_per_second']:.0f}", f"{ratio:.2f}", peak, f"{ours['peak_mib']:.0f}"]
            rows.append("| " + " | ".join(map(str, cells)) + " |")
            print(rows[-1], flush=True)
    if options.dry:
        return
    import PIL
    import torch
    import torchvision

    # The place of the images is nobody's business.
    name, place = options.name or options.folder.resolve().name, str(options.folder)
    given = options_given().replace(f" {place}", " FOLDER", 1)
    version = subprocess.run([str(options.gradus), "-V"], capture_output=True, text=True).stdout.strip()
    write_section(
        "Input pipeline",
        [
            f"Machine: {machine()}. {time.strftime('%Y-%m-%d')}. {version} (release); torch {torch.__version__}, torchvision {torchvision.__version__}, Pillow "
            f"{PIL.__version__}, Python {platform.python_version()}. Command: `python tools/benchmarks/loader.py{given}`. Load average before and after: "
            f"{load:.1f} and {os.getloadavg()[0]:.1f} (above {os.cpu_count()}: other programs had a part of the machine).",
            "",
            f"{len(files)} images of {name} ({size_on_disk / 1024 / len(files):.0f} KiB each on the average): decoding, RandomResizedCrop (share of the area {SMALLEST_CROP} to 1), flip and",
            f"normalisation into batches of {BATCH}, float32, nothing kept. torchvision: PIL in a DataLoader with {options.workers} workers; gradus: {options.workers} threads. {options.rounds} rounds that",
            "alternate, the best of each. *ratio* is gradus over torchvision: above 1 gradus is faster. Peaks are those of the process, and of the largest worker.",
            "`gradus bench loader` measures gradus alone.",
            "",
            heading,
            *rows,
        ],
    )


if __name__ == "__main__":
    main()
