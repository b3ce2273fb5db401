"""MegaDetector's output format as its page describes it: https://lila.science/megadetector-output-format."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Number = Annotated[str, StringConstraints(pattern=r"^[0-9]+$")]

Share = Annotated[float, Field(ge=0, le=1)]

ROUNDING = 2e-6
"""By which the far side of a box may pass the edge: both of its numbers are rounded."""


class Strict(BaseModel):
    """Types as they are written, and no key that the format does not have."""

    model_config = ConfigDict(strict=True, extra="forbid")


class DetectorMetadata(BaseModel):
    """What downstream tools take as their thresholds; further keys are allowed."""

    model_config = ConfigDict(strict=True)

    typical_detection_threshold: Share
    conservative_detection_threshold: Share


class Info(Strict):
    """About the file; the format asks for the version alone."""

    format_version: Annotated[str, StringConstraints(pattern=r"^1\.[3-9]$")]
    detector: Annotated[str, StringConstraints(pattern=r"^[^/]+$")]
    detector_metadata: DetectorMetadata


class Detection(Strict):
    """A box: left, top, width and height in shares of the picture."""

    category: Number
    conf: Share
    bbox: Annotated[list[Share], Field(min_length=4, max_length=4)]

    @model_validator(mode="after")
    def _require_inside(self) -> Self:
        left, top, width, height = self.bbox
        assert max(left + width, top + height) <= 1 + ROUNDING
        return self


class Image(Strict):
    """A picture: a list of detections, which may be empty, or none and a failure."""

    file: Annotated[str, StringConstraints(min_length=1)]
    detections: list[Detection] | None
    failure: str | None = None

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        assert (self.detections is None) == (self.failure is not None)
        assert "\\" not in self.file
        return self


class Results(Strict):
    """The file."""

    info: Info
    detection_categories: dict[Number, Annotated[str, StringConstraints(pattern=r"\S")]]
    images: list[Image]

    @model_validator(mode="after")
    def _require_categories(self) -> Self:
        found = {detection.category for image in self.images for detection in image.detections or ()}
        assert found <= self.detection_categories.keys()
        assert "0" not in self.detection_categories  # informally reserved for an empty picture
        return self
