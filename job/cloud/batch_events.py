"""Batch's events in words: what keeps a job from a machine, with the remedy.

An event that no rule knows stays in Batch's own words. The forms are those that users have reported: nextflow #3061 and
#5550, dsub #303, and Batch's page on troubleshooting.
"""

import re

QUOTAS = "https://console.cloud.google.com/iam-admin/quotas"

EVENTS = (
    (
        r"Quota '(?P<quota>\w+)' exceeded\.\s+Limit: (?P<limit>[\d.]+)(?P<where> in region [\w-]+)?",
        f"quota {{quota}} is {{limit}}{{where}}; ask for more at {QUOTAS}, or choose another --machine",
    ),
    (
        r"inadequate quotas.*?Quota: (?P<quota>[\w-]+), limit: (?P<limit>[\d.]+), usage: (?P<usage>[\d.]+)",
        f"quota {{quota}} is {{limit}}, and {{usage}} are in use; ask for more at {QUOTAS}",
    ),
    (
        r"No zone supports all of the provided instance templates",
        "no zone of the region has this machine type; choose another --machine or --region",
    ),
    (
        r"ZONE_RESOURCE_POOL_EXHAUSTED|does not have enough resources available|STOCKOUT",
        "no zone has such a machine free; it waits, or name several as --machine l4,a100",
    ),
    (
        r"no VM has agent reporting",
        "its machines do not report; `job doctor --cloud` checks the roles of the account that trains",
    ),
    (
        r"CODE_SERVICE_ACCOUNT_MISMATCH|iam\.serviceAccounts\.actAs",
        "this account may not act as the training account; `job doctor --cloud` names the command that allows it",
    ),
)
"""Form of an event, and its words."""


def in_words(event: str) -> str:
    """Return what an event says, with the remedy if a rule knows it."""
    for form, words in EVENTS:
        if found := re.search(form, event, re.IGNORECASE):
            values = {name: (value or "").rstrip(".") for name, value in found.groupdict().items()}
            return words.format_map({name: re.sub(r"\.0+$", "", value) for name, value in values.items()})
    return f"Batch says: {event}" if event else "Batch gives no reason"
