"""Objects from known classes and directions."""

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from lit_gen.callbacks import HeldOutViews
from lit_gen.cli.command import main
from lit_gen.data import Synthetic, SyntheticChairs
from lit_gen.models import ChairGenerator, FusedAdam, NoTransformation, PublishedTransformation
from lit_gen.models.chairs import TransformedViews, two_stream_loss
from lit_gen.networks import Shape, UpConvNetwork
from lit_gen.views import Views, ViewTarget, encode_view

SHAPE = (3, 16, 16)


def small(input_shape: Shape, output_shape: Shape) -> UpConvNetwork:
    return UpConvNetwork(input_shape, output_shape, 16, 64, [24, 16], [16, 8])


def chairs(classes: int = 3, **arguments: object) -> ChairGenerator:
    torch.manual_seed(0)
    return ChairGenerator(SHAPE, classes, network=small, **arguments).eval()  # type: ignore[arg-type]


def view(classes: Tensor, azimuth: float = 0.3, elevation: float = 0.2) -> Views:
    angle = torch.full((len(classes),), azimuth)
    return Views(classes, angle, torch.full_like(angle, elevation))


def test_views_are_encoded_by_sine_and_cosine() -> None:
    azimuth = torch.arange(31).repeat(2) * (2 * math.pi / 31)
    elevation = torch.tensor([20.0, 30.0]).repeat_interleave(31).deg2rad()
    codes = encode_view(azimuth, elevation)
    torch.testing.assert_close(codes[:, 0] ** 2 + codes[:, 1] ** 2, torch.ones(62))
    torch.testing.assert_close(codes[:, 2] ** 2 + codes[:, 3] ** 2, torch.ones(62))
    torch.testing.assert_close(encode_view(azimuth + 2 * math.pi, elevation), codes, atol=2e-6, rtol=0)
    distances = torch.cdist(codes, codes) + 9 * torch.eye(62)
    assert distances.min() > 0.1, "62 different views"


def test_morphs_end_at_the_classes() -> None:
    model = chairs()
    weights = torch.tensor([[0.0, 1, 0], [0.0, 0, 1], [0.0, 0.5, 0.5]])
    mixed, pure = model.render_views(view(weights)), model.render_views(view(torch.tensor([1, 2, 0])))
    for found, wanted in zip(mixed, pure):
        assert torch.equal(found[:2], wanted[:2])
        assert not torch.equal(found[2], wanted[0])


def test_a_square_root_of_k_times_the_error_is_k_times_its_share() -> None:
    torch.manual_seed(0)
    image, mask, true, true_mask = torch.rand(4, 5, 3, 4, 4)
    true_mask = true_mask[:, :1]
    masked = true * true_mask
    one = two_stream_loss(image, mask, true, true_mask, 10.0, 1.0)
    more = two_stream_loss(masked + 3 * (image - masked), mask, true, true_mask, 10.0, 1.0)
    torch.testing.assert_close(more.image_error, 9 * one.image_error)
    torch.testing.assert_close(one.loss, 10 * one.image_error + one.mask_error)
    by_hand = 0.5 * sum(float((image[0, c] - true[0, c] * true_mask[0, 0]).square().sum()) for c in range(3))
    assert float(one.image_error[0]) == pytest.approx(by_hand)


def test_without_a_transformation_the_target_is_the_masked_image() -> None:
    images, masks = torch.rand(2, 3, 16, 16), torch.rand(2, 1, 16, 16)
    target = ViewTarget(torch.tensor([0, 1]), torch.zeros(2), torch.zeros(2), masks)
    for transformation in (NoTransformation, PublishedTransformation):
        model = chairs(transformation=transformation)
        parameters = torch.zeros(2, model.transformation.num_parameters)
        image, mask = model.generate(target.views)
        terms = model.objective(images, target, parameters)
        error = 0.5 * (image - images * masks).square().sum((1, 2, 3))
        torch.testing.assert_close(terms.image_error, error)
        torch.testing.assert_close(terms.mask_error, 0.5 * (mask - masks).square().sum((1, 2, 3)))


def test_samples_lie_on_white() -> None:
    model = chairs()
    condition = view(torch.arange(3))
    image, copies = model.generate(condition)
    mask = copies.mean(1, keepdim=True).clamp(0, 1)
    torch.testing.assert_close(model.sample(3, condition), (image * mask + 1 - mask).clamp(0, 1))


