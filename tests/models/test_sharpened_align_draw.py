"""Sharpened alignDRAW: the alignDRAW stays as it is, the pyramid is LAPGAN's, and captions count."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn

from lit_gen.cli.command import main
from lit_gen.data import CaptionedDigits
from lit_gen.models import AlignDRAW, SharpenedAlignDRAW, load_model
from lit_gen.models.base import LitGenModule
from lit_gen.networks import PlaneDiscriminator, PlaneGenerator, Shape
from lit_gen.networks.laplacian import laplacian_pyramid

SHAPE: Shape = (1, 12, 12)
WORDS = CaptionedDigits()
CAPTIONS = ["the digit 3 is at the top of the digit 7 .", "the digit 4 is at the bottom left of the image ."]


def scenes() -> CaptionedDigits:
    return CaptionedDigits(image_size=12, num_train=40, num_val=10, num_test=10, batch_size=10)


def narrow(planes: Shape, image: Shape) -> PlaneGenerator:
    return PlaneGenerator(planes, image, channels=[4], kernel_sizes=[3, 3])


def narrow_critic(image: Shape, logit: Shape) -> PlaneDiscriminator:
    return PlaneDiscriminator(image, logit, channels=4)


def quiet(folder: Path) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        inference_mode=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        max_epochs=2,
    )


def fit(model: LitGenModule, path: Path) -> Path:
    run = quiet(path.parent)
    run.fit(model, scenes())
    run.save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def drawer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = AlignDRAW(SHAPE, WORDS.vocabulary, WORDS.captions, 3, 4, 12)
    return fit(model, tmp_path_factory.mktemp("drawer") / "drawer.ckpt")


def sharpener(checkpoint: Path | str, **arguments: Any) -> SharpenedAlignDRAW:
    networks = {"generator": narrow, "discriminator": narrow_critic}
    return SharpenedAlignDRAW(SHAPE, WORDS.vocabulary, str(checkpoint), WORDS.captions, **{**networks, **arguments})


def lively(model: SharpenedAlignDRAW) -> SharpenedAlignDRAW:
    """With weights large enough for every part to matter."""
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in model.sharpener.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("blurred", ["pyramid", "reconstruction"])
def test_training_never_moves_the_align_draw(drawer: Path, tmp_path: Path, blurred: str) -> None:
    model = sharpener(drawer, blurred=blurred)
    trained, networks = weights_of(load_model(drawer)), weights_of(model.sharpener) | weights_of(model.critic)
    stored = torch.load(fit(model, tmp_path / "model.ckpt"), weights_only=True)
    for name, value in trained.items():
        assert torch.equal(stored["state_dict"][f"drawer.{name}"], value)
    assert all(parameter.grad is None for parameter in model.drawer.parameters())
    assert not any(part.training for part in model.drawer.modules())
    assert model.sharpener.training
    moved = weights_of(model.sharpener) | weights_of(model.critic)
    assert not any(torch.equal(value, networks[name]) for name, value in moved.items())
    slots = [sum(len(group["params"]) for group in state["param_groups"]) for state in stored["optimizer_states"]]
    assert slots == [len(list(part.parameters())) for part in (model.critic, model.sharpener)]


def test_the_checkpoint_needs_no_other(drawer: Path, tmp_path: Path) -> None:
    copy = tmp_path / "moved.ckpt"
    copy.write_bytes(drawer.read_bytes())
    model = sharpener(copy)
    path = fit(model, tmp_path / "model.ckpt")
    copy.unlink()
    assert str(copy).encode() not in path.read_bytes()
    loaded, original = load_model(path), load_model(drawer)
    assert isinstance(loaded, SharpenedAlignDRAW)
    assert isinstance(original, AlignDRAW)
    captions = original.make_captions(CAPTIONS)
    drawn = []
    for one in (original, loaded.drawer):
        torch.manual_seed(1)
        drawn.append(one.sample(2, captions))
    assert torch.equal(*drawn)
    torch.manual_seed(1)
    assert torch.equal(loaded.sample(2, captions), loaded.sharpen(drawn[0], captions))


def test_blurred_images_are_what_a_level_of_the_pyramid_lacks(drawer: Path) -> None:
    images = torch.rand(3, *SHAPE)
    for size, sizes in ((None, [(12, 12), (6, 6)]), (4, [(12, 12), (4, 4)])):
        model = sharpener(drawer, coarse_size=size)
        residual, _ = laplacian_pyramid(images, sizes)
        torch.testing.assert_close(model.blur(images, None) + residual, images)
    torch.testing.assert_close(model.blur(torch.full((1, *SHAPE), 0.3), None), torch.full((1, *SHAPE), 0.3))


def test_reconstructions_are_the_align_draws(drawer: Path) -> None:
    model, original, images = sharpener(drawer, blurred="reconstruction"), load_model(drawer), torch.rand(2, *SHAPE)
    captions = model.make_captions(CAPTIONS)
    assert isinstance(original, AlignDRAW)
    assert torch.equal(model.blur(images, captions), original.reconstruct(images, captions))


def test_sum_of_blurred_image_and_what_the_generator_gives(drawer: Path) -> None:
    model, images = lively(sharpener(drawer)), torch.rand(2, *SHAPE)
    captions = model.make_captions(CAPTIONS)
    sentences = model.drawer.sentence_encoder(*captions).summary
    plane = torch.relu(sentences @ model.sharpener.plane.weight.T + model.sharpener.plane.bias).view(2, *SHAPE)
    planes = torch.cat([torch.zeros(2, *SHAPE), 2 * images - 1, plane], 1)
    wanted = (images + model.generator(planes)).clamp(0, 1)
    torch.testing.assert_close(model.sharpen(images, captions), wanted)
    assert not torch.equal(model.sharpen(images, captions), images)
    with torch.no_grad():
        for parameter in model.generator.parameters():
            parameter.zero_()
    torch.testing.assert_close(model.sharpen(images, captions), images)


def test_captions_count(drawer: Path) -> None:
    model, image = lively(sharpener(drawer)), torch.rand(1, *SHAPE).expand(2, -1, -1, -1)
    one, other = model.sharpen(image, model.make_captions(CAPTIONS))
    assert not torch.allclose(one, other)
    again, same = model.sharpen(image, model.make_captions(2 * CAPTIONS[:1]))
    torch.testing.assert_close(again, same)
    torch.testing.assert_close(again, one)


def test_noise_of_samples(drawer: Path) -> None:
    image, captions = torch.rand(1, *SHAPE), WORDS.captions[:1]
    model = lively(sharpener(drawer))
    condition = model.make_captions(captions)
    assert torch.equal(model.sharpen(image, condition), model.sharpen(image, condition))
    assert not torch.equal(model.sharpen(image, condition, random=True), model.sharpen(image, condition, random=True))


def test_last_frames_are_before_and_after(drawer: Path) -> None:
    model = lively(sharpener(drawer))
    captions = model.make_captions(CAPTIONS)
    torch.manual_seed(2)
    *_, before, after = model.trajectory(2, captions)
    torch.manual_seed(2)
    assert torch.equal(model.drawer.sample(2, captions), before.images)
    torch.manual_seed(2)
    assert torch.equal(model.sample(2, captions), after.images)
    assert before.weights is not None
    assert after.weights is None


def test_the_average_sharpens_samples(drawer: Path, tmp_path: Path) -> None:
    model = sharpener(drawer, ema_decay=0.5)
    fit(model, tmp_path / "model.ckpt")
    images, captions = torch.rand(2, *SHAPE), model.make_captions(CAPTIONS)
    averaged = model.eval().sharpen(images, captions)
    model.average = None
    assert not torch.equal(model.sharpen(images, captions), averaged)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_shape": (1, 16, 16)}, r"images of shape \(1, 12, 12\), these are \(1, 16, 16\); take the data"),
        ({"vocabulary": ["<pad>", "a"]}, "knows 23 words, the data has another vocabulary of 2; take the captions"),
        ({"vocabulary": []}, "conditioned on captions, the data has none"),
        ({"blurred": "gaussian"}, "blurred must be pyramid or reconstruction, got 'gaussian'"),
        ({"coarse_size": 12}, r"coarse_size must lie in 1\.\.11, below the shorter side of the image, got 12"),
    ],
)
def test_refuses(drawer: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SharpenedAlignDRAW(
            **{"image_shape": SHAPE, "vocabulary": WORDS.vocabulary, "align_draw": str(drawer), **arguments}
        )


def test_needs_a_trained_align_draw(drawer: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no trained alignDRAW .* 'nowhere\.ckpt'.*--model\.align_draw PATH"):
        sharpener("nowhere.ckpt")
    path = fit(sharpener(drawer), tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match=r"holds a SharpenedAlignDRAW, not an AlignDRAW; .*--model\.align_draw PATH"):
        sharpener(path)


def test_command_line(drawer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data=CaptionedDigits", "--data.image_size=12", "--data.num_train=20", "--data.num_val=10"]
    words += ["--data.num_test=10", "--data.batch_size=10", "--model=SharpenedAlignDRAW"]
    words += [f"--trainer.default_root_dir={tmp_path}", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
    words += ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    small = ["--model.generator.channels=[4,4]", "--model.discriminator.channels=4"]
    missing = str(tmp_path / "missing")
    assert main(["fit", *words, *small, f"--model.align_draw={missing}"]) == 1
    error = capsys.readouterr().err
    assert "there is no trained alignDRAW to sharpen the images of" in error
    assert missing in error
    assert main(["fit", *words, *small, f"--model.align_draw={drawer}"]) == 0
    run = next(path.parent for path in tmp_path.glob("*/hparams.yaml"))
    assert f"align_draw: {drawer}" in (run / "hparams.yaml").read_text()
    checkpoint = next(tmp_path.glob("*/checkpoints/last.ckpt"))
    assert main(["test", "--ckpt_path", str(checkpoint), "--trainer.enable_progress_bar=false"]) == 0
    assert main(["sample", str(checkpoint), "--prompt", CAPTIONS[0], "-n", "2", "-o", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").glob("*.png"))) >= 3
