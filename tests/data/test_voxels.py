"""Bits in memory and the made furniture."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import label

from lit_gen.data import SyntheticShapes
from lit_gen.data.synthetic_shapes import BOX, CLASSES, ROUND, Solid, build, make_shapes
from lit_gen.data.voxels import PackedVoxels, pack
from tests.data.common import everything


def test_bits_give_back_the_voxels() -> None:
    voxels = np.random.default_rng(0).random((9, 3, 5, 7)) < 0.5  # 105 voxels: not a whole number of bytes
    source = PackedVoxels(torch.from_numpy(pack(voxels)), (3, 5, 7))
    assert (len(source), source.nbytes) == (9, 9 * 14)
    batches = [torch.tensor([4, 0]), torch.tensor([8])]
    for indices, given in zip(batches, source.fetch(batches), strict=True):
        assert given.dtype == torch.uint8
        assert np.array_equal(given.numpy(), 255 * voxels[indices.numpy()][:, None])
    (taken,) = source.take(torch.tensor([2, 3])).fetch([torch.tensor([1])])
    assert np.array_equal(taken[0, 0].numpy() > 0, voxels[3])


def test_bits_must_fit_the_shape() -> None:
    with pytest.raises(ValueError, match=r"voxels of \(3, 5, 7\) must be uint8 \(N, 14\).*got torch.uint8 \(2, 13\)"):
        PackedVoxels(torch.zeros(2, 13, dtype=torch.uint8), (3, 5, 7))


def test_a_box_and_a_cylinder_have_their_volumes() -> None:
    box = Solid(0, 0, 0, 12.0, 24.0, 6.0, BOX)
    (upright, turned) = build([box], torch.tensor([0.0, torch.pi / 2]), 30)
    assert upright.sum() == 24 * 6 * 12
    assert upright[3:27, 12:18, 9:21].all()
    assert torch.equal(turned, upright.transpose(0, 1))
    (cylinder,) = build([Solid(0, 0, 0, 24.0, 20.0, 20.0, ROUND)], torch.zeros(1), 60)
    assert cylinder.sum() == pytest.approx(torch.pi * 20**2 * 48, rel=0.01)
    (tub,) = build([box, Solid(0, 0, 4.0, 99.0, 22.0, 4.0, carve=True)], torch.zeros(1), 30)
    assert tub.sum() == 24 * 6 * 12 - 22 * 4 * 8


def test_rotation_is_counter_clockwise_seen_from_above() -> None:
    arm, post = Solid(6.0, 0, 0, 2.0, 12.0, 2.0), Solid(0, 0, 0, 12.0, 2.0, 2.0)
    upright, turned = build([arm, post], torch.tensor([0.0, torch.pi / 2]), 30)
    assert np.array_equal(np.rot90(upright.numpy(), axes=(0, 1)), turned.numpy())


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("size", [30, 16])
def test_shapes_are_whole_centred_and_of_one_size(name: str, size: int) -> None:
    voxels, _ = make_shapes(36, size, [name])
    extent = size - 2 * (size // 10)
    for shape in voxels:
        edges = []
        for axis in range(3):
            (filled,) = shape.any(axis=tuple({0, 1, 2} - {axis})).nonzero()
            edges.append((filled[0], filled[-1] + 1))
        assert max(high - low for low, high in edges) in (extent - 1, extent)
        assert all(abs(low + high - size) <= 2 for low, high in edges), "centred by its bounding box"
    if size == 30:
        parts = [label(shape, np.ones((3, 3, 3)))[1] for shape in voxels]
        assert Counter(parts)[1] >= 35, "all in one piece"
    assert len({shape.tobytes() for shape in voxels}) > 30


def test_shapes_are_functions_of_number_and_seed() -> None:
    voxels, labels = make_shapes(30, 16)
    longer, more = make_shapes(50, 16)
    assert np.array_equal(voxels, longer[:30])
    assert torch.equal(labels, more[:30])
    assert not np.array_equal(voxels, make_shapes(30, 16, seed=1)[0])
    assert make_shapes(30, 16, rotations=1)[0].sum() != voxels.sum()


def test_data_module() -> None:
    data = SyntheticShapes(size=16, classes=["table", "chair"], num_train=20, num_val=10, num_test=10, batch_size=6)
    assert (data.image_shape, data.num_classes, data.class_names) == ((1, 16, 16, 16), 2, ("table", "chair"))
    images, targets = everything(data.train_dataloader())
    assert set(images.unique().tolist()) == {0, 1}
    assert images.shape == (20, 1, 16, 16, 16)
    assert Counter(targets.tolist()) == {0: 10, 1: 10}
    splits = [everything(loader)[0] for loader in (data.train_dataloader(), data.val_dataloader())]
    assert not {image.numpy().tobytes() for image in splits[0]} & {image.numpy().tobytes() for image in splits[1]}
    assert "classes table, chair; 12 rotations" in data.protocol
    again = SyntheticShapes(size=16, classes=["table", "chair"], num_train=20, seed=1, binarization="static")
    assert again.num_train == 20
    assert torch.equal(everything(again.train_dataloader())[0].sum(0), images.sum(0)), "the seed only orders them"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 6}, "size must be at least 8 voxels"),
        ({"classes": ["chair", "throne"]}, "different ones of bathtub, bed.*; throne is unknown"),
        ({"classes": ["chair", "chair"]}, r"got \['chair', 'chair'\]"),
        ({"rotations": 0}, "num_train and rotations must be at least 1"),
        ({"image_size": 32}, "image_size.*is for pictures; SyntheticShapes gives voxels"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticShapes(**options)
