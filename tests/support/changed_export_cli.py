"""The command line with an export of which one weight is changed before it is checked."""

import sys

from job.cli.app import main
from job.prediction import labelled

CHANGE = 0.5


def change_one_weight(path):
    """Change one number of the first convolution in an ONNX file."""
    import onnx  # noqa: PLC0415 -- of the extra `export`, which is not installed everywhere
    from onnx import numpy_helper  # noqa: PLC0415 -- of the extra `export`, too

    model = onnx.load(path)
    weights = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    values = numpy_helper.to_array(weights).copy()
    values[0, 0, 1, 1] += CHANGE
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    onnx.save(model, path)


def arm():
    """Change what the exporter writes."""
    from job.training import export  # noqa: PLC0415 -- Ultralytics is confined first

    original = export.export_onnx

    def export_onnx(weights, target, imgsz, date):
        px = original(weights, target, imgsz, date)
        change_one_weight(target)
        return px

    export.export_onnx = export_onnx


if __name__ == "__main__":
    confine = labelled.isolate_ultralytics

    def confined(folder):
        """Arm as soon as Ultralytics may be imported."""
        confine(folder)
        arm()

    labelled.isolate_ultralytics = confined
    sys.exit(main(sys.argv[1:]))
