"""Order and augmentation of the images: the same for any worker count and across any cut."""

import collections
import hashlib
import logging
import multiprocessing
import random
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
import torch

from job.training.distributed import ProcessGroup
from tests.support.tiny_dataset import make_tiny_dataset
from tests.support.tiny_training import ARGUMENTS, plan_tiny_training


@pytest.fixture(scope="module")
def sampler(confined):
    """The module that decides which image comes when; it imports Ultralytics."""
    from job.training import sampler as module  # noqa: PLC0415 -- once Ultralytics is confined

    return module


@pytest.fixture(scope="module")
def make_trainer(confined, tmp_path_factory):
    """A function that sets up a trainer with some workers."""
    folder = tmp_path_factory.mktemp("sampling")
    from job.training.trainer import Trainer  # noqa: PLC0415 -- once Ultralytics is confined

    def make(workers=0, seed=0, num_train=18, of_plan=MappingProxyType({}), **train):
        data = folder / f"of-{num_train}"
        yaml = data / "data.yaml"
        if not data.exists():
            make_tiny_dataset(data, num_train=num_train, num_val=4)
            yaml.write_text(f"path: {data}\n{yaml.read_text()}")
        asked = ARGUMENTS | {"seed": seed} | train
        plan = plan_tiny_training(folder / "run", yaml, asked, workers, architecture="tiny.yaml")
        return Trainer(replace(plan, **of_plan))

    return make


@pytest.fixture
def num_decodes(sampler, make_trainer, monkeypatch):
    """A function that has an epoch of 400 images made by some workers, and returns how many images are decoded."""
    from ultralytics.data.dataset import YOLODataset  # noqa: PLC0415 -- Ultralytics is confined first

    from job.training import dataset as module  # noqa: PLC0415 -- once Ultralytics is confined

    def count(num_workers, stride):
        decode, decoded = YOLODataset.load_image, []
        monkeypatch.setattr(YOLODataset, "load_image", lambda *args: decoded.append(args[1]) or decode(*args))
        monkeypatch.setattr(module, "get_worker_info", lambda: SimpleNamespace(num_workers=num_workers))
        trainer = make_trainer(num_train=400, imgsz=32, mixup=0.0, of_plan={"mosaic_stride": stride})
        dataset = trainer.train_loader.dataset
        for worker in range(num_workers):
            dataset.recent.clear()
            for batch in list(trainer.batches)[worker::num_workers]:
                for sample in batch:
                    dataset[sample]
        return len(decoded)

    return count


def stream(trainer, epoch, first_batch=0):
    """Return the images of an epoch in order, each with a digest of its augmented pixels, sizes of batches
    included.
    """
    trainer.epoch = epoch
    found = []
    for index, batch in enumerate(trainer.epoch_of_batches(epoch, first_batch), start=first_batch):
        prepared = trainer.preprocess_keyed(batch, index)
        for name, pixels in zip(prepared["im_file"], prepared["img"], strict=True):
            found.append((Path(name).name, hashlib.sha256(pixels.numpy().tobytes()).hexdigest()))
    return found


def test_the_stream_is_the_same_for_any_number_of_workers(make_trainer):
    """Images, their order, their augmentation and their size are the same with 0, 1, 2 and 4 workers, mosaic open
    or closed.
    """
    streams = {}
    for workers in (0, 1, 2, 4):
        trainer = make_trainer(workers)
        streams[workers] = [stream(trainer, epoch) for epoch in range(3)]
        trainer.shut_loaders()
    assert streams[0] == streams[1] == streams[2] == streams[4]
    assert len({str(epoch) for epoch in streams[0]}) == 3


def test_an_epoch_resumed_at_any_batch_has_the_same_samples(make_trainer):
    """An epoch that begins at any batch has the samples that the whole epoch has from there on, after any
    other epoch.
    """
    whole = stream(make_trainer(), 1)
    for first_batch in range(6):
        trainer = make_trainer()
        assert stream(trainer, 1, first_batch) == whole[4 * first_batch :]
    stream(trainer, 0)
    assert stream(trainer, 1) == whole


def test_every_image_comes_once_in_an_epoch(make_trainer):
    """An epoch has each image exactly once, in another order than the epoch before."""
    trainer = make_trainer()
    orders = [[name for name, _ in stream(trainer, epoch)] for epoch in range(3)]
    assert all(sorted(order) == sorted(orders[0]) and len(set(order)) == 18 for order in orders)
    assert len({tuple(order) for order in orders}) == 3


