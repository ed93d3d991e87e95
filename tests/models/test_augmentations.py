"""Every change of DiffAugment: its values by hand, its gradient, and where a GAN applies it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lit_gen.models import DCGAN, GAN, R1, DiffAugment, FeatureMatching
from lit_gen.models.augmentations import brighten, change_contrast, cut_out, saturate, translate
from lit_gen.networks import MLP, Shape
from tests.callbacks.tiny import data, trainer

TWO = torch.arange(1.0, 17.0).view(2, 2, 2, 2)
"""Two images of two channels of 2x2 pixels: 1 to 4 and 5 to 8, 9 to 12 and 13 to 16."""
OPERATIONS = [
    lambda x: brighten(x, torch.tensor([0.5, -1.0], dtype=x.dtype)),
    lambda x: saturate(x, torch.tensor([0.0, 2.0], dtype=x.dtype)),
    lambda x: change_contrast(x, torch.tensor([0.5, 1.5], dtype=x.dtype)),
    lambda x: translate(x, torch.tensor([1, 0]), torch.tensor([0, -1])),
    lambda x: cut_out(x, torch.tensor([0, -1]), torch.tensor([1, 0]), (1, 2)),
]


def small(input_shape: Shape, output_shape: Shape) -> MLP:
    return MLP(input_shape, output_shape, hidden_dims=[8])


def test_brightness_is_added() -> None:
    changed = brighten(TWO, torch.tensor([0.5, -1.0]))
    assert changed[0, 0].tolist() == [[1.5, 2.5], [3.5, 4.5]]
    assert changed[1, 1].tolist() == [[12.0, 13.0], [14.0, 15.0]]


def test_saturation_goes_about_the_grey_of_each_pixel() -> None:
    changed = saturate(TWO, torch.tensor([0.0, 2.0]))
    assert changed[0, 0].tolist() == changed[0, 1].tolist() == [[3.0, 4.0], [5.0, 6.0]]
    assert changed[1, 0].tolist() == [[7.0, 8.0], [9.0, 10.0]]
    grey = torch.rand(2, 1, 4, 4)
    torch.testing.assert_close(saturate(grey, torch.tensor([0.0, 2.0])), grey)


def test_contrast_goes_about_the_mean_of_each_image() -> None:
    changed = change_contrast(TWO, torch.tensor([0.5, 1.5]))
    assert changed[0, 0].tolist() == [[2.75, 3.25], [3.75, 4.25]]
    assert changed[1, 1].tolist() == [[13.25, 14.75], [16.25, 17.75]]
    torch.testing.assert_close(changed.mean((1, 2, 3)), TWO.mean((1, 2, 3)))


def test_translation_brings_in_zeros() -> None:
    image = torch.arange(1.0, 7.0).view(1, 1, 2, 3).expand(3, 2, 2, 3)
    moved = translate(image, torch.tensor([1, 0, -2]), torch.tensor([-1, 2, 0]))
    assert moved[0, 0].tolist() == moved[0, 1].tolist() == [[0.0, 0.0, 0.0], [2.0, 3.0, 0.0]]
    assert moved[1, 0].tolist() == [[0.0, 0.0, 1.0], [0.0, 0.0, 4.0]]
    assert moved[2, 0].tolist() == [[0.0] * 3] * 2


def test_a_hole_may_lie_partly_outside() -> None:
    holed = cut_out(torch.ones(2, 2, 3, 4), torch.tensor([1, -1]), torch.tensor([2, 3]), (2, 2))
    assert holed[0, 1].tolist() == [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]
    assert holed[1, 0].tolist() == [[1.0, 1.0, 1.0, 0.0], [1.0] * 4, [1.0] * 4]


@pytest.mark.parametrize("operation", range(len(OPERATIONS)))
def test_every_operation_is_differentiable_twice(operation: int) -> None:
    x = TWO.double().requires_grad_()
    assert torch.autograd.gradcheck(OPERATIONS[operation], x)
    assert torch.autograd.gradgradcheck(OPERATIONS[operation], x)


def test_strengths_are_those_of_the_authors_program() -> None:
    torch.manual_seed(0)
    images = torch.full((4000, 1, 16, 16), 0.25)
    shifts = DiffAugment(translation=0, cutout=0)(images)[:, 0, 0, 0] - 0.25
    assert shifts.min().item() == pytest.approx(-0.5, abs=0.01)
    assert shifts.max().item() == pytest.approx(0.5, abs=0.01)
    marked = torch.zeros(4000, 1, 16, 16)
    marked[:, 0, 7, 7] = 1
    places = DiffAugment(color=False, cutout=0)(marked)[:, 0].nonzero()[:, 1:]
    assert len(places) == 4000
    # 12.5 % of 16 pixels, in all directions alike
    assert {tuple(place) for place in places.tolist()} == {(row, col) for row in range(5, 10) for col in range(5, 10)}
    kept = DiffAugment(color=False, translation=0)(torch.ones(4000, 1, 16, 16))
    holes = (kept == 0).sum((1, 2, 3))
    assert holes.max() == 64
    assert holes.min() == 16, "a hole about a corner"


def test_each_image_is_changed_in_its_own_way() -> None:
    changed = DiffAugment()(torch.rand(1, 3, 8, 8).expand(20, 3, 8, 8))
    assert changed.shape == (20, 3, 8, 8)
    assert len(changed.flatten(1).unique(dim=0)) == 20


class Counting(DiffAugment):
    """Notes how many images it has changed."""

    seen: list[int]

    def __call__(self, images: Tensor) -> Tensor:
        self.seen = [*vars(self).get("seen", []), len(images)]
        return super().__call__(images)


def test_both_turns_see_changed_images_and_evaluation_does_not(tmp_path: Path) -> None:
    model = GAN((1, 8, 8), 3, "normal", small, small, regularizer=R1, augmentation=Counting)
    trainer(tmp_path, limit_train_batches=1, limit_val_batches=1).fit(model, data())
    assert isinstance(model.augmentation, Counting)
    # Images, generated ones and the penalty's images for the discriminator; generated ones for the generator.
    assert model.augmentation.seen == [10, 10, 10, 10]
    images = torch.rand(3, 1, 8, 8)
    model.eval()
    assert torch.equal(model.discriminate(images), model.discriminate(images))
    model.train()
    assert not torch.equal(model.discriminate(images), model.discriminate(images))


def test_the_generator_learns_through_the_changes() -> None:
    model = DCGAN((1, 8, 8), 3, "normal", small, small, augmentation=DiffAugment)
    model.generator_loss(model.fakes(torch.zeros(6, 1, 8, 8))).sum().backward()
    assert all(part.grad is not None and part.grad.abs().sum() > 0 for part in model.generator.parameters())


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"translation and cutout are parts of the image's side, in \[0, 1\), got 2"):
        DiffAugment(translation=2)
    with pytest.raises(ValueError, match="would change nothing"):
        DiffAugment(color=False, translation=0, cutout=0)


# ---- feature matching


def test_distances_of_means_by_hand() -> None:
    real = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    fake = torch.tensor([[0.0, 1.0], [0.0, 3.0], [3.0, 5.0]])  # means 2, 3 and 1, 3
    assert FeatureMatching("0")(real, fake).tolist() == [1.0] * 3
    assert FeatureMatching("0", "absolute", 3.0)(real, fake + 1).tolist() == [1.5] * 3


def test_the_generator_follows_the_features_alone(tmp_path: Path) -> None:
    model = GAN((1, 8, 8), 3, "normal", small, small, feature_matching=lambda: FeatureMatching("layers.1"))
    images, fakes = torch.rand(5, 1, 8, 8), torch.rand(5, 1, 8, 8, requires_grad=True)
    hidden = model.discriminator.layers[:2]
    wanted = (hidden(images.flatten(1)).mean(0) - hidden(fakes.flatten(1)).mean(0)).square().sum()
    loss = model.generator_objective(images, fakes)
    torch.testing.assert_close(loss, wanted.expand(5))
    ours, theirs = (torch.autograd.grad(value, fakes)[0] for value in (loss.mean(), wanted))
    torch.testing.assert_close(ours, theirs)
    run = trainer(tmp_path)
    run.fit(model, data())
    assert run.callback_metrics["val/generator_loss"] > 0
    assert model.discriminator not in model.compiled_parts()


def test_feature_matching_is_checked() -> None:
    with pytest.raises(ValueError, match="distance must be squared or absolute, got 'cosine'"):
        FeatureMatching("0", "cosine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weight must be positive, got 0"):
        FeatureMatching("0", weight=0)
    with pytest.raises(ValueError, match="the MLP has no layer 'top'"):
        GAN((1, 8, 8), 3, "normal", small, small, feature_matching=lambda: FeatureMatching("top"))
