"""Stores that fail at given calls."""

import random
from dataclasses import replace

from job.errors import CorruptObjectError, ObjectNotFoundError, TransientStoreError

WHOLE, DAMAGED, ABSENT = "whole", "damaged", "absent"
"""Outcomes of a read."""


class Died(BaseException):
    """The process is dead: nothing after this runs but what a dead process would not run either."""


class FaultyStore:
    """Passes everything on to a real store until a write that fails.

    Args:
        store: The real one.
        survives: Writes (puts and deletes) that succeed before the one that fails.
        when: Whether that one fails ``before`` it takes place or ``after``.
        error: What it raises; `Died` if nothing is named, and then so does every later call.
        num_failures: Writes that fail with `error` before all is well again.
        failing_reads: Listing and reading fail for a passing reason.
        after_write: Called with the number of each write that succeeded, from 1.
    """

    def __init__(
        self,
        store,
        *,
        survives=10**9,
        when="before",
        error=None,
        num_failures=10**9,
        failing_reads=False,
        after_write=lambda _number: None,
    ):
        self.store, self.survives, self.when, self.error = store, survives, when, error
        self.num_failures, self.failing_reads, self.after_write = num_failures, failing_reads, after_write
        self.num_writes = 0
        self.dead = False

    @property
    def uri(self):
        return self.store.uri

    def put(self, key, source, **options):
        return self._write(lambda: self.store.put(key, source, **options))

    def delete(self, key, **options):
        return self._write(lambda: self.store.delete(key, **options))

    def put_many(self, files, on_done=None):
        for source, key in files:
            stored = self.put(key, source)
            if on_done:
                on_done(stored)

    def get(self, key, target):
        return self._read(lambda: self.store.get(key, target))

    def get_many(self, objects, on_done=None):
        return self._read(lambda: self.store.get_many(objects, on_done))

    def read(self, key, *limit):
        return self._read(lambda: self.store.read(key, *limit))

    def list(self, prefix="", **options):
        return self._read(lambda: self.store.list(prefix, **options))

    def folders(self, prefix):
        return self._read(lambda: self.store.folders(prefix))

    def stat(self, key):
        return self._read(lambda: self.store.stat(key))

    def _read(self, call):
        if self.dead:
            raise Died
        if self.failing_reads:
            raise TransientStoreError("bucket: kept failing")
        return call()

    def _write(self, call):
        if self.dead:
            raise Died
        fails = self.num_writes >= self.survives and self.num_failures > 0
        if fails and self.when == "before":
            self._fail()
        done = call()
        if fails:
            self._fail()
        self.num_writes += 1
        self.after_write(self.num_writes)
        return done

    def _fail(self):
        self.num_failures -= 1
        if self.error is None:
            self.dead = True
            raise Died
        raise self.error


class FlakyStore:
    """Passes everything on to a real store, but some reads and descriptions of some objects.

    Args:
        store: The real one.
        reads: By key, what comes of its next reads; all others are whole.
        num_wrong: By key, how many of the next lists describe it with another checksum.
    """

    def __init__(self, store, reads, num_wrong=()):
        self.store, self.reads, self.num_wrong = store, reads, dict(num_wrong)

    def __getattr__(self, name):
        return getattr(self.store, name)

    def get(self, key, target):
        outcome = self._next(key)
        stored = self.store.get(key, target)
        if outcome == DAMAGED:
            data = bytearray(target.read_bytes())
            data[len(data) // 2] ^= 1
            target.write_bytes(data)
        return stored

    def read(self, key, *limit):
        self._next(key)
        return self.store.read(key, *limit)

    def list(self, prefix="", **options):
        listed = []
        for stored in self.store.list(prefix, **options):
            wrong = self.num_wrong.get(stored.key, 0) > 0 and options.get("checksums")
            if wrong:
                self.num_wrong[stored.key] -= 1
            listed.append(replace(stored, crc32c="AAAAAA==") if wrong else stored)
        return listed

    def _next(self, key):
        outcome = self.reads[key].pop(0) if self.reads.get(key) else WHOLE
        if outcome == ABSENT:
            raise ObjectNotFoundError(f"{key}: no such object")
        return outcome


def make_unreliable(kind, share, happened):
    """Let a share of what the stores of a kind do fail for a passing reason, before or after it took place.

    Args:
        kind: The class.
        share: Of writes, lists and descriptions that fail, and of objects whose bytes arrive damaged.
        happened: Called when one does.
    """
    chance = random.Random()  # noqa: S311 -- not for secrets
    damaged_once = set()  # what arrives damaged twice is damaged in the bucket

    def fails():
        failing = chance.random() < share
        if failing:
            happened()
        return failing

    def unreliable(name):
        call = getattr(kind, name)

        def wrapped(*args, **options):
            if fails():
                raise TransientStoreError(f"{name}: failed before it took place")
            done = call(*args, **options)
            if fails():
                raise TransientStoreError(f"{name}: its answer was lost")
            return done

        setattr(kind, name, wrapped)

    def damaged(store, stored):
        yield from stream(store, stored)
        if stored.key not in damaged_once and fails():
            damaged_once.add(stored.key)
            raise CorruptObjectError(f"{stored.key}: its bytes were damaged on the way")

    for name in ("put", "list", "stat", "delete"):
        unreliable(name)
    stream, kind._stream = kind._stream, damaged
