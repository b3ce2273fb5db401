"""Records of a prediction in its folder: the request, the result of each shard, the end.

Guarantees that equal results are equal bytes: no time, no machine and no order of arrival is in them.
"""

from pydantic import NonNegativeInt, PositiveInt

from job.errors import RunConflictError
from job.runs.records import Part, Record
from job.text import shown
from job.training.evaluation_record import Detection

REQUEST, FINAL, SHARDS = "predict.json", "final.json", "shards/"


class PredictionRequest(Record):
    """What decides a result (``predict.json``, create-only)."""

    run: str
    weights: str
    """SHA-256 of the file."""

    source: str
    """SHA-256 over names and sizes of the pictures."""

    num_pictures: PositiveInt
    conf: float
    iou: float
    imgsz: PositiveInt
    max_det: PositiveInt
    only: list[int] | None
    """Numbers of the classes that are looked for; `None` for all."""

    tiles: PositiveInt | None
    overlap: float
    batch: PositiveInt
    shard: PositiveInt
    """Pictures of a shard."""

    draw: bool

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-self.num_pictures // self.shard)

    def require_equal(self, asked: "PredictionRequest", where: str) -> None:
        """Check that a request is this one.

        Raises:
            RunConflictError: If it differs; names each difference.
        """
        fields = type(self).model_fields
        old, new = ({name: getattr(each, name) for name in fields} for each in (self, asked))
        differing = [
            f"{_SPOKEN.get(name, name)}: has {shown(old[name])}, asked for {shown(new[name])}"
            for name in fields
            if old[name] != new[name]
        ]
        if differing:
            raise RunConflictError(
                f"{where}: has another prediction; repeat its arguments to go on with it, or choose another --out",
                differing,
            )


_SPOKEN = {"weights": "the run's weights, SHA-256", "source": "names and sizes of the pictures, SHA-256"}


class PictureResult(Part):
    """What was found in a picture."""

    picture: str
    width: NonNegativeInt = 0
    height: NonNegativeInt = 0
    detections: tuple[Detection, ...] = ()
    failure: str | None = None
    """Why the picture could not be read."""


class ShardRecord(Record):
    """Results of consecutive pictures (``shards/NNNNN.json``, create-only)."""

    shard: PositiveInt
    pictures: list[PictureResult]

    def to_json(self) -> bytes:
        """Return the object's bytes."""
        return (self.model_dump_json() + "\n").encode()


class PredictionFinal(Record):
    """The end of a prediction (``final.json``, create-only)."""

    num_pictures: PositiveInt
    num_unreadable: NonNegativeInt
    unreadable: dict[str, str]
    """The first unreadable pictures, and why."""

    totals: dict[str, NonNegativeInt]
    """Objects by class; classes of one name together."""

    num_with_objects: dict[str, NonNegativeInt]
    """Pictures with such an object."""

    num_full: NonNegativeInt
    """Pictures with as many detections as are allowed."""

    files: dict[str, str]
    """SHA-256 of the final files."""


def shard_key(number: int) -> str:
    """Return the key of a shard, from 1; keys sort by number."""
    return f"{SHARDS}{number:05d}.json"
