"""Which epoch is the best one: by Ultralytics' fitness, or by F1."""

import pytest
import torch

EPOCHS = [(0.5, 0.5, 0.3), (0.9, 0.5, 0.2), (0.6, 0.6, 0.4)]
"""Precision, recall and fitness; the second epoch has the best F1, the third one the best fitness."""


@pytest.mark.parametrize(("best", "fitness"), [("fitness", [0.3, 0.2, 0.4]), ("f1", [0.5, 0.9 / 1.4, 0.6])])
def test_it_is_decided_by_what_was_asked_for(confined, best, fitness):
    """The fitness of an epoch, which chooses best.pt and ends patience, is that measure, and the best one stays."""
    from job.training.trainer import Trainer  # noqa: PLC0415 -- once Ultralytics is confined

    trainer = Trainer.__new__(Trainer)
    trainer.plan = type("Plan", (), {"train": {"best": best}})
    trainer.ema, trainer.best_fitness, trainer.loss = None, None, torch.zeros(1)
    found, kept = [], []
    for precision, recall, theirs in EPOCHS:
        row = {"metrics/precision(B)": precision, "metrics/recall(B)": recall, "fitness": theirs}
        trainer.validator = lambda _trainer, row=row: row
        found.append(trainer.validate()[1])
        kept.append(trainer.best_fitness)
    assert found == pytest.approx(fitness)
    assert kept == pytest.approx([max(fitness[:number]) for number in (1, 2, 3)])
