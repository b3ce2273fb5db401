"""Scale: dollars, requests and bytes by machines, attempts and images: ``make bench-scale``.

Three tables, reckoned in seconds and without a cloud. The first simulates trainings on preempted machines, in which
the policy's own code decides. The second counts the requests that the code makes of a folder, as Google Cloud Storage
would get them. The third has sizes of what the code writes. The same arguments print the same lines.

Each constant below has the command or the record that measured it. What only a cloud can tell is an assumption, and a
flag.
"""

import argparse
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from job.cloud.job_spec import BOOT_DISK_GB
from job.cloud.machine_types import Provisioning
from job.datasets.lockfile import DatasetLock
from job.errors import ObjectNotFoundError
from job.goodput import Phase
from job.recipes.recipe import load_recipe
from job.runs import checkpoint
from job.runs.listing import Bundle, BundledRecord
from job.runs.records import CheckpointId, Manifest
from job.runs.request import TrainRequest
from job.runs.resume import PreviousAttempts
from job.runs.run import Claim, Run
from job.storage.local import FolderStore
from job.storage.object_store import StoredObject
from job.storage.shards import SHARD_BYTES, PackedFile
from job.text import HOUR, percent, table
from job.training.files import BEST, LAST, RESULTS, STATE
from tests.bench.preemptions import MACHINE, Durations, Result, Simulation

NUM_MACHINES = (1, 2, 4, 8, 16, 32, 64)
HOURS_BETWEEN = (3.0, 1.0, 0.5)
NUM_ATTEMPTS = (10, 100, 1_000, 10_000)
NUM_IMAGES = (10_000, 100_000, 1_000_000, 10_000_000)

WORK_S = load_recipe("A", "full").expect["hours"].high * HOUR
"""The longest that recipe A is expected to take (`job/recipes/A.yaml`)."""

EVERY_S = float(TrainRequest.model_fields["checkpoint_every_s"].default)

STALL_S = 0.145
"""Training stops for a checkpoint (`make bench`, 2026-11-24)."""

COMMIT_MB = 151.6 + 2 * 19.1
"""State and two weights of yolo11s (`make bench`, 2026-11-24)."""

BEATS_PER_HOUR = HOUR // 5
"""`job.runs.heartbeat` writes every 5 s, and asks whether to stop."""

PAGE = 1000
"""Objects that Google Cloud Storage returns for one request of a listing, at most."""

RECORDS = Path(__file__).parents[1] / "fixtures" / "bucket_before_typed_records" / "runs" / "zebra" / "attempts"
"""Records of three attempts of a real run."""

NUM_RECORDED = 3

NUM_MEASURED = 10
"""Earlier attempts in the bucket whose requests are counted."""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wait-s", type=float, default=69.0, help="from the request to the boot of a machine")
    parser.add_argument("--boot-s", type=float, default=171.0, help="boot, driver and image, until the job starts")
    parser.add_argument("--ready-s", type=float, default=60.0, help="from the start of the job to its first step")
    parser.add_argument("--upload-mb-s", type=float, default=100.0, help="megabytes a second into the bucket")
    parser.add_argument("--image-mb", type=float, default=5.0, help="megabytes of a picture")
    parser.add_argument("--label-bytes", type=int, default=300, help="bytes of a label; 38 for each object")
    parser.add_argument("--runs", type=int, default=5, help="simulated runs for each line")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    durations = Durations(
        wait_s=given.wait_s,
        boot_s=given.boot_s,
        ready_s=given.ready_s,
        every_s=EVERY_S,
        stall_s=STALL_S,
        upload_s=COMMIT_MB / given.upload_mb_s,
        work_s=WORK_S,
    )
    print("\n".join(preemption_lines(durations, given.runs, given.seed)), end="\n\n")
    print("\n".join(request_lines()), end="\n\n")
    print("\n".join(image_lines(given.image_mb, given.label_bytes)))