@pytest.mark.parametrize("num_workers", range(1, 17))
def test_the_partners_of_a_mosaic_come_to_the_same_worker(sampler, num_workers):
    """Batches are dealt to the workers in turn: a partner is among those of the same one, and not far away."""
    stride = sampler.choose_stride(num_workers, batch_size=4, imgsz=2048)
    sequence = sampler.EpochBatches(num_images=400, batch_size=4, seed=0, stride=stride)
    assert (sequence.stride, sequence.fit_workers(num_workers)) == (stride, num_workers)
    batches = list(sequence)
    for number, batch in enumerate(batches):
        near = range(
            max(number - stride * sampler.PARTNERS // 4, number % stride), number + stride * sampler.PARTNERS // 4 + 1
        )
        mine = [batches[other] for other in near if other % num_workers == number % num_workers and other < 100]
        assert set(batch[0].partners) <= {sample.image for other in mine for sample in other}


def test_the_stride_of_a_new_run_suits_its_workers_and_their_memory(sampler):
    """A new run has the stride of older versions with 1, 2, 4 and 8 workers, a multiple of any other number, and less
    where a worker would keep more than 1 GiB of decoded images; several processes count their shares of a batch.
    """
    strides = [sampler.choose_stride(workers, batch_size=4, imgsz=640) for workers in range(17)]
    assert strides == [8, 8, 8, 12, 8, 10, 12, 14, 8, 9, 10, 11, 12, 13, 14, 15, 16]
    assert [sampler.choose_stride(workers, batch_size=4, imgsz=2048) for workers in (0, 1, 2, 4, 8)] == [2, 2, 4, 8, 8]
    assert [sampler.choose_stride(1, 64, 1024, num_processes) for num_processes in (1, 2, 4, 8)] == [2, 4, 8, 8]


@pytest.mark.parametrize(("stride", "fit"), [(8, [0, 1, 2, 2, 4, 4, 4, 4, 8]), (12, [0, 1, 2, 3, 4, 4, 6, 6, 6])])
def test_a_run_on_another_machine_takes_as_many_workers_as_suit_its_stride(sampler, stride, fit):
    """Of 0 to 8 workers a run takes those among which its sequences can be dealt evenly; in an epoch that is too short
    for its stride it takes all.
    """
    whole, short = (sampler.EpochBatches(num_images, 4, 0, stride=stride) for num_images in (400, 40))
    assert [whole.fit_workers(most) for most in range(9)] == fit
    assert [short.fit_workers(most) for most in range(9)] == list(range(9))


@pytest.mark.parametrize("num_images", [4, 8, 20, 32, 64, 80, 400])
def test_a_mosaic_has_many_partners_and_each_image_is_one_as_often_as_any_other(sampler, num_images):
    """An epoch of any length offers a sample sixteen others beside its own batch, or all there are."""
    batches = sampler.EpochBatches(num_images, batch_size=4, seed=0)
    num_partners = min(4 + sampler.PARTNERS, num_images)
    num_epochs = 400
    counts: collections.Counter[int] = collections.Counter()
    for epoch in range(num_epochs):
        batches.start(epoch)
        for sample in (sample for batch in batches for sample in batch):
            assert sample.image in sample.partners
            assert len(set(sample.partners)) == len(sample.partners) == num_partners
            counts.update(sample.partners)
    assert len(counts) == num_images
    assert all(0.85 < count / (num_epochs * num_partners) < 1.15 for count in counts.values())


@pytest.mark.parametrize("num_workers", [1, 3, 5, 7, 12])
def test_an_image_is_decoded_about_once_in_an_epoch(sampler, num_decodes, num_workers):
    """The partners of mosaics are at hand, those of an epoch's first batches included, with any number of workers."""
    assert 400 <= num_decodes(num_workers, sampler.choose_stride(num_workers, 4, 32)) <= 440


def test_an_image_is_decoded_more_often_by_workers_that_do_not_suit_the_stride(num_decodes):
    """Five workers decode each image at least twice in a run whose stride is no multiple of five."""
    assert num_decodes(5, stride=8) > 800


@pytest.mark.parametrize("closed", [False, True])
def test_a_training_augments_in_kept_arrays(make_trainer, closed):
    """No transform of a training, with mosaic or without, is one of Ultralytics' that have a counterpart in kept
    arrays.
    """
    from job.training.augmentation import KEPT  # noqa: PLC0415 -- imports Ultralytics

    dataset = make_trainer().train_loader.dataset
    found = list(every_transform(dataset.transforms_without_mosaic if closed else dataset.transforms))
    assert set(KEPT.values()) <= set(found)
    assert not set(KEPT) & set(found)


def every_transform(transform):
    """Yield the class of a transform and of all that it calls."""
    yield type(transform)
    called = [*(getattr(transform, "transforms", None) or ()), getattr(transform, "pre_transform", None)]
    for inner in filter(None, called):
        yield from every_transform(inner)


def test_a_decoded_image_is_neither_copied_nor_changed(make_trainer):
    """An image that is kept is the same array each time, and cannot be written to."""
    dataset = make_trainer().train_loader.dataset
    dataset.buffer = [0]
    (first, *_), (second, *_) = dataset.load_image(0), dataset.load_image(0)
    assert first is second
    assert not first.flags.writeable


def test_a_worker_stacks_a_batch_in_shared_memory(make_trainer, monkeypatch):
    """The images of a batch are stacked where other processes see them, in a worker alone."""
    trainer = make_trainer()
    dataset, samples = trainer.train_loader.dataset, next(iter(trainer.batches))
    assert not dataset.collate_fn([dataset[sample] for sample in samples])["img"].is_shared()
    monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda: SimpleNamespace(num_workers=1))
    assert dataset.collate_fn([dataset[sample] for sample in samples])["img"].is_shared()


