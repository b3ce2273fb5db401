"""Validation by several ranks: each validates its share of the batches, and each has the metrics of the whole split.

Guarantees the metrics, losses and detections of one process with the same batches, bit for bit: batches are never
divided, and everything is put together in the order of the dataset.
"""

from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
import torch
from ultralytics.models.yolo.detect import DetectionValidator

from job.training.distributed import WORK_S, ProcessGroup

Losses = dict[str, torch.Tensor]


def share_of(num_images: int, batch_size: int, group: ProcessGroup) -> range:
    """Return the indices of the images that a rank validates: contiguous, and only whole batches."""
    first_images = np.array_split(np.arange(0, num_images, batch_size), group.size)[group.rank].tolist()
    if not first_images:
        return range(0)
    return range(first_images[0], min(first_images[-1] + batch_size, num_images))


def take_share(loader: Any, group: ProcessGroup) -> None:  # noqa: ANN401 -- one of Ultralytics' classes, which are Any
    """Let an `InfiniteDataLoader`, whose processes have not started, load the share of this rank."""
    share = share_of(len(loader.dataset), loader.batch_size, group)
    loader.batch_sampler.sampler.sampler = share
    if not share:
        loader.num_workers = 0  # processes would look for a first batch for ever


class DistributedValidator(DetectionValidator):
    """Ultralytics' validator over the ranks of a process group; its loader has to have the share of its rank."""

    group = ProcessGroup()
    """One process, unless a trainer has more."""

    loss: Losses
    seen: int
    _losses: list[Losses]
    """Of each batch of this rank, and after `gather_stats` of each batch of the split."""

    def __call__(self, trainer: Any = None, model: Any = None, **options: Any) -> dict[str, float]:  # noqa: ANN401 -- one of Ultralytics' classes, which are Any
        """Validate this rank's share, and return the metrics of the split; raises `PeerError` if a rank is gone."""
        if self.group.size == 1:
            alone: dict[str, float] = super().__call__(trainer, model, **options)
            return alone
        self._losses = []
        _take_buffers_of_rank_zero(trainer.ema.ema, self.group)
        of_split: dict[str, float] = super().__call__(trainer, model, **options)
        losses: dict[str, float] = trainer.label_loss_items(_mean(self._losses), prefix="val")
        return of_split | losses

    def update_metrics(self, preds: list[dict[str, torch.Tensor]], batch: dict[str, Any]) -> None:
        """Count the detections of a batch, and keep its losses by themselves."""
        super().update_metrics(preds, batch)
        if self.group.size > 1:
            self._losses.append({name: value.cpu() for name, value in self.loss.items()})
            self.loss = {name: torch.zeros_like(value) for name, value in self.loss.items()}

    def gather_stats(self) -> None:
        """Take what the other ranks saw, in the order of the dataset."""
        if self.group.size == 1:
            return
        metrics, confusion = self.metrics, self.confusion_matrix
        seen = (self.seen, self._losses, metrics.stats, metrics.box.image_metrics, confusion.matrix)
        nums_seen, losses, stats, of_images, matrices = zip(*self.group.all_gather(seen, WORK_S), strict=True)
        self.seen, self._losses, confusion.matrix = sum(nums_seen), _joined(losses), np.sum(matrices, axis=0)
        metrics.stats = {name: _joined(each[name] for each in stats) for name in metrics.stats}
        metrics.box.image_metrics = dict(chain.from_iterable(each.items() for each in of_images))


def _take_buffers_of_rank_zero(model: torch.nn.Module, group: ProcessGroup) -> None:
    """Copy what gradients do not keep equal: the means and variances of each rank's own batches."""
    buffers = dict(model.named_buffers())
    for name, value in group.broadcast({name: value.cpu() for name, value in buffers.items()}).items():
        buffers[name].copy_(value)


def _mean(losses: list[Losses]) -> Losses:
    total = {name: torch.zeros_like(value) for name, value in losses[0].items()}
    for each in losses:
        total = {name: value + each[name] for name, value in total.items()}
    return {name: value / len(losses) for name, value in total.items()}


def _joined(lists: Iterable[list[Any]]) -> list[Any]:
    return list(chain.from_iterable(lists))
