"""What every data set shares: options, splits, sizes known beforehand, checkpoints, exact resume under a Trainer."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser

import lit_gen.data
from lit_gen.data import BatchLoader, DataInfo, Digits, ImageDataModule, ImageSet, Synthetic
from lit_gen.data.loader import Split
from tests.data.common import Recorder, everything, trainer

SETS = [
    value
    for value in vars(lit_gen.data).values()
    if isinstance(value, type) and issubclass(value, ImageDataModule) and not inspect.isabstract(value)
]


class Coded(ImageDataModule):
    """100 grey images whose first pixel is their number; whatever has no official part is carved out of them."""

    def __init__(self, official: tuple[Split, ...] = ("train",), total: int = 100, **kwargs: Any) -> None:
        self._info = DataInfo((1, 4, 4), 5, total, 20, 30, official)
        super().__init__(**kwargs)

    def describe(self) -> DataInfo:
        return self._info

    def load(self, part: Split) -> ImageSet:
        size = {"train": self.info.train_size, "val": self.info.val_size, "test": self.info.test_size}[part]
        images = torch.full((size, 1, 4, 4), 100, dtype=torch.uint8)
        images[:, 0, 0, 0] = torch.arange(size)
        return ImageSet(images, torch.arange(size) % 5)


def members(loader: Any) -> list[int]:
    return (everything(loader)[0][:, 0, 0, 0] * 255).round().int().tolist()


# ---- splits


def test_splits_are_disjoint_complete_and_independent_of_the_seed() -> None:
    one, other = Coded(seed=0), Coded(seed=1)
    splits = [members(loader) for loader in (one.train_dataloader(), one.val_dataloader(), one.test_dataloader())]
    assert [len(split) for split in splits] == [50, 20, 30]
    assert sorted(splits[0] + splits[1] + splits[2]) == list(range(100))
    assert members(other.val_dataloader()) == splits[1]
    assert members(other.test_dataloader()) == splits[2]
    assert sorted(members(other.train_dataloader())) == sorted(splits[0])
    assert members(other.train_dataloader()) != splits[0], "the order depends on the seed"
    assert splits[2][:5] == [26, 86, 2, 55, 75], "the same on every machine and in every version"


def test_targets_stay_with_their_images() -> None:
    for loader in (Coded().train_dataloader(), Coded(subset=10).train_dataloader(), Coded().val_dataloader()):
        images, targets = everything(loader)
        assert torch.equal((images[:, 0, 0, 0] * 255).round().long() % 5, targets)


@pytest.mark.parametrize(
    ("official", "sizes"),
    [(("train",), (50, 20, 30)), (("train", "test"), (80, 20, 30)), (("train", "val", "test"), (100, 20, 30))],
)
def test_official_parts_are_kept(official: tuple[Split, ...], sizes: tuple[int, int, int]) -> None:
    data = Coded(official=official)
    assert data.num_train == sizes[0]
    data.setup("fit")
    data.setup("test")
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    assert tuple(len(members(loader)) for loader in loaders) == sizes
    if "test" in official:
        assert members(data.test_dataloader()) == list(range(30))
    assert members(data.predict_dataloader()) == members(data.test_dataloader())


def test_subset_is_a_fixed_part_of_the_training_images() -> None:
    whole, part = members(Coded().train_dataloader()), Coded(subset=10, seed=5)
    assert part.num_train == 10
    assert set(members(part.train_dataloader())) < set(whole)
    assert members(part.val_dataloader()) == members(Coded().val_dataloader())
    assert set(members(part.train_dataloader())) == set(members(Coded(subset=10, seed=6).train_dataloader()))


def test_subsets_of_a_stored_split_are_drawn_and_nested() -> None:
    def subset(size: int, seed: int = 0) -> set[int]:
        return set(members(Coded(official=("train", "val", "test"), subset=size, seed=seed).train_dataloader()))

    assert subset(5) == subset(5, seed=1) == {26, 86, 2, 55, 75}, "the same on every machine and in every version"
    assert subset(5) < subset(10) < subset(99) < subset(100) == set(range(100))
    carved = [set(members(Coded(subset=size).train_dataloader())) for size in (5, 10, 50)]
    assert carved[0] < carved[1] < carved[2]


def test_without_validation_and_test_images_there_are_no_loaders() -> None:
    assert Coded(val_size=0).val_dataloader() == []
    assert Coded(val_size=0).num_train == 70
    assert Synthetic(num_test=0).test_dataloader() == []


def test_setup_reads_what_the_stage_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    load = Coded.load
    monkeypatch.setattr(Coded, "load", lambda self, part: read.append(part) or load(self, part))
    data = Coded(official=("train", "val", "test"))
    data.setup("validate")
    assert read == ["val"]
    data.setup("fit")
    data.setup("fit")
    assert read == ["val", "train"]
    data.setup()
    data.test_dataloader()
    assert read == ["val", "train", "test"]


class Copied(Coded):
    """Objects stored five times in succession."""

    def describe(self) -> DataInfo:
        return self._info._replace(copies=5)


def test_copies_of_an_object_stay_in_one_split() -> None:
    data = Copied(subset=25)
    splits = [members(loader) for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())]
    assert [len(split) for split in splits] == [25, 20, 30]
    objects = [{number // 5 for number in split} for split in splits]
    assert [len(those) for those in objects] == [5, 4, 6]
    assert len(set.union(*objects)) == 15


@pytest.mark.parametrize("option", ["val_size", "subset"])
def test_copies_of_an_object_are_not_torn_apart(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}=12 would tear the 5 copies.*choose a multiple of 5"):
        Copied(**{option: 12})


# ---- options


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (1, 8, 8)),
        ({"image_size": 16}, (1, 16, 16)),
        ({"image_size": (7, 5)}, (1, 7, 5)),
        ({"image_size": [7, 5], "channels": 3}, (3, 7, 5)),
    ],
)
def test_shape_is_known_beforehand_and_right(options: dict[str, Any], shape: tuple[int, int, int]) -> None:
    data = Digits(**options)
    assert data.image_shape == shape
    assert data.num_classes == 10
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        images, targets = everything(loader)
        assert images.shape[1:] == shape
        assert 0 <= images.min() < 0.1
        assert 0.9 < images.max() <= 1
        assert targets.unique().tolist() == list(range(10))


@pytest.mark.parametrize("binarization", ["threshold", "stochastic", "static"])
def test_binarization(binarization: Any) -> None:
    data, grey = Digits(binarization=binarization), Digits()
    loader = data.train_dataloader()
    first = everything(loader)[0]
    assert set(first.unique().tolist()) == {0.0, 1.0}
    if binarization != "threshold":
        assert abs(first.mean() - everything(grey.train_dataloader())[0].mean()) < 0.005  # 83,008 pixels
    val = everything(data.val_dataloader())[0]
    assert torch.equal(everything(data.val_dataloader())[0], val)
    assert torch.equal(everything(Digits(binarization=binarization).val_dataloader())[0], val)
    drawn = binarization != "threshold"
    assert torch.equal(everything(Digits(binarization=binarization, seed=1).val_dataloader())[0], val) != drawn

    # A mean over two epochs that is neither 0 nor 1 means that a pixel was drawn anew.
    loader.set_epoch(1)
    order = [BatchLoader.batches(loader)]
    second = everything(loader)[0][torch.argsort(torch.cat(list(order[0])))]
    loader.set_epoch(0)
    first = first[torch.argsort(torch.cat(list(loader.batches())))]
    assert torch.equal(first, second) == (binarization != "stochastic")


def test_flip_is_for_training_only() -> None:
    plain, flipped = Synthetic(), Synthetic(horizontal_flip=True)
    assert torch.equal(everything(plain.val_dataloader())[0], everything(flipped.val_dataloader())[0])
    assert not torch.equal(everything(plain.train_dataloader())[0], everything(flipped.train_dataloader())[0])


def test_reference_is_the_training_images_in_order_and_as_they_are() -> None:
    flipped = Coded(seed=3, horizontal_flip=True, batch_size=7, eval_batch_size=20)
    reference = flipped.reference_dataloader()
    assert [len(images) for images, _ in reference] == [20, 20, 10]
    assert members(reference) == members(Coded().reference_dataloader()), "neither seed nor flips matter"
    assert sorted(members(reference)) == sorted(members(Coded().train_dataloader()))
    assert members(Coded(subset=10).reference_dataloader()) == members(reference)[:10]


def test_dequantization_applies_to_all_splits() -> None:
    data = Synthetic(dequantize=True)
    for loader in (data.train_dataloader(), data.test_dataloader()):
        images = everything(loader)[0]
        assert images.min() > 0
        assert images.max() < 1


def test_batch_sizes() -> None:
    data = Coded(batch_size=20, eval_batch_size=7)
    assert [len(images) for images, _ in data.train_dataloader()] == [20, 20, 10]
    assert [len(images) for images, _ in data.val_dataloader()] == [7, 7, 6]
    assert [len(images) for images, _ in Coded(batch_size=15).val_dataloader()] == [15, 5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"eval_batch_size": 0}, "eval_batch_size must be at least 1, got 0"),
        ({"image_size": 0}, "image_size must be a positive number"),
        ({"image_size": (1, 2, 3)}, "image_size must be a positive number"),
        ({"channels": 2}, r"channels must be 1 \(grey\) or 3 \(colour\), or left out for what is stored; got 2"),
        ({"channels": 4}, "channels must be 1 .* or 3 .*; got 4"),
        ({"binarization": "dynamic"}, "binarization must be one of none, threshold, stochastic, static; got 'dynamic'"),
        ({"binarization": "static", "dequantize": True}, "dequantize is for grey levels"),
        ({"val_size": 70}, "100 images to train on: holding out 30 for test and 70 for val leaves none"),
        ({"val_size": -1}, "val_size must not be negative"),
        ({"subset": 0}, "subset must be at least 1"),
        ({"subset": 51}, "subset=51 is more than the 50 training images of Coded"),
        (
            {"official": ("train", "val", "test"), "val_size": 10},
            "Coded has its own validation split of 20 images: leave",
        ),
    ],
)
def test_wrong_options_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Coded(**options)


def test_channels_that_cannot_be_converted() -> None:
    with pytest.raises(ValueError, match="2 channels cannot be converted to channels=3"):
        Synthetic(image_shape=(2, 8, 8), channels=3)


def test_files_of_another_shape_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Coded, "load", lambda self, part: ImageSet(torch.zeros(100, 1, 5, 4, dtype=torch.uint8), None))
    with pytest.raises(ValueError, match="Coded: the files hold images of 1x5x4, expected 1x4x4"):
        Coded().setup("fit")


def test_protocol_is_one_plain_line() -> None:
    line = Coded(binarization="stochastic", subset=10, image_size=6, horizontal_flip=True).protocol
    assert line == (
        "Coded: 10 train / 20 val / 30 test images of 1x6x6; resized from 4x4; binarization stochastic; trained on a "
        "subset of 10; training images flipped at random"
    )
    assert Coded(dequantize=True).protocol.endswith("binarization none; dequantized")
    assert Coded(image_size=4).protocol == Coded().protocol


# ---- command line and checkpoints


@pytest.mark.parametrize("data_set", SETS, ids=lambda data_set: data_set.__name__)
def test_command_line_knows_every_option_and_no_other(data_set: type[ImageDataModule]) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageDataModule, "data")
    folder = ["--data.root=x"]
    options = {"ImageFolder": folder, "CaptionedFolder": folder, "Arrays": ["--data.images=x.npy"]}
    needed = options.get(data_set.__name__, [])
    name = f"--data={data_set.__module__}.{data_set.__name__}"
    shared = set(inspect.signature(ImageDataModule.__init__).parameters) - {"self"}
    parsed = parser.parse_args([name, *needed, "--data.image_size=[12,9]", "--data.seed=3"]).data
    assert shared <= set(vars(parsed.init_args))
    assert parsed.init_args.image_size == (12, 9)
    with pytest.raises(Exception, match="batchsize"):
        parser.parse_args([name, *needed, "--data.batchsize=3"])
    with pytest.raises(TypeError, match="batchsize"):
        data_set(**{word.split("=")[0].removeprefix("--data."): "x" for word in needed}, batchsize=3)  # type: ignore[call-arg]


def data() -> Digits:
    return Digits(batch_size=300, binarization="stochastic", horizontal_flip=True)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty")
@pytest.mark.parametrize("limit", [{"max_epochs": 3}, {"max_steps": 15}])
@pytest.mark.parametrize("stop", [3, 5, 8])
def test_run_stopped_in_mid_epoch_resumes_bit_for_bit(stop: int, limit: dict[str, int], tmp_path: Path) -> None:
    whole = Recorder()
    trainer(tmp_path / "whole", **limit).fit(whole, datamodule=data())
    assert len(whole.seen) == 15

    with pytest.raises(InterruptedError):
        trainer(tmp_path / "stopped", **limit).fit(Recorder(stop_after=stop), datamodule=data())
    resumed = Recorder()
    trainer(tmp_path / "stopped", **limit).fit(resumed, datamodule=data(), ckpt_path=tmp_path / f"stopped/{stop}.ckpt")
    assert resumed.seen == whole.seen[stop:]
    assert torch.equal(resumed.weight, whole.weight)
    assert resumed.validated[-1] == whole.validated[-1] == whole.validated[0]


def test_data_is_rebuilt_from_the_checkpoint_of_a_run_in_python(tmp_path: Path) -> None:
    shaped = Synthetic(image_shape=(3, 8, 9), image_size=(8, 8), channels=1, batch_size=500, seed=4)
    for module in (shaped, Digits(binarization="static", seed=4)):
        trainer(tmp_path, max_steps=1).fit(Recorder(), datamodule=module)
        stored = torch.load(tmp_path / "1.ckpt", weights_only=True)["datamodule_hyper_parameters"]
        assert stored["_class_path"] == f"{type(module).__module__}.{type(module).__name__}"
        rebuilt = type(module).load_from_checkpoint(tmp_path / "1.ckpt")
        assert rebuilt.image_shape == (1, 8, 8)
        assert torch.equal(everything(rebuilt.val_dataloader())[0], everything(module.val_dataloader())[0])
        (tmp_path / "1.ckpt").unlink()


def test_overfitting_repeats_the_same_batches(tmp_path: Path) -> None:
    model = Recorder()
    with pytest.warns(UserWarning, match="turning off the train dataloader shuffling"):
        trainer(tmp_path, max_epochs=2, overfit_batches=2).fit(model, datamodule=Digits())
    assert [value for epoch, value in model.seen if epoch == 0] == [value for epoch, value in model.seen if epoch == 1]