def preemption_lines(durations: Durations, num_runs: int, seed: int) -> Iterator[str]:
    """Simulate runs for each number of machines and rate of preemptions, and yield a table of means."""
    spot, on_demand = (MACHINE.usd_per_hour(kind) for kind in (Provisioning.SPOT, Provisioning.ON_DEMAND))
    prices = f"{spot:g} USD an hour on Spot, {on_demand:g} on demand"
    yield f"{durations.work_s / HOUR:g} h of training; {MACHINE.type}: {prices}"
    yield (
        f"assumed: {durations.wait_s:g} s to a machine, {durations.boot_s:g} s to the job, "
        f"{durations.ready_s:g} s to a step, {durations.upload_s:.1f} s to a commit"
    )
    yield ""
    rows = [("machines", "preempted", "goodput", "USD/useful h", "attempts", "jobs", "hours", "finished")]
    for num_machines in NUM_MACHINES:
        for hours in HOURS_BETWEEN:
            results = [
                Simulation(durations, num_machines, hours * HOUR, seed + number).run() for number in range(num_runs)
            ]
            rows.append((str(num_machines), f"every {hours:g} h", *_means(results, num_machines)))
    yield from table(rows, right=range(len(rows[0])))


def _means(results: list[Result], num_machines: int) -> list[str]:
    """Return the cells of a row, from the goodput on."""
    useful_s = sum(result.cost.seconds[Phase.USEFUL] for result in results)
    usd = sum(result.cost.usd or 0.0 for result in results)
    num_runs, num_attempts = len(results), sum(len(result.cost.attempts) for result in results)
    finished = sum(not result.given_up for result in results)
    return [
        percent(useful_s / sum(result.cost.total_s for result in results)),
        f"{usd / (useful_s / HOUR) / num_machines:.2f}" if useful_s else "-",
        f"{num_attempts / num_runs:.1f}",
        f"{sum(result.num_jobs for result in results) / num_runs:.1f}",
        f"{sum(result.took_s for result in results) / num_runs / HOUR:.1f}",
        f"{finished} of {num_runs}",
    ]