def test_generation_is_differentiable_in_all_that_is_given() -> None:
    model = chairs()
    given = [torch.full((1, 3), 1 / 3), torch.tensor([0.4]), torch.tensor([0.1]), torch.full((1, 9), 0.1)]
    given = [part.requires_grad_() for part in given]
    image, mask = model.generate(Views(*given[:3]), given[3])
    for gradient in torch.autograd.grad((image + mask).square().sum(), given):
        assert gradient.abs().sum() > 0


def test_conditions() -> None:
    model = chairs(views=[(40.0, 20.0), (80.0, 30.0)])
    full = model.make_condition({"class": 2, "azimuth": 90.0, "elevation": 20.0}, 4)
    assert full.classes.tolist() == 4 * [2]
    assert full.azimuth.tolist() == pytest.approx(4 * [math.pi / 2])
    seen = {(round(math.degrees(a)), round(math.degrees(e))) for _, a, e in zip(*(p.tolist() for p in full))}
    assert seen == {(90, 20)}
    drawn = model.make_condition({"class": 1}, 50)
    assert drawn.classes.tolist() == 50 * [1]
    pairs = {(round(a), round(e)) for a, e in zip(drawn.azimuth.rad2deg().tolist(), drawn.elevation.rad2deg().tolist())}
    assert pairs == {(40, 20), (80, 30)}
    assert set(model.sample_condition(50).classes.tolist()) == {0, 1, 2}
    for fields, message in (
        ({"class": 3}, r"class must lie in 0..2, got 3"),
        ({"elevation": 95.0}, r"elevation must lie in -90..90"),
        ({"azimuth": math.inf}, "azimuth must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            model.make_condition(fields, 1)


def test_transformations_are_conditions() -> None:
    model = chairs(transformation=lambda: PublishedTransformation(zoom=0.3, hue=0, length=12))
    named = {"mirror": 1, "translation_x": 0.1, "rotation": -0.15, "zoom": 1.2, "lightness": 0.8}
    condition = model.make_condition({"class": 2, "azimuth": 90.0, "elevation": 20.0, **named}, 3)
    wanted = torch.zeros(3, 12)
    wanted[:, :7] = torch.tensor([1, 0.1, 0, -0.15, math.log(1.2), 0, math.log(0.8)])
    assert isinstance(condition, TransformedViews)
    torch.testing.assert_close(condition.parameters, wanted)
    torch.testing.assert_close(
        model.sample(3, condition), model.render_views(condition.views, wanted).images, atol=0, rtol=0
    )
    assert not torch.equal(model.sample(3, condition), model.sample(3, condition.views))
    neutral = dict.fromkeys(("zoom", "squeeze", "lightness", "saturation"), 1.0)
    still = model.make_condition({"class": 2, **neutral, "mirror": 0, "hue": 0.0, "translation_y": 0.0}, 1)
    assert isinstance(still, TransformedViews)
    assert not still.parameters.any()
    assert isinstance(model.make_condition({"zoom": 1.35}, 1), TransformedViews), "the bound as messages show it"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rotation": 0.3}, r"rotation must lie in -0\.2\.\.0\.2, as training has it; got 0\.3"),
        ({"zoom": 1.4}, r"zoom must lie in 0\.7408\.\.1\.35, as training has it; got 1\.4"),
        ({"zoom": -1.0}, r"zoom must lie in"),
        ({"squeeze": math.nan}, r"squeeze must lie in"),
        ({"mirror": 2}, r"mirror must be 0 or 1"),
        ({"mirror": 0.5}, r"mirror must be 0 or 1"),
        ({"hue": 0.1}, r"hue must be 0, as training has it; got 0\.1"),
        ({"twist": 1.0}, r"twist is unknown to this ChairGenerator, it takes class, azimuth, .*, hue"),
    ],
)
def test_impossible_transformations_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chairs(transformation=lambda: PublishedTransformation(hue=0)).make_condition(fields, 1)


def test_a_model_without_transformations_has_no_such_conditions() -> None:
    assert set(chairs(transformation=NoTransformation).condition_fields) == {"class", "azimuth", "elevation"}


