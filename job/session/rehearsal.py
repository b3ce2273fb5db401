"""Rehearsal: trains a request for a moment, to measure it, without a run in the bucket."""

from dataclasses import replace
from typing import TYPE_CHECKING

from job.datasets.prepare import find_dataset
from job.runs.lineage import fetch_start, find_start
from job.runs.request import TrainRequest
from job.session.context import SessionContext
from job.session.preemption import PreemptionWatcher
from job.session.startup import set_up
from job.storage.object_store import Store

if TYPE_CHECKING:
    from job.training.callbacks import TrainingCallbacks


def rehearse(store: Store, order: TrainRequest, callbacks: "TrainingCallbacks") -> None:
    """Train until the callbacks end it, in a scratch folder.

    Raises:
        JobError: As `job.session.train.train`; and every error of the callbacks.
    """
    with PreemptionWatcher() as preemption:
        context = SessionContext(store=store, order=order, preemption=preemption)
        with context.in_folder("rehearsal") as here:
            dataset = find_dataset(store, order.dataset)
            here = replace(here, order=order.model_copy(update={"dataset": dataset}))  # noqa: PLW2901 -- with the name that is meant
            data = here.prepare_data(dataset, None, "run rehearsal")
            weights, point = fetch_start(store, find_start(store, here.order, None), here.folder / "start")
            set_up(here, data, point, weights).run(callbacks)