@dataclass(slots=True)
class Requests:
    """Requests that were made of a bucket with `NUM_MEASURED` earlier attempts."""

    single: int = 0
    listings: list[tuple[int, int]] = field(default_factory=list)
    """Records of the earlier attempts, and other objects, that each listing has returned."""

    def after(self, num_attempts: int) -> int:
        """Return the number of requests after so many attempts, as many as were counted if they are `NUM_MEASURED`."""
        found = (records * num_attempts / NUM_MEASURED + others for records, others in self.listings)
        return self.single + sum(max(1, -int(-count // PAGE)) for count in found)


class CountingStore(FolderStore):
    """A bucket in a folder that counts requests, of several threads, as Google Cloud Storage gets them."""

    def __init__(self, root):
        super().__init__(root)
        self.requests = Requests()
        self._lock, self._thread = threading.Lock(), threading.local()

    def put(self, key, source, *, overwrite=False):
        self._count()
        return super().put(key, source, overwrite=overwrite)

    def read(self, key, *limit):
        self._count()
        self._thread.reads = True  # bytes and checksum come in one request
        try:
            return super().read(key, *limit)
        finally:
            self._thread.reads = False

    def stat(self, key):
        self._count()
        try:
            return super().stat(key)
        except ObjectNotFoundError:
            self._count(always=True)  # what is absent is asked for twice
            raise

    def delete(self, key):
        self._count()
        super().delete(key)

    def list(self, prefix="", *, checksums=False):
        found = super().list(prefix, checksums=checksums)
        own = f"/attempts/{NUM_MEASURED + 1:04}"
        num_records = sum("/attempts/" in stored.key and own not in stored.key for stored in found)
        self.requests.listings.append((num_records, len(found) - num_records))
        return found

    def _stream(self, stored):
        self._count()
        return super()._stream(stored)

    def _count(self, *, always=False):
        if always or not getattr(self._thread, "reads", False):
            with self._lock:
                self.requests.single += 1

    def counted(self) -> Requests:
        """Return the requests since the last call."""
        counted, self.requests = self.requests, Requests()
        return counted


def request_lines() -> Iterator[str]:
    """Count what an attempt asks of the bucket, and yield a table by the number of earlier attempts."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        start, commit, beat = count_requests(Path(folder))
    bundle_mb = bundle_bytes() / NUM_RECORDED / 1e6
    rows = [("attempts", "objects", "requests of a start", "of a commit", "an hour", "records.json")]
    for number in NUM_ATTEMPTS:
        hourly = commit.after(number) * HOUR / EVERY_S + beat.after(number) * BEATS_PER_HOUR
        objects = start.listings[0][0] * number // NUM_MEASURED
        counts = (number, objects, start.after(number), commit.after(number), int(hourly))
        rows.append((*(f"{count:,}" for count in counts), f"{bundle_mb * number:.2f} MB"))
    yield from table(rows, right=range(len(rows[0])))


def count_requests(folder: Path) -> tuple[Requests, Requests, Requests]:
    """Return the requests of the start of an attempt, of one commit within an epoch, and of one heartbeat."""
    store = CountingStore.create(str(folder / "bucket"))
    run, last = Run(store, "scale"), None
    for number in range(1, NUM_MEASURED + 2):
        store.counted()
        claim = _started(run, folder / f"restored{number}")
        start = store.counted()
        claim.heartbeat({})
        claim.stop_request()
        beat = store.counted()
        for batch in range(4 * number, 4 * number + 4):  # from the third on, retention deletes one
            last, commit = _committed(claim, folder, batch, last), store.counted()
        claim.end("preempted", {})
    return start, commit, beat


def _started(run: Run, restored: Path) -> Claim:
    """Claim a run, read the records of earlier attempts, restore the newest checkpoint, and write the start record."""
    claim = run.claim({"host": "vm"})
    PreviousAttempts.of(claim)
    restored.mkdir()
    checkpoint.restore(run, restored)
    claim.start({})
    return claim


def _committed(claim: Claim, folder: Path, batch: int, last: Manifest | None) -> Manifest:
    """Commit a checkpoint within an epoch as the committer does: state and last weights differ from those of `last`."""
    paths = [folder / name for name in (STATE, BEST, LAST, RESULTS)]
    for path in paths:
        path.write_text(path.name if path.name in {BEST, RESULTS} else f"{path.name} {claim.attempt} {batch}")
    manifest = checkpoint.commit(claim.run, CheckpointId(1, batch, claim.attempt), paths, {}, last)
    claim.run.store.put(claim.run.key(f"weights/{LAST}"), folder / LAST, overwrite=True)
    checkpoint.retain(claim.run)
    return manifest


def bundle_bytes() -> int:
    """Return the size of `RECORDS` in a bundle."""
    texts = {f"attempts/{path.name}": path.read_text() for path in RECORDS.iterdir()}
    copies = {name: BundledRecord(version="1" * 16, text=text) for name, text in texts.items()}  # a generation's length
    return len(Bundle(records=copies).to_json()) - len(Bundle(records={}).to_json())


def image_lines(image_mb: float, label_bytes: int) -> Iterator[str]:
    """Yield a table of requests and bytes by the number of images."""
    yield f"assumed: {image_mb:g} MB a picture, {label_bytes} bytes a label; a job's disk has {BOOT_DISK_GB} GB"
    yield ""
    rows = [("images", "requests of a pull", "lock", "pictures")]
    for number in NUM_IMAGES:
        num_objects = number - (-number * label_bytes // SHARD_BYTES)  # the labels are in shards
        num_requests = num_objects - (-num_objects // PAGE) + 1  # the last one is for the lock
        megabytes = lock_bytes(label_bytes) * number / 1e6
        rows.append((f"{number:,}", f"{num_requests:,}", f"{megabytes:,.0f} MB", f"{number * image_mb / 1000:,.0f} GB"))
    yield from table(rows, right=range(len(rows[0])))


def lock_bytes(label_bytes: int) -> float:
    """Return the bytes of a lock for each image with its label."""
    prefix, shard = "datasets/wildlife/", StoredObject(f"datasets/wildlife/shards/{'0' * 64}", SHARD_BYTES, "")
    files: dict[str, StoredObject] = {}
    for number in range(PAGE):
        name, offset = f"images/train/{number:08}.jpg", SHARD_BYTES // 2 + number * label_bytes
        files[name] = StoredObject(f"{prefix}{name}", 5_000_000, "", "AAAAAA==")
        files[f"labels/train/{number:08}.txt"] = PackedFile(
            shard.key, label_bytes, "", "AAAAAA==", offset=offset, shard=shard
        )
    lock = DatasetLock.make(1, files, dict.fromkeys(files, "0" * 64), prefix)
    return len(lock.to_json()) / PAGE


if __name__ == "__main__":
    main()
