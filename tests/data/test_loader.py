"""Order, sharding, resume and noise of batches."""

import math

import pytest
import torch
from torch import Tensor

from lit_gen.data.loader import BatchLoader, BatchTransform, ResidentImages, derived_seed

PLAIN = BatchTransform()
NOISY = BatchTransform(binarization="stochastic", horizontal_flip=True)


def numbered(total: int) -> ResidentImages:
    """Images whose every pixel is their number."""
    return ResidentImages(torch.arange(total, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 2, 2))


def numbers(loader: BatchLoader) -> list[list[int]]:
    return [(images[:, 0, 0, 0] * 255).round().int().tolist() for images, _ in loader]


def loader(total: int = 10, batch_size: int = 4, transform: BatchTransform = PLAIN, **options: object) -> BatchLoader:
    return BatchLoader(numbered(total), torch.arange(total), batch_size, transform, **options)  # type: ignore[arg-type]


def equal(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, other, strict=True)
    )


def test_batches_hold_every_image_once_with_its_target() -> None:
    batches = list(loader(shuffle=True))
    assert [len(images) for images, _ in batches] == [4, 4, 2]
    for images, targets in batches:
        assert images.dtype == torch.float32
        assert targets.dtype == torch.int64
        torch.testing.assert_close(images[:, 0, 1, 1], targets / 255)
    assert sorted(torch.cat([targets for _, targets in batches]).tolist()) == list(range(10))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    first = loader(shuffle=True)
    order = numbers(first)
    assert numbers(first) == order  # the same epoch again
    first.set_epoch(1)
    assert numbers(first) != order
    first.set_epoch(0)
    assert numbers(first) == order
    assert numbers(loader(shuffle=True, seed=1)) != order
    assert numbers(loader()) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_no_targets() -> None:
    (images, targets), *_ = BatchLoader(numbered(3), None, 3, PLAIN)
    assert images.shape == (3, 1, 2, 2)
    assert targets is None


@pytest.mark.parametrize("total", [1, 2, 3, 7, 12, 13, 100])
@pytest.mark.parametrize("batch_size", [1, 3, 5, 200])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_sharding(total: int, batch_size: int, world_size: int) -> None:
    def ranks(split: str, training: bool | None = None) -> list[list[list[int]]]:
        options: dict[str, object] = {"split": split, "training": training, "world_size": world_size}
        options["shuffle"] = split == "train" and training is None
        loaders = [loader(total, batch_size, rank=rank, **options) for rank in range(world_size)]
        batches = [numbers(loader) for loader in loaders]
        assert [len(batch) for batch in batches] == [len(loader) for loader in loaders]
        assert all(0 < len(batch) <= batch_size for rank in batches for batch in rank)
        return batches

    train = ranks("train")
    assert len({tuple(len(batch) for batch in rank) for rank in train}) == 1, "ranks in step, batch by batch"
    seen = [number for rank in train for batch in rank for number in batch]
    assert set(seen) == set(range(total))
    assert len(seen) == math.ceil(total / world_size) * world_size

    val = ranks("val")
    assert ranks("train", training=False) == val
    assert sorted(number for rank in val for batch in rank for number in batch) == list(range(total))
    if total >= world_size * math.ceil(total / (world_size * batch_size)):
        assert len({len(rank) for rank in val}) == 1


def test_ranks_differ_in_noise() -> None:
    grey = ResidentImages(torch.full((8, 1, 4, 4), 128, dtype=torch.uint8))
    one, other = (next(iter(BatchLoader(grey, None, 4, NOISY, rank=rank, world_size=2)))[0] for rank in (0, 1))
    assert not torch.equal(one, other)


@pytest.mark.parametrize("done", [0, 1, 2])
def test_resume_gives_the_rest_of_the_epoch_and_the_next(done: int) -> None:
    whole = loader(40, 15, NOISY, shuffle=True)
    whole.set_epoch(3)
    batches = list(whole)
    whole.set_epoch(4)
    following = list(whole)

    stopped = loader(40, 15, NOISY, shuffle=True)
    stopped.set_epoch(3)
    passing = iter(stopped)
    for _ in range(done):
        next(passing)
    state = stopped.state_dict()
    assert state == {"epoch": 3, "batch": done}

    resumed = loader(40, 15, NOISY, shuffle=True)
    iter(resumed)  # Lightning looks whether it can be iterated
    resumed.load_state_dict(state)
    iter(resumed)
    resumed.set_epoch(3)
    assert equal(list(resumed), batches[done:])
    assert equal(list(resumed), batches), "a resume position is used once"
    resumed.set_epoch(4)
    assert equal(list(resumed), following)


