"""Choice of validation pictures where a dataset has no split: whole folders, whole flights, or one block of names.

Guarantees that the choice is a function of the names alone, and never random over neighbours: pictures of one folder
or flight stay together.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from job.text import counted, shortened

SHARE = 0.2
"""Share of the pictures that validation gets, as far as groups allow."""

MIN_SHARE, MAX_SHARE = 0.05, 0.35

MIN_PER_FLIGHT = 5
"""Pictures of a flight on average: names that all differ tell nothing."""

NUM_SHOWN = 3

EXPORTED = re.compile(r"(_(jpe?g|png|tiff?|webp|bmp))?\.rf\.\w+$", re.IGNORECASE)
"""What Roboflow appends to a picture's name; copies that it has augmented share the rest."""


@dataclass(frozen=True, slots=True)
class ValSplit:
    """Pictures chosen for validation."""

    pictures: frozenset[str]
    how: str
    """The rule and its outcome, for people."""


def choose_val(has_objects: Mapping[str, bool]) -> ValSplit:
    """Choose validation pictures by path; `has_objects` tells of each picture whether it has any."""
    paths = sorted(has_objects, key=_natural)
    of_all = f"of {counted(len(paths), 'picture')}"
    for what, key in (("folders", _folder), ("flights", _flight)):
        groups = _grouped(paths, key)
        if what == "flights" and len(groups) * MIN_PER_FLIGHT > len(paths):
            continue
        if chosen := _pick(groups, has_objects):
            pictures = frozenset(path for name in chosen for path in groups[name])
            named = ", ".join(shortened([name or "." for name in sorted(chosen, key=_natural)], NUM_SHOWN))
            return ValSplit(
                pictures, f"val is {len(chosen)} of {len(groups)} {what}, {len(pictures)} {of_all}: {named}"
            )
    block = _last_block(paths, has_objects)
    why = "since neither folders nor names tell flights apart; pictures at the cut may look alike"
    return ValSplit(frozenset(block), f"val is the last {len(block)} {of_all} in the order of their names, {why}")


def _grouped(paths: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(key(path), []).append(path)
    return groups


def _pick(groups: Mapping[str, list[str]], has_objects: Mapping[str, bool]) -> list[str]:
    """Return the groups for validation, in an order by digest; none if no choice has a fitting size and objects."""
    total, chosen, num_chosen = sum(map(len, groups.values())), [], 0
    labelled = {name: any(map(has_objects.__getitem__, paths)) for name, paths in groups.items()}
    for name in sorted(groups, key=lambda name: (not labelled[name], _digest(name))):
        most = SHARE * total + (0 if num_chosen else (MAX_SHARE - SHARE) * total)
        if num_chosen + len(groups[name]) <= most and (num_chosen or labelled[name]):
            chosen.append(name)
            num_chosen += len(groups[name])
    rest_labelled = any(labelled[name] for name in groups if name not in chosen)
    return chosen if num_chosen >= MIN_SHARE * total and rest_labelled else []


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()  # of bytes that are no text too


def _last_block(paths: list[str], has_objects: Mapping[str, bool]) -> list[str]:
    """Return the last fifth, with objects in it, of whole sources: augmented copies of a picture stay together."""
    start = len(paths) - max(1, round(SHARE * len(paths)))
    while start > 0 and not any(has_objects[path] for path in paths[start:]):
        start -= 1
    while start > 0 and _source(paths[start - 1]) == _source(paths[start]):
        start -= 1
    return paths[start:]


def _folder(path: str) -> str:
    parts = path.split("/")[:-1]
    return "/".join(part for part in parts if part.lower() not in {"images", "data", "train"})


def _source(path: str) -> str:
    """Return the path of a picture without suffix, and without what Roboflow appends to it."""
    return EXPORTED.sub("", path.rpartition(".")[0])


def _flight(path: str) -> str:
    """Return a picture's path without the last number of its name: ``flight3_0412.jpg`` is of ``flight3``."""
    return re.sub(r"[\W_]*\d+$", "", _source(path))


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts ``2`` before ``10``."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", name)]
