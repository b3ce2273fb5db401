"""Records of an attempt and of the end of a run, without a bucket."""

from job.runs.records import AttemptClaim, AttemptEnd, AttemptRecord, AttemptStart, Heartbeat, StopRequest


def attempt_record(claim, *, start=None, pulse=None, stop=None, end=None):
    """Return an attempt's records from the contents of its objects."""
    return AttemptRecord(
        AttemptClaim.model_validate(claim),
        start=start and AttemptStart.model_validate(start),
        heartbeat=pulse and Heartbeat.model_validate(pulse),
        stop=stop and StopRequest.model_validate(stop),
        end=end and AttemptEnd.model_validate(end),
    )


def final_tensors(final):
    """Return the digest of the tensors in each file of weights that a run ended with."""
    return {name: digests.tensors for name, digests in final.weights.items()}


def final_content(**changes):
    """Return what the final record of a run of one epoch says, but for its time."""
    metrics = dict.fromkeys(("f1", "precision", "recall", "map50", "map50_95"), 0.5)
    return {
        "attempt": 1,
        "profile": "full",
        "reason": "complete",
        "num_epochs": 1,
        "best_epoch": 1,
        "train_s": 60.0,
        "bits": {"exact": True},
        "comparison": {"before": metrics, "after": metrics, "change": {}, "expected": {}, "reached": {}},
        "course": [{"epoch": 1, **metrics}],
        "weights": {name: {"sha256": "c" * 64, "tensors": "d" * 64} for name in ("best.pt", "last.pt")},
        **changes,
    }