def test_state_of_a_finished_epoch_starts_the_next_one_whole() -> None:
    stopped = loader(shuffle=True)
    list(stopped)
    resumed = loader(shuffle=True)
    resumed.load_state_dict(stopped.state_dict())
    resumed.set_epoch(1)
    assert len(list(resumed)) == 3


def test_noise_is_stateless_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    val = loader(40, 15, NOISY, split="val")
    first = list(val)
    next(iter(val))  # a sanity check that looks at one batch only
    assert equal(list(val), first)
    assert "sampler" not in vars(val), "Lightning must not change the epoch of an evaluation"

    train = loader(40, 15, NOISY)
    assert train.sampler is train
    epoch0 = list(train)
    train.set_epoch(1)
    assert not equal(list(train), epoch0), "training noise is drawn anew in every epoch"
    assert not equal(first, epoch0)
    assert torch.equal(before, torch.get_rng_state())


def test_derived_seed_tells_all_parts_apart() -> None:
    seeds = {derived_seed(seed, split, batch) for seed in (0, 1) for split in ("train", "val") for batch in range(50)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(0, "train", 1) == 219968077643412045, "the same on every machine and in every version"


def test_stochastic_binarization_has_the_grey_level_as_mean() -> None:
    levels = torch.tensor([0, 1, 64, 128, 200, 254, 255], dtype=torch.uint8)
    images = levels.view(-1, 1, 1, 1).expand(-1, 2, 200, 200)
    drawn = BatchTransform(binarization="stochastic")(images, torch.Generator().manual_seed(0))
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    p = levels / 255
    deviation = (drawn.mean((1, 2, 3)) - p).abs()
    assert (deviation <= 4.5 * (p * (1 - p) / 80_000).sqrt()).all()  # exactly 0 and 1 at the ends
    assert not torch.equal(drawn[3, 0], drawn[3, 1]), "channels are drawn one by one"


def test_threshold_binarization() -> None:
    images = torch.tensor([0, 127, 128, 255], dtype=torch.uint8).view(1, 1, 2, 2)
    assert BatchTransform(binarization="threshold")(images, torch.Generator()).flatten().tolist() == [0, 0, 1, 1]


def test_dequantization_is_uniform_within_each_level_and_below_one() -> None:
    levels = torch.tensor([0, 100, 255], dtype=torch.uint8)
    images = levels.view(-1, 1, 1, 1).expand(-1, 1, 1000, 1000)
    values = BatchTransform(dequantize=True)(images, torch.Generator().manual_seed(0)).flatten(1) * 256
    assert values.max() < 256
    rest = values - levels[:, None]
    assert (rest >= 0).all()
    assert (rest <= 1).all()
    torch.testing.assert_close(rest.mean(1), torch.full((3,), 0.5), atol=2e-3, rtol=0)
    torch.testing.assert_close(rest.var(1), torch.full((3,), 1 / 12), atol=1e-3, rtol=0)


def test_horizontal_flip_mirrors_half_of_the_images() -> None:
    images = torch.arange(6, dtype=torch.uint8).view(1, 1, 2, 3).repeat(4000, 1, 1, 1)
    flipped = BatchTransform(horizontal_flip=True)(images, torch.Generator().manual_seed(0)) * 255
    mirrored = torch.isclose(flipped, images.flip(-1).float()).flatten(1).all(1)
    kept = torch.isclose(flipped, images.float()).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert abs(mirrored.float().mean() - 0.5) < 4.5 * 0.5 / 4000**0.5


def test_resident_images_must_be_bytes() -> None:
    with pytest.raises(ValueError, match=r"uint8 \(N, C, H, W\), or voxels.*got torch.float32"):
        ResidentImages(torch.zeros(2, 1, 3, 3))