def test_images_of_a_batch_are_made_where_the_batch_has_them(make_trainer, monkeypatch):
    """The images of a batch are those of its samples, none is copied, and a worker makes them in shared memory."""
    from job.training import dataset as module  # noqa: PLC0415 -- once Ultralytics is confined

    trainer = make_trainer()
    dataset, samples = trainer.train_loader.dataset, next(iter(trainer.batches))
    stacked = dataset.collate_fn([dataset[sample] for sample in samples])["img"]
    for worker in (None, SimpleNamespace(num_workers=1)):
        monkeypatch.setattr(module, "get_worker_info", lambda worker=worker: worker)
        made = dataset.__getitems__(samples)
        assert made.are_in_place
        batch = dataset.collate_fn(made)["img"]
        assert batch is made.images
        assert batch.is_shared() == (worker is not None)
        assert torch.equal(batch, stacked)


def test_a_training_opens_no_image_whose_shape_is_known(make_trainer, monkeypatch):
    """The labels of both splits are scanned with the shapes of the plan."""
    from ultralytics.data import utils  # noqa: PLC0415 -- Ultralytics is confined first

    dataset = make_trainer(num_train=7).train_loader.dataset
    root, opened, check_image = Path(dataset.im_files[0]).parents[2], [], utils.check_image
    for cache in root.glob("labels/*.cache"):
        cache.unlink()
    monkeypatch.setattr(utils, "check_image", lambda image: opened.append(image) or check_image(image))
    shapes = {str(image): (64, 64) for image in root.glob("images/*/*.jpg")}
    assert len(shapes) == 11
    again = make_trainer(num_train=7, of_plan={"shapes": shapes}).train_loader.dataset
    assert opened == []
    assert [label["shape"] for label in again.labels] == [label["shape"] for label in dataset.labels]


def test_pictures_that_are_resized_are_decoded_into_one_buffer(make_trainer):
    """A picture of another size than the training's leaves its pixels in the buffer, and none of them in the cache."""
    pytest.importorskip("simplejpeg")
    dataset = make_trainer(imgsz=32).train_loader.dataset
    dataset.buffer = [0]
    pixels, *_ = dataset.load_image(0)
    assert dataset.decoding.pixels.sized(0).size == 64 * 64 * 3
    assert pixels.shape == (32, 32, 3)
    assert not dataset.decoding.pixels.holds(pixels)