def test_targets_without_views_are_refused() -> None:
    with pytest.raises(ValueError, match="must be views with masks, got a tensor"):
        chairs().target_condition(torch.zeros(3).long())
    with pytest.raises(ValueError, match="the data has no classes"):
        ChairGenerator(SHAPE, 0)
    with pytest.raises(ValueError, match="image_weight and mask_weight must be positive"):
        ChairGenerator(SHAPE, 2, image_weight=0)


def trainer(folder: Path, **arguments: object) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return pl.Trainer(default_root_dir=folder, inference_mode=False, **quiet, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
def test_half_precision(tmp_path: Path, precision: Any) -> None:
    data = SyntheticChairs(3, grid=12, azimuths=4, held_out_every=2, image_size=16, batch_size=16)
    model = chairs(transformation=lambda: PublishedTransformation(ramp=None))
    before = [part.clone() for part in model.parameters()]
    run = trainer(tmp_path, max_epochs=1, enable_checkpointing=False, precision=precision, callbacks=[HeldOutViews()])
    run.fit(model, data)
    assert all(part.isfinite().all() for part in model.parameters())
    assert not all(torch.equal(old, new) for old, new in zip(before, model.cpu().float().parameters()))
    (results,) = run.test(model, data, verbose=False)
    assert all(map(math.isfinite, results.values()))
    assert {"test/loss", "test/view_psnr", "test/nearest_view_psnr", "test/interpolated_view_psnr"} <= set(results)


def test_a_few_views_are_learned_by_heart() -> None:
    data = SyntheticChairs(2, grid=16, azimuths=6, held_out_every=0, image_size=16, batch_size=24)
    images, target = next(iter(data.train_dataloader()))
    model = chairs(2, transformation=NoTransformation, optimizer=lambda p: FusedAdam(p, lr=5e-3))
    optimizer = model.configure_optimizers()
    for _ in range(400):
        loss = model.objective(images, target, torch.zeros(24, 0)).loss.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    image, mask = model.generate(target.views)
    wanted = images * target.mask
    assert (image - wanted).square().mean() < 0.1 * wanted.square().mean()
    assert (mask - target.mask).square().mean() < 0.1 * target.mask.square().mean()


def test_sampling_from_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = ["--data=SyntheticChairs", "--data.num_objects=4", "--data.azimuths=4", "--data.grid=12"]
    data += ["--data.image_size=16", "--data.held_out_every=2", "--data.batch_size=8"]
    network = ["--model.network.branch_dim=4", "--model.network.joint_dim=4", "--model.network.image_channels=[4]"]
    words = ["--model=ChairGenerator", *network, "--model.network.mask_channels=[4]", *data]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"]
    assert main(["fit", *words, *quiet, "--trainer.max_epochs=1", "--default_callbacks=false"]) == 0
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    sample = ["sample", str(checkpoint), "-n", "2", "--device", "cpu"]
    assert main([*sample, "-o", "one", "--condition", "class=3", "azimuth=40", "elevation=20"]) == 0
    assert (tmp_path / "one" / "000001.png").read_bytes() == (tmp_path / "one" / "000000.png").read_bytes()
    assert main([*sample, "-o", "any"]) == 0
    view = ["class=3", "azimuth=40", "elevation=20"]
    assert main([*sample, "-o", "turned", "--condition", *view, "rotation=0.1", "zoom=1.2"]) == 0
    assert (tmp_path / "turned" / "000000.png").read_bytes() != (tmp_path / "one" / "000000.png").read_bytes()
    capsys.readouterr()
    assert main([*sample, "-o", "far", "--condition", *view, "rotation=3"]) != 0
    assert "rotation must lie in -0.2..0.2, as training has it; got 3" in capsys.readouterr().err
    assert main([*sample, "-o", "far", "--condition", "rotate=1"]) != 0
    assert "takes class=<int>, azimuth=<float>, elevation=<float>, mirror=<int>," in capsys.readouterr().err


def test_images_without_views_are_refused_in_training(tmp_path: Path) -> None:
    data = Synthetic(image_shape=SHAPE, num_classes=3, num_train=8, num_val=4, num_test=4, batch_size=4)
    with pytest.raises(ValueError, match="must be views with masks"):
        trainer(tmp_path, max_epochs=1, enable_checkpointing=False).fit(chairs(), data)
