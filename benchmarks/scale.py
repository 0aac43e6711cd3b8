"""What several workers give, what survives their deaths, what a resumed job reads again, and what rows cost in memory.

    python benchmarks/scale.py efficiency [--count 300] [--cifar10 test.parquet]  2 workers against one, and on Ray
    python benchmarks/scale.py overhead   [--count 2000]    milliseconds that Ray takes for a unit that does nothing
    python benchmarks/scale.py chaos      [--kills 100]     workers and drivers killed at random: the same bytes?
    python benchmarks/scale.py many       [--count 20000] [--kills 100]   the same over many rows, into parts
                                                             (both end every Ray of this machine after a dead driver)
    python benchmarks/scale.py nodes                         two Ray nodes here, of which one leaves: the same bytes?
    python benchmarks/scale.py paper      [--count 60]       from measured units: what would 8 and 64 workers give?
    python benchmarks/scale.py resume     [--count 2000]    of a job that was 99 % done, what is read again
    python benchmarks/scale.py memory     [--counts 1000 10000]   peak memory against rows
    python benchmarks/scale.py ids        [--count 1000000]  memory of the ids of a list, and of a folder

Nothing else should run beside `efficiency` and `overhead`. Needs Ray: pip install -e '.[ray]'.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import io
import os
import random
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

COMMAND = [sys.executable, "-c", "from diffcern.cli import main; main()"]
WHAT = ("efficiency", "overhead", "chaos", "many", "nodes", "paper", "resume", "memory", "ids")
PORT = 6399
WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
START = 20.0  # seconds until a worker has its models
MODELS = ["--predictor", "embedded:digits", "--prior", "embedded:digits"]
BENCH = """
name = "scale"
[data]
dataset = "embedded:digits"
count = {count}
[models]
predictor = "embedded:digits"
prior = "embedded:digits"
[shifts]
names = ["noise"]
severities = [4]
[entries.diffusion-tta]
method = "diffusion-tta"
preset = "small"
[entries.diffusion-classifier]
method = "diffusion-classifier"
preset = "small"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("--count", type=int)
    parser.add_argument("--counts", type=int, nargs="+", default=(1000, 10_000))
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=2, help="efficiency: the best of so many counts")
    parser.add_argument("--cifar10", type=Path, help="efficiency: on its images, with the priors in weights/")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        globals()[given.what](given)


def nodes(given: argparse.Namespace) -> None:
    """Each node has a raylet, an object store and workers of its own, and shares no memory with the other."""
    Path("s.toml").write_text(BENCH.format(count=given.count or 120))
    finished(diffcern("bench", "s.toml", "--out", "whole", "--workers", 1, "--device", "cpu"))
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    os.environ["RAY_AUTH_MODE"] = "token"  # see findings/ray-token-left-by-a-local-cluster.sh
    subprocess.run([*ray, "get-auth-token", "--generate"], capture_output=True, check=True)
    quiet: dict[str, Any] = {"capture_output": True, "text": True, "check": True}
    head, address = ["--head", f"--port={PORT}", "--num-cpus=1", "--include-dashboard=false"], f"127.0.0.1:{PORT}"
    subprocess.run([*ray, "start", *head, "--disable-usage-stats"], **quiet)
    try:
        subprocess.run([*ray, "start", f"--address={address}", "--num-cpus=1"], **quiet)
        second = subprocess.run(["pgrep", "-n", "raylet"], **quiet).stdout.strip()
        process = diffcern("bench", "s.toml", "--out", "two", "--ray", address, "--workers", 2, "--device", "cpu")
        while process.poll() is None and len([*Path("two").glob("records/*")]) < 3:
            time.sleep(0.2)
        os.kill(int(second), signal.SIGKILL)
        finished(process)
    finally:
        subprocess.run([*ray, "stop", "--force"], capture_output=True, check=False)
    same = contents(Path("whole"), "records/*") == contents(Path("two"), "records/*")
    print("two nodes, one of which left:", "the same bytes" if same else "OTHER BYTES")