@pytest.mark.parametrize("tiles", [0, 40])
def test_grey_pictures_are_trained_on(make_trainer, tiles):
    """Pictures of one channel are loaded whole and in tiles, with no memory of a batch for three channels."""
    root = Path(make_trainer(num_train=6).train_loader.dataset.im_files[0]).parents[2]
    with (root / "data.yaml").open("a") as data:
        data.write("channels: 1\n")
    trainer = make_trainer(num_train=6, tiles=tiles, imgsz=32)
    assert next(iter(trainer.epoch_of_batches(0, 0)))["img"].shape[1:] == (1, 32, 32)
    assert type(trainer.train_loader.dataset.__getitems__(next(iter(trainer.batches)))) is list


def test_images_that_were_made_elsewhere_are_stacked(make_trainer):
    """A transform that makes an image anew costs a copy, and the batch has that image."""
    trainer = make_trainer()
    dataset, samples = trainer.train_loader.dataset, next(iter(trainer.batches))
    made = dataset.__getitems__(samples)
    made[1]["img"] = 255 - made[1]["img"]
    expected = [sample["img"] for sample in made]
    assert torch.equal(dataset.collate_fn(made)["img"], torch.stack(expected))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with fewer cores
@pytest.mark.parametrize(
    ("asked", "cores", "local_size", "used"), [(3, 8, 1, 2), (8, 4, 1, 4), (8, 4, 2, 2), (8, 1, 2, 1), (0, 8, 1, 0)]
)
def test_workers_suit_the_stride_and_the_cores(make_trainer, monkeypatch, caplog, asked, cores, local_size, used):
    """A training has as many workers as asked, but no more than its share of the cores, or suit its stride of 8, which
    is logged.
    """
    from job.training import trainer  # noqa: PLC0415 -- imports Ultralytics

    monkeypatch.setattr(trainer, "num_cores", lambda: cores)
    with caplog.at_level(logging.INFO, logger="job"):
        made = make_trainer(asked, num_train=400, of_plan={"group": ProcessGroup(local_size=local_size)})
    assert made.train_loader.num_workers == used
    assert ("workers: 2 instead of 3, which would decode images more than once" in caplog.text) == (asked == 3)


def test_decoded_images_are_kept_up_to_a_number_of_bytes(make_trainer, monkeypatch):
    """Images and pictures that are kept for later never exceed their limit, and samples are the same below it."""
    from job.training import dataset as module  # noqa: PLC0415 -- once Ultralytics is confined

    whole = stream(make_trainer(tiles=40), 0)
    limit = 10 * 64 * 64 * 3
    monkeypatch.setattr(module, "CACHE_BYTES", limit)
    trainer = make_trainer(tiles=40)
    dataset, sizes = trainer.train_loader.dataset, []
    make_sample = type(dataset).__getitem__

    def measured(*args):
        sample = make_sample(*args)
        sizes.append(
            (sum(image[0].nbytes for image in dataset.recent.values()), sum(map(np.size, dataset.decoded.values())))
        )
        return sample

    monkeypatch.setattr(type(dataset), "__getitem__", measured)
    assert stream(trainer, 0) == whole
    assert max(max(pair) for pair in sizes) <= limit
    assert min(map(max, zip(*sizes, strict=True))) > limit / 2


def test_workers_prefetch_the_next_epoch_during_validation(make_trainer, monkeypatch):
    """The first batches of an epoch are prefetched, and no superfluous sample is made."""
    from job.training.dataset import KeyedDataset  # noqa: PLC0415 -- Ultralytics is confined first

    made = multiprocessing.get_context("fork").SimpleQueue()
    make_sample = KeyedDataset.__getitem__
    monkeypatch.setattr(KeyedDataset, "__getitem__", lambda *args: made.put(args[1].epoch) or make_sample(*args))
    trainer = make_trainer(workers=1)
    stream(trainer, 0)
    assert [made.get() for _ in range(18 + 4)] == [0] * 18 + [1] * 4
    stream(trainer, 1)
    stream(trainer, 2)
    trainer.shut_loaders()
    assert [made.get() for _ in range(14 + 18)] == [1] * 14 + [2] * 18
    assert made.empty()


def test_another_seed_is_another_order(make_trainer):
    """The seed decides in which order the images come."""
    one, other = ([name for name, _ in stream(make_trainer(seed=seed), 0)] for seed in (0, 1))
    assert sorted(one) == sorted(other)
    assert one != other


def test_another_seed_is_another_augmentation(make_trainer):
    """The seed decides how an image is augmented, in any order: without any partner, too."""
    one, other = (dict(stream(make_trainer(seed=seed, mosaic=0.0, mixup=0.0), 0)) for seed in (0, 1))
    assert all(one[name] != other[name] for name in one)


