"""Pull: time of a dataset, beside Google's own parallel download: ``python -m tests.bench.pull``.

Both get the same objects from the same emulator in the same process, taking turns, each into a fresh folder: in memory
if there is enough, so that the disk is not what is measured. Ours also lists the objects, and writes its index;
Google's is given the names.
"""

import argparse
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from google.cloud import storage  # type: ignore[import-untyped]
from google.cloud.storage import transfer_manager  # type: ignore[import-untyped]

from job.storage.open_store import open_store
from job.storage.transfer import pull
from tests.bench.rows import print_row, ratios
from tests.support.emulator import running_emulator

NUM_OBJECTS = 2_000
SIZES_BYTES = (50_000, 250_000)
NUM_THREADS = 16
GOAL = 1 / 5
PREFIX = "datasets/bench/"


def main() -> None:
    """Measure pairs, and print them with the ratio of their times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3, help="how many times each takes its turn")
    num_pairs: int = parser.parse_args().pairs
    place = roomy_memory(num_pairs * 2 * NUM_OBJECTS * max(SIZES_BYTES))
    # All folders are removed at the end: a disk may make files slowly for minutes after many were deleted.
    with running_emulator() as emulator, tempfile.TemporaryDirectory(prefix="bench-", dir=place) as base:
        os.environ |= emulator.env
        uri = emulator.make_bucket()
        bucket = storage.Client().bucket(uri.removeprefix("gs://"))
        names = fill(bucket)
        open_store(uri)  # imports what it needs

        def ours(folder: Path) -> int:
            store = open_store(uri)
            objects = {stored.key.removeprefix(PREFIX): stored for stored in store.list(PREFIX, checksums=True)}
            return pull(store, objects, folder).num_transferred

        def googles(folder: Path) -> int:
            results = transfer_manager.download_many_to_path(
                bucket,
                names,
                destination_directory=str(folder),
                max_workers=NUM_THREADS,
                worker_type=transfer_manager.THREAD,
                raise_exception=True,
            )
            return len(results)

        low, high = (size // 1000 for size in SIZES_BYTES)
        say(f"{NUM_OBJECTS} objects of {low} to {high} kB, {os.cpu_count()} cores\n")
        say("pair   ours s (CPU s)   Google's s (CPU s)   ratio")
        found: dict[Callable[[Path], int], list[float]] = {ours: [], googles: []}
        for pair in range(num_pairs):
            turns = [ours, googles] if pair % 2 else [googles, ours]
            took = {turn: measure(turn, Path(base, f"{pair}-{turn.__name__}")) for turn in turns}
            for turn, (wall_s, _) in took.items():
                found[turn].append(wall_s)
            mine, theirs = (f"{wall:6.2f} ({cpu:5.2f})" for wall, cpu in (took[ours], took[googles]))
            say(f"{pair + 1:4}   {mine}   {theirs}       {found[ours][-1] / found[googles][-1]:.3f}")
        print_row(f"ours / Google's (goal {GOAL})", ratios(found[ours], found[googles]), "the disk is what is measured")


def roomy_memory(num_bytes: int) -> Path | None:
    """Return the folder that lies in memory, if there is one with room."""
    memory = Path("/dev/shm")  # noqa: S108 -- only a random name in it is used
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > num_bytes else None


def fill(bucket: storage.Bucket) -> list[str]:
    """Store random objects and return their names."""
    chance = random.Random(0)  # noqa: S311 -- to be the same every time
    content = {
        f"{PREFIX}images/train/{number:05}.jpg": chance.randbytes(chance.randint(*SIZES_BYTES))
        for number in range(NUM_OBJECTS)
    }
    with ThreadPoolExecutor(NUM_THREADS // 2) as pool:
        list(pool.map(lambda name: bucket.blob(name).upload_from_string(content[name]), content))
    return list(content)


def measure(turn: Callable[[Path], int], folder: Path) -> tuple[float, float]:
    """Return the seconds, and those of CPU in this process, that a turn takes."""
    folder.mkdir()
    wall, cpu = time.perf_counter(), time.process_time()
    num_transferred = turn(folder)
    took = time.perf_counter() - wall, time.process_time() - cpu
    if num_transferred != NUM_OBJECTS:
        raise RuntimeError(f"{num_transferred} objects were transferred, not {NUM_OBJECTS}")
    return took


def say(line: str) -> None:
    """Print at once."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