def paper(given: argparse.Namespace) -> None:
    """A simulation: units of measured length, which the driver writes one by one; workers start `START` seconds late.

    Assumed: equal workers, units that vary as here, and data that come as fast as they are asked for.
    """
    import torch

    from diffcern.run.bench import Bench
    from diffcern.run.spec import read_spec
    from diffcern.run.store import RunFolder
    from diffcern.run.units import units

    torch.set_num_threads(1)
    Path("s.toml").write_text(BENCH.format(count=given.count or 60))
    spec = read_spec("s.toml")
    bench, folder = Bench(spec, torch.device("cpu")), RunFolder(Path("out"))
    lengths, writes = [], []
    for unit in units(spec, given.count or 60):
        begin = time.perf_counter()
        done = bench.run(unit)
        middle = time.perf_counter()
        folder.write_unit(unit.name, done)
        lengths.append(middle - begin)
        writes.append(time.perf_counter() - middle)
    write = sorted(writes)[len(writes) // 2]
    mean = sum(lengths) / len(lengths)
    print(f"a unit of 20 images: {mean:.2f} s; written in {1000 * write:.1f} ms (median of {len(writes)})")
    for faster in (1, 10, 100):
        rates = {
            count: simulated([length / faster for length in lengths], write, count, 20_000) for count in (1, 8, 64)
        }
        told = ", ".join(f"{n}: {r:.0f} images/s (efficiency {r / n / rates[1]:.2f})" for n, r in rates.items())
        print(f"units {faster} times as fast: {told}")


def simulated(lengths: list[float], write: float, workers: int, count: int) -> float:
    """Images per second of `count` units, start included."""
    draw, driver = random.Random(0), 0.0
    ends = [START + draw.choice(lengths) for _ in range(workers)]
    heapq.heapify(ends)
    for number in range(count):
        driver = max(driver, heapq.heappop(ends))
        if number + workers < count:
            heapq.heappush(ends, driver + draw.choice(lengths))  # handed out before this one is written
        driver += write
    return 20 * count / driver


def diffcern(*arguments: object, **how: Any) -> subprocess.Popen[str]:
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    return subprocess.Popen([*COMMAND, *map(str, arguments)], **{**quiet, **how})


def finished(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(out[-2000:])
    return out


def efficiency(given: argparse.Namespace) -> None:
    """From the first unit that is done to the last one, by the times of their files: without start-up. Two commands of
    one worker, which know nothing of each other, say what the machine gives.
    """
    spec = BENCH.format(count=given.count or 300)
    if given.cifar10:
        data = f'dataset = "{given.cifar10}"\nclass_names = {CIFAR10}'
        spec = spec.replace("digits", "cifar10").replace('dataset = "embedded:cifar10"', data)
        for kind in ("predictor", "prior"):
            spec = spec.replace(f'{kind} = "embedded:cifar10"', f'{kind} = "{WEIGHTS / f"cifar10-{kind}"}"')
    Path("s.toml").write_text(spec)
    rates: dict[str, float] = {}
    one = ("--workers", 1)
    ways = {"1 worker": one, "2 workers": ("--workers", 2), "2 on Ray": ("--ray", "local", "--workers", 2)}
    for number in range(given.runs):
        for way, how in [*ways.items(), ("2 commands", one)]:
            outs = [Path(f"{way}-{number}-{command}") for command in range(2 if way == "2 commands" else 1)]
            begin = time.perf_counter()
            commands = [diffcern("bench", "s.toml", "--out", out, "--device", "cpu", *how) for out in outs]
            for process in commands:
                finished(process)
            whole = time.perf_counter() - begin
            rate = sum(images_a_second(out, 1 if how == one else 2) for out in outs)
            rates[way] = max(rates.get(way, 0.0), rate)
            print(f"{way:10} {rate:6.2f} images/s, {whole:.0f} s with start-up and report", flush=True)
    for way in (way for way in rates if way != "1 worker"):
        print(f"{way}: efficiency {rates[way] / (2 * rates['1 worker']):.2f} (best of {given.runs} runs each)")


def images_a_second(out: Path, early: int) -> float:
    """early: units that were under way when the clock starts."""
    done = sorted((path.stat().st_mtime, len(pq.read_table(path))) for path in (out / "records").iterdir())
    return sum(rows for _, rows in done[early:]) / (done[-1][0] - done[early - 1][0])


def overhead(given: argparse.Namespace) -> None:
    from diffcern.run.on_ray import OnRay

    count, stamps = given.count or 2000, list[float]()
    OnRay(workers=1).map(nothing, list(range(count)), lambda piece, result: stamps.append(time.perf_counter()))
    print(f"{1000 * (stamps[-1] - stamps[0]) / (count - 1):.2f} ms a unit, N = {count}, one worker, after start-up")


def nothing() -> Any:
    return abs


def chaos(given: argparse.Namespace) -> None:
    """Four commands, each first undisturbed, then again and again until all its kills are spent and it ends."""
    draw = random.Random(given.seed)
    Path("s.toml").write_text(BENCH.format(count=120))
    picture_folder(Path("pictures"), 60)
    align = (
        "align",
        *MODELS,
        "--generator",
        "embedded:digits",
        "--per-class",
        12,
        "--generator-steps",
        10,
        "--epochs",
        2,
    )
    commands: dict[str, tuple[tuple[object, ...], str]] = {
        "bench": (("bench", "s.toml"), "records/*.parquet"),
        "adapt": (("adapt", "pictures", *MODELS), "rows.parquet"),
        "purify": (("purify", "pictures", "--prior", "embedded:digits", "--set", "steps=10"), "*.png"),
        "align": (align, "**/*.[ps][na][gf]*"),  # pictures, and weights in safetensors
    }
    total = sum(tortured(name, *how, given.kills // 4, draw) for name, how in commands.items())
    print(f"{total} kills")


def many(given: argparse.Namespace) -> None:
    """`adapt` over a shard of small pictures, into a table in parts."""
    shard(Path("many.tar"), given.count or 20_000)
    arguments = ("adapt", "webdataset:many.tar", "--predictor", "embedded:digits", "--method", "source")
    tortured("many", arguments, "part-*.parquet", given.kills, random.Random(given.seed), longest=12.0)


def tortured(
    name: str, arguments: tuple[object, ...], kept: str, most: int, draw: random.Random, longest: float = 4.0
) -> int:
    """A command undisturbed, and again and again until all its kills are spent and it ends; returns how many. longest:
    seconds between two kills."""
    whole, torn = Path(f"{name}-whole"), Path(f"{name}-torn")
    for folder in (whole, torn):
        folder.mkdir()
    out = {folder: folder / "rows.parquet" if name == "adapt" else folder for folder in (whole, torn)}
    start = time.perf_counter()
    finished(diffcern(*arguments, "--workers", 1, "--device", "cpu", "--out", out[whole]))
    alone, start = time.perf_counter() - start, time.perf_counter()
    kills, starts = {"worker": 0, "driver": 0}, 0
    while True:
        process = diffcern(*arguments, "--ray", "local", "--workers", 2, "--out", out[torn], stdout=subprocess.DEVNULL)
        starts += 1
        while process.poll() is None:
            wait = draw.uniform(0.5, longest)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait)
            if process.poll() is None and sum(kills.values()) < most:
                victim = "driver" if draw.random() < 0.2 else "worker"
                kills[victim] += kill(process, victim, draw)
        if process.returncode == 0:
            break
        subprocess.run(["pkill", "-9", "-f", "raylet|gcs_server|ray::"], check=False)
    same = contents(whole, kept) == contents(torn, kept)
    killed = sum(kills.values())
    print(f"{name:7} {kills['worker']} workers and {kills['driver']} drivers killed, {starts} starts: ", end="")
    print("the same bytes" if same else "OTHER BYTES", f"({len(contents(whole, kept))} files), ", end="")
    print(f"{time.perf_counter() - start:.0f} s, for {alone:.0f} of one worker undisturbed", flush=True)
    return killed


def kill(process: subprocess.Popen[str], victim: str, draw: random.Random) -> int:
    if victim == "driver":
        process.kill()
        return 1
    found = subprocess.run(["pgrep", "-f", "^ray::Worker"], capture_output=True, text=True, check=False).stdout.split()
    if not found:
        return 0
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(draw.choice(sorted(found))), signal.SIGKILL)
        return 1
    return 0


def contents(folder: Path, kept: str) -> dict[str, Any]:
    """Without the seconds of a table, and pictures of pages."""
    paths = [path for path in sorted(folder.glob(kept)) if path.name != "before-after.png"]
    if kept in ("rows.parquet", "part-*.parquet"):  # tables, whose rows took their seconds
        return {path.name: pq.read_table(path).drop(["seconds"]).to_pylist() for path in paths}
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def picture_folder(folder: Path, count: int) -> None:
    from torchvision.utils import save_image

    from diffcern.data import load_dataset

    data = load_dataset("embedded:digits")
    folder.mkdir()
    for row in range(count):
        save_image(data[row % len(data)].image, folder / f"{row:06}.png")


def resume(given: argparse.Namespace) -> None:
    """Bytes of images that the process asks the system for, by the calls that open them."""
    count = given.count or 2000
    picture_folder(Path("pictures"), count)
    command = ("adapt", "pictures", "--predictor", "embedded:digits", "--method", "source", "--out", "rows.parquet")
    journal = Path(".rows.parquet.partial.jsonl")
    process = diffcern(*command)
    while process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") > 0.99 * count:
            process.kill()
        time.sleep(0.002)
    left = count - (journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0
    code = (
        "import sys, json; opened = set()\n"
        "def hook(event, given):\n"
        "    if event == 'open' and 'pictures' in str(given[0]): opened.add(str(given[0]))\n"
        "sys.addaudithook(hook)\n"
        "from diffcern.cli import main\n"
        "try: main()\n"
        "finally: print('OPENED', len(opened), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    opened = int(re.findall(r"OPENED (\d+)", done.stderr)[0])
    print(f"{left} of {count} rows were left, {opened} images were opened: {100 * opened / count:.2f} % of the input")


def shard(file: Path, count: int) -> None:
    from diffcern.data import encode_png, load_dataset

    data = load_dataset("embedded:digits")
    pictures = [encode_png(data[row].image) for row in range(200)]
    with tarfile.open(file, "w") as archive:
        for row in range(count):
            info = tarfile.TarInfo(f"{row:07}.png")
            info.size = len(pictures[row % 200])
            archive.addfile(info, io.BytesIO(pictures[row % 200]))


def memory(given: argparse.Namespace) -> None:
    """Of `adapt` over a shard of small pictures, into a table in parts."""
    for count in given.counts:
        shard(Path(f"{count}.tar"), count)
        asked = ["adapt", f"webdataset:{count}.tar", "--predictor", "embedded:digits", "--method", "source"]
        code = (
            "import resource, sys\nfrom diffcern.cli import main\n"
            "try: main()\n"
            "finally: print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
        )
        run = [sys.executable, "-c", code, *asked, "--out", f"{count}"]
        begin = time.perf_counter()
        done = subprocess.run(run, capture_output=True, text=True, check=True)
        peak = int(re.findall(r"PEAK (\d+)", done.stderr)[0]) / 1024
        print(
            f"{count:8} rows: {peak:6.0f} MiB at most, {count / (time.perf_counter() - begin):.0f} rows/s", flush=True
        )


def ids(given: argparse.Namespace) -> None:
    """Of a list, and of a folder with a fifth as many: what is held once they are read, and at most while they are."""
    from diffcern.data.names import Names

    count, file, folder = given.count or 1_000_000, Path("list.txt").absolute(), Path("photos").absolute()
    file.write_text("".join(f"s3://bucket/photos/{n // 1000:04}/{n:09}.jpg\n" for n in range(count)))
    for n in range(count // 5):
        image = folder / f"{n // 1000:04}/{n:09}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
    Names(["one"])  # imports what reading needs
    held_by(f"files:{file}")
    held_by(f"folder:{folder}")


def held_by(name: str) -> None:
    from diffcern.data import load_dataset

    tracemalloc.start()
    data = load_dataset(name)
    held, most = (size / 2**20 for size in tracemalloc.get_traced_memory())
    tracemalloc.stop()
    print(f"{name.partition(':')[0]}, {len(data)} ids: {held:.0f} MiB, and {most:.0f} MiB while they are read")


if __name__ == "__main__":
    main()