def test_making_a_sample_leaves_the_random_streams_alone(make_trainer):
    """The random streams of the process do not depend on the number of samples that it has made."""
    trainer = make_trainer()
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    stream(trainer, 0)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_what_other_threads_draw_changes_no_sample(make_trainer, monkeypatch):
    """A sample draws nothing from the streams that all threads of the process share."""
    quiet = stream(make_trainer(), 0)
    trainer = make_trainer()

    def disturb(*_values, **_options):
        raise AssertionError("drawn from a shared stream")

    for name in ("random", "uniform", "randint", "randrange", "choice", "choices", "sample", "shuffle"):
        monkeypatch.setattr(random, name, disturb)
    for name in ("uniform", "beta", "randint", "rand", "random", "choice"):
        monkeypatch.setattr(np.random, name, disturb)
    assert stream(trainer, 0) == quiet


def tile_batches(sampler, num_pictures=60, num_tiles=20, share_empty=0.5, **options):
    """Return the batches of pictures that are cut into equally many tiles, of which some are empty."""
    pictures = np.repeat(np.arange(num_pictures), num_tiles)
    empty = np.random.default_rng(0).random(len(pictures)) < share_empty
    return sampler.TileBatches(pictures, empty, 0.15, 16, 0, **options), pictures, empty


def test_an_epoch_has_each_tile_with_an_object_once_and_few_empty_ones(sampler):
    """Tiles with objects come once in an epoch, in another order each time; of empty ones come others each time, as
    many as their share of 15 % allows.
    """
    batches, _, empty = tile_batches(sampler)
    epochs = []
    for epoch in range(3):
        batches.start(epoch)
        epochs.append([sample.image for batch in batches for sample in batch])
    for tiles in epochs:
        assert len(tiles) == len(set(tiles)) == batches.num_images
        assert set(np.flatnonzero(~empty)) <= set(tiles)
        assert 0.14 < np.mean(empty[tiles]) <= 0.15
    assert len({tuple(tiles) for tiles in epochs}) == len({frozenset(tiles) for tiles in epochs}) == 3


@pytest.mark.parametrize("num_workers", [1, 8])
def test_a_worker_decodes_a_picture_about_once(make_trainer, monkeypatch, num_workers):
    """Of 96 pictures that are cut into tiles, all workers together decode each once or twice in an epoch."""
    from job.training import dataset as module  # noqa: PLC0415 -- once Ultralytics is confined

    trainer = make_trainer(num_train=96, batch=16, mixup=0.0, tiles=16, tile_empty=0.9)
    decoded = collections.Counter()
    stock = module.imread
    monkeypatch.setattr(module, "imread", lambda name, **options: decoded.update([name]) or stock(name, **options))
    monkeypatch.setattr(module, "get_worker_info", lambda: SimpleNamespace(num_workers=num_workers))
    tiled = trainer.train_loader.dataset
    for worker in range(num_workers):
        tiled.decoded.clear()
        tiled.recent.clear()
        for batch in list(trainer.batches)[worker::num_workers]:
            for sample in batch:
                tiled[sample]
    assert trainer.batches.num_images > 15 * len(decoded)
    assert len(decoded) <= decoded.total() < 2 * len(decoded)


def test_the_tiles_of_two_processes_are_those_of_one(sampler):
    """Two processes share each batch of tiles."""
    whole, _, _ = tile_batches(sampler)
    shares = [tile_batches(sampler, rank=rank, num_processes=2)[0] for rank in range(2)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert [sample.image for sample in batch] == [sample.image for part in parts for sample in part][: len(batch)]


def test_a_picture_cut_into_tiles_gives_the_same_stream_for_any_number_of_workers(make_trainer):
    """Tiles, their order, augmentation and boxes are the same with 0, 2 and 3 workers and from any batch on."""
    streams = {}
    for workers in (0, 2, 3):
        trainer = make_trainer(workers, tiles=40)
        streams[workers] = [stream(trainer, epoch) for epoch in range(3)]
        trainer.shut_loaders()
    assert streams[0] == streams[2] == streams[3]
    assert len(streams[0][0]) == trainer.batches.num_images > 18
    assert stream(make_trainer(tiles=40), 1, 2) == streams[0][1][8:]
