"""Record of an export beside its files: the request, what the check found, and digests."""

from typing import Literal

from pydantic import ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveInt

from job.analysis.metrics import LABELS
from job.errors import RunConflictError
from job.runs.records import Part, Record, differences

RECORD = "export.json"

METRICS = {name: LABELS[name] for name in ("precision", "recall", "f1", "map50")}
"""Metrics of a check, with their labels."""


class Bounds(Part):
    """The greatest differences that pass."""

    confidence: NonNegativeFloat
    px: NonNegativeFloat
    """Of a corner's coordinate, in pixels of the input."""

    metric: NonNegativeFloat


class ExportRequest(Part):
    """What decides an export."""

    run: str
    weights: str
    """SHA-256 of the file."""

    dataset: str
    """Digest of the dataset's version."""

    format: Literal["onnx"]
    imgsz: PositiveInt
    pictures: PositiveInt
    """Validation pictures of the check, at most."""

    bounds: Bounds


class Parity(Part):
    """Two models on the same pictures: the weights and the exported file."""

    model_config = ConfigDict(allow_inf_nan=True)  # what is no number is beyond every bound, and written nowhere

    num_pictures: PositiveInt
    num_of: PositiveInt
    """Validation pictures that there are."""

    num_candidates: NonNegativeInt
    """Boxes before suppression with a confidence of `LEAST_CONFIDENCE` or more in one of the models."""

    confidence: float
    """The greatest difference, as is `px`."""

    px: float
    worst: str
    """The picture with the greatest difference of a confidence."""

    at: float
    """The confidence of the metrics and of the boxes that are counted."""

    original: dict[str, float]
    """Metrics of the weights; see `METRICS`."""

    exported: dict[str, float]
    num_in_both: NonNegativeInt
    """Boxes at `at` or above, after suppression, that both models have."""

    num_in_one: NonNegativeInt

    def difference(self, metric: str) -> float:
        """Return the difference of a metric, without its sign."""
        return abs(self.original[metric] - self.exported[metric])

    def rows(self, bounds: Bounds) -> list[tuple[str, str, str, str, str]]:
        """Return the differences as a table: label, both metrics, greatest difference, bound."""
        return [
            ("confidence", "", "", f"{self.confidence:.2g}", f"{bounds.confidence:g}"),
            ("coordinates, px of the input", "", "", f"{self.px:.2g}", f"{bounds.px:g}"),
            *(
                (
                    label,
                    f"{100 * self.original[name]:.2f} %",
                    f"{100 * self.exported[name]:.2f} %",
                    f"{self.difference(name):.2g}",
                    f"{bounds.metric:g}",
                )
                for name, label in METRICS.items()
            ),
        ]

    def beyond(self, bounds: Bounds) -> list[str]:
        """Return a sentence for each difference that is not within its bound; one that is no number is not."""
        found = [("confidence", self.confidence, bounds.confidence, f", in {self.worst}")]
        found += [("coordinates", self.px, bounds.px, " px")]
        found += [(label, self.difference(name), bounds.metric, "") for name, label in METRICS.items()]
        return [
            f"{label}: the greatest difference is {value:.3g}{unit}, and {bound:g} is allowed"
            for label, value, bound, unit in found
            if not value <= bound
        ]


class ExportRecord(Record):
    """An export that passed its check (``export.json``, create-only, written last)."""

    request: ExportRequest
    px: PositiveInt
    """Width and height of the input: `ExportRequest.imgsz`, rounded up to the model's stride."""

    parity: Parity
    versions: dict[str, str]
    files: dict[str, str]
    """SHA-256 of the files."""

    def require_equal(self, asked: ExportRequest, where: str) -> None:
        """Check that this is the export that is asked for.

        Raises:
            RunConflictError: If it differs; names each difference.
        """
        if found := differences(self.request.model_dump(), asked.model_dump(), ("has", "asked for")):
            raise RunConflictError(f"{where}: has another export; choose another --out", found)
