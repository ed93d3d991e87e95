"""Networks of torchvision as encoders, without any download."""

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from jsonargparse import ArgumentParser
from torchvision.models import ResNet18_Weights, resnet18
from torchvision.models._api import WeightsEnum

from lit_gen.models import ConvVAE
from lit_gen.networks import TorchvisionEncoder


def encoder(shape: tuple[int, int, int] = (3, 32, 32), **arguments: Any) -> TorchvisionEncoder:
    torch.manual_seed(0)
    return TorchvisionEncoder(shape, (6,), "resnet18", **{"weights": None, **arguments})


def test_features_are_those_before_the_last_layer(tmp_path: Path) -> None:
    torch.manual_seed(1)
    original = resnet18(weights=None).eval()
    torch.save(original.state_dict(), tmp_path / "resnet18.pth")
    ours = encoder(weights=str(tmp_path / "resnet18.pth")).eval()
    images = torch.rand(2, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (images - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(original.fc(ours.features(images)), original(normalised))
    assert ours(images).shape == (2, 6)
    assert str(tmp_path) not in str(ours.specification())


def test_grey_images_are_three_equal_channels_and_sizes_are_changed_on_request() -> None:
    grey, colour = encoder((1, 16, 12)).eval(), encoder((3, 16, 12)).eval()
    images = torch.rand(2, 1, 16, 12)
    torch.testing.assert_close(grey.features(images), colour.features(images.expand(-1, 3, -1, -1)))
    larger = encoder((1, 16, 12), shorter_side=24).eval()
    seen: list[torch.Size] = []
    larger.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    larger.features(images)
    assert seen == [(2, 3, 32, 24)]


def test_a_frozen_body_stays_as_it_is_in_training() -> None:
    frozen, tuned = encoder().train(), encoder(frozen=False).train()
    for network in (frozen, tuned):
        before = {name: value.clone() for name, value in network.body.state_dict().items()}
        network(torch.rand(4, 3, 32, 32)).sum().backward()
        statistics = {name for name, value in network.body.state_dict().items() if not torch.equal(value, before[name])}
        learning = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
        assert bool(statistics) == (network is tuned)
        assert learning == {name for name, _ in network.named_parameters() if network is tuned or "head" in name}
    assert frozen.head.training


def test_unknown_names_are_answered_with_the_known() -> None:
    with pytest.raises(ValueError, match="no weights 'V7' of resnet18; it has IMAGENET1K_V1, DEFAULT"):
        encoder(weights="V7")
    with pytest.raises(ValueError, match=r"no network 'resnet17'.* resnet18"):
        TorchvisionEncoder((3, 32, 32), (6,), "resnet17", None)
    with pytest.raises(FileNotFoundError, match=r"no file of weights none\.pth"):
        encoder(weights="none.pth")


def test_a_download_that_fails_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(self: WeightsEnum, *args: Any, **kwargs: Any) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", unreachable)
    url = ResNet18_Weights.DEFAULT.url
    with pytest.raises(FileNotFoundError, match=rf"could not be downloaded .* fetch {url} .* name the file"):
        encoder(weights="DEFAULT")


def test_null_on_the_command_line_starts_at_random() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ConvVAE, "model")
    words = ["--model=lit_gen.models.ConvVAE", "--model.image_shape=[1,32,32]"]
    words += ["--model.encoder=lit_gen.networks.TorchvisionEncoder", "--model.encoder.weights=null"]
    model = parser.instantiate_classes(parser.parse_args(words)).model
    assert isinstance(model.encoder, TorchvisionEncoder)
    assert model.encoder.specification(2)["init_args"]["weights"] is None


def test_weights_and_images_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="are not those of resnet18"):
        encoder(weights=str(tmp_path / "other.pth"))
    (tmp_path / "broken.pth").write_bytes(b"not a file of torch")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        encoder(weights=str(tmp_path / "broken.pth"))
    with pytest.raises(ValueError, match=r"takes grey or colour images .* got \(4, 32, 32\)"):
        encoder((4, 32, 32))
    with pytest.raises(ValueError, match="set shorter_side to the size that it was trained on"):
        TorchvisionEncoder((3, 8, 8), (6,), "alexnet", None)
