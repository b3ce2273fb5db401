"""One training through Ultralytics' own loop and through ours, on the same batches."""

import warnings

from job.training.callbacks import TrainingCallbacks


class Losses(TrainingCallbacks):
    """Keeps the losses of each step."""

    def __init__(self, losses):
        self.losses = losses

    def on_step(self, step, _snapshot):
        """Keep those of a step."""
        self.losses.append(exact(step.losses))


def exact(losses):
    """Return losses to the last bit."""
    return {name: float(value).hex() for name, value in losses.items()}


def train_stock(plan, losses=None):
    """Train with Ultralytics' `_do_train`, given our batches in our order; a list gets the losses of each step."""
    from job.training.rng import start_streams  # noqa: PLC0415 -- after Ultralytics was confined
    from job.training.trainer import Trainer  # noqa: PLC0415 -- Ultralytics is confined first

    class Stock(Trainer):
        is_set_up = False
        number = 0

        def _setup_train(self):
            if not self.is_set_up:
                self.is_set_up = True
                super()._setup_train()

        def preprocess_batch(self, batch):
            start_streams("size", self.args.seed, self.epoch, self.number)
            self.number += 1
            return super().preprocess_batch(batch)

        def read_results_csv(self):
            return {}  # for the files that it saves; it needs polars, which a machine may lack

    def start_epoch(trainer):
        trainer.batches.start(trainer.epoch)
        trainer.number = 0

    trainer = Stock(plan)
    trainer.train_loader.reset = lambda: None  # what Ultralytics' loader has to forget its workers
    trainer.callbacks["on_train_epoch_start"].append(start_epoch)
    if losses is not None:
        trainer.callbacks["on_train_batch_end"].append(lambda trainer: losses.append(exact(trainer.tloss)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train()
    return trainer


def train_ours(plan, losses=None):
    """Train with our loop; a list gets the losses of each step."""
    from job.training.loop import Training  # noqa: PLC0415 -- after Ultralytics was confined

    training = Training(plan)
    training.run(TrainingCallbacks() if losses is None else Losses(losses))
    training.trainer.training = training
    return training.trainer
