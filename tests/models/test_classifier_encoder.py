"""A VAE whose encoder begins at a classifier's checkpoint, frozen or trained further: its checkpoint is complete."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from lit_gen.cli.command import main
from lit_gen.data import Synthetic
from lit_gen.models import VAE, Classifier, ClassifierEncoder, ConvVAE, load_model
from lit_gen.models.base import LitGenModule
from lit_gen.networks import ConvEncoder, Shape

SHAPE: Shape = (1, 8, 8)


def convolutions(input_shape: Shape, output_shape: Shape) -> ConvEncoder:
    return ConvEncoder(input_shape, output_shape, channels=(4, 8), batch_norm=True)


def fit(model: LitGenModule, folder: Path) -> Path:
    trainer = pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        inference_mode=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        max_epochs=2,
    )
    trainer.fit(model, Synthetic(image_shape=SHAPE, num_classes=3, num_train=30, num_val=10, batch_size=10))
    trainer.save_checkpoint(folder / f"{type(model).__name__}.ckpt")
    return folder / f"{type(model).__name__}.ckpt"


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return fit(Classifier(SHAPE, 3, num_features=6, network=convolutions), tmp_path)


def vae_on(classifier: Path, **arguments: Any) -> ConvVAE:
    return ConvVAE(SHAPE, 4, lambda i, o: ClassifierEncoder(i, o, str(classifier), **arguments))


def body_of(model: VAE) -> dict[str, Tensor]:
    assert isinstance(model.encoder, ClassifierEncoder)
    return {name: value.clone() for name, value in model.encoder.body.state_dict().items()}


def test_it_begins_with_the_features_of_the_classifier(classifier: Path) -> None:
    original, model = load_model(classifier), vae_on(classifier)
    assert isinstance(original, Classifier)
    images = torch.rand(5, *SHAPE)
    torch.testing.assert_close(model.eval().encoder.features(images), original.features(images))
    weights = original.state_dict()
    for name, value in body_of(model).items():
        assert torch.equal(value, weights[name])


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_is_left_alone_and_fine_tuned_is_trained(classifier: Path, tmp_path: Path, frozen: bool) -> None:
    model = vae_on(classifier, frozen=frozen)
    before, head = body_of(model), model.encoder.head.layers[0].weight.clone()
    stored = torch.load(fit(model, tmp_path), weights_only=True)
    changed = {name for name, value in body_of(model).items() if not torch.equal(value, before[name])}
    assert changed == (set() if frozen else set(before)), "running statistics of batch normalisation included"
    assert not torch.equal(model.encoder.head.layers[0].weight, head)
    assert not model.encoder.body.training or not frozen
    slots = len(stored["optimizer_states"][0]["param_groups"][0]["params"])
    assert slots == sum(parameter.requires_grad for parameter in model.parameters())
    assert frozen == (slots < len(list(model.parameters())))


def test_the_checkpoint_needs_no_other(classifier: Path, tmp_path: Path) -> None:
    model = vae_on(classifier, hidden_dims=[5])
    checkpoint = fit(model, tmp_path)
    classifier.unlink()
    loaded = load_model(checkpoint)
    assert isinstance(loaded, ConvVAE)
    images = torch.rand(3, *SHAPE)
    torch.testing.assert_close(loaded.encode(images).mean, model.eval().encode(images).mean)
    assert str(tmp_path) not in str(torch.load(checkpoint, weights_only=True)["hyper_parameters"])
    # And what it was loaded into can be saved, and loaded, again.
    again = load_model(fit(loaded.train(), tmp_path))
    assert isinstance(again, ConvVAE)
    assert isinstance(again.encoder, ClassifierEncoder)
    assert again.encoder.frozen


def test_the_command_line_needs_no_other(classifier: Path, tmp_path: Path) -> None:
    runs = str(tmp_path / "runs")
    data = ["--data=Synthetic", "--data.image_shape=[1,8,8]", "--data.num_train=20", "--data.num_val=10"]
    short = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    encoder = ["--model.encoder=ClassifierEncoder", f"--model.encoder.classifier={classifier}"]
    assert main(["fit", "--model=ConvVAE", *encoder, *data, *short, f"--trainer.default_root_dir={runs}"]) == 0
    classifier.unlink()
    assert main(["test", "--ckpt_path", runs, *short, f"--trainer.default_root_dir={runs}"]) == 0
    assert main(["sample", runs, "-n", "2", "-o", str(tmp_path / "out"), "--device", "cpu"]) == 0


def test_other_checkpoints_are_refused(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"trained on images of shape \(1, 8, 8\), these are \(3, 8, 8\)"):
        ClassifierEncoder((3, 8, 8), (4,), str(classifier))
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        ClassifierEncoder(SHAPE, (4,), str(tmp_path / "none.ckpt"))
    vae = fit(VAE(SHAPE, 2, convolutions), tmp_path)
    with pytest.raises(ValueError, match="holds a VAE; give the checkpoint of a Classifier"):
        ClassifierEncoder(SHAPE, (4,), str(vae))
