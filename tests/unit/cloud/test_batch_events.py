"""Batch's events in words."""

import pytest

from job.cloud.batch_events import in_words


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (
            "creation failed: Quota 'GPUS_PER_GPU_FAMILY' exceeded.  Limit: 0.0 in region us-east1.",
            "quota GPUS_PER_GPU_FAMILY is 0 in region us-east1; ask for more at https://console",
        ),
        ("Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 10.0 globally.", "quota GPUS_ALL_REGIONS is 10; ask"),
        (
            "delay scheduling due to inadequate quotas [Quota: NVIDIA_L4_GPUS, limit: 4, usage: 3.5, wanted: 1.]",
            "quota NVIDIA_L4_GPUS is 4, and 3.5 are in use; ask for more",
        ),
        ("CODE_GCE_ZONE_RESOURCE_POOL_EXHAUSTED, the zone ...", "no zone has such a machine free; it waits, or name"),
        ("No zone supports all of the provided instance templates", "no zone of the region has this machine type"),
        ("Batch Error: no VM has agent reporting correctly", "its machines do not report; `job doctor --cloud` checks"),
        ("code - CODE_SERVICE_ACCOUNT_MISMATCH", "this account may not act as the training account"),
        ("something new", "Batch says: something new"),
        ("", "Batch gives no reason"),
    ],
)
def test_an_event_is_explained_with_its_remedy(event, words):
    """Quota, zone, stock and rights are named in words; an unknown event stays as it is."""
    assert in_words(event).startswith(words)
