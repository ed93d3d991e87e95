"""Scores as callbacks of a run."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch.utils.data import DataLoader

from lit_gen.callbacks import BestAndLast, GenerationMetrics, ImportanceBound, evaluation
from lit_gen.callbacks.metrics import SEED_STRIDE
from lit_gen.metrics import ClassifierFeatures, Pixels, Receipt, SmallSampleWarning, frechet_distance
from lit_gen.models import GAN, VAE, Classifier
from lit_gen.models.base import GenerativeModel
from lit_gen.networks import ConvEncoder, Shape
from tests.callbacks.tiny import SHAPE, data, small, trainer, vae
from tests.linear_gaussian import LOG_P, LinearGaussianVAE, X


def classifier() -> Classifier:
    def network(input_shape: Shape, output_shape: Shape) -> ConvEncoder:
        return ConvEncoder(input_shape, output_shape, channels=(4,))

    return Classifier(SHAPE, 3, num_features=6, network=network)


def moments(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    flat = images.double().flatten(1)
    return flat.mean(0), flat.T.cov()


def test_values_are_those_of_the_samples_and_the_test_images(tmp_path: Path) -> None:
    measure = GenerationMetrics("pixels", ["fid", "precision_recall"], batch_size=4, seed=3)
    model, run = vae(), trainer(tmp_path, measure)
    run.fit(model, data())
    (result,) = run.test(model, data(), verbose=False)
    module = data()
    module.setup("test")
    real = torch.cat([images for images, _ in module.test_dataloader()])
    drawn = []
    for batch_idx in range(2):
        with evaluation(model, 3 + SEED_STRIDE * batch_idx):
            drawn += [model.sample(4), model.sample(4), model.sample(2)]
    expected = frechet_distance(*moments(real), *moments(torch.cat(drawn)))
    assert result["test/fid"] == pytest.approx(expected.item(), rel=1e-4)
    assert {"test/precision", "test/recall"} <= result.keys()


def test_reconstructions_are_measured_instead(tmp_path: Path) -> None:
    model, run = vae(), trainer(tmp_path, GenerationMetrics("pixels", ["fid"], of="reconstructions"))
    run.fit(model, data())
    (result,) = run.test(model, data(), verbose=False)
    module = data()
    module.setup("test")
    real = torch.cat([images for images, _ in module.test_dataloader()])
    expected = frechet_distance(*moments(real), *moments(model.eval().reconstruct(real)))
    assert result["test/fid"] == pytest.approx(expected.item(), rel=1e-4)
    content = json.loads((tmp_path / "receipts" / "test.json").read_text())
    assert content["scores"][0]["split"].endswith("[test], reconstructed")


def test_training_images_may_be_the_real_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    extract = Pixels.extract
    monkeypatch.setattr(Pixels, "extract", lambda self, images: seen.append(len(images)) or extract(self, images))
    measure = GenerationMetrics("pixels", ["fid"], num_samples=30, batch_size=30, real="train")
    model, run, module = vae(), trainer(tmp_path, measure, max_epochs=3), data(horizontal_flip=True)
    run.fit(model, module)
    assert sum(seen) == 60 + 3 * 30, "the training images pass through the extractor once"
    (result,) = run.test(model, module, verbose=False)
    real = torch.cat([images for images, _ in data(horizontal_flip=False, seed=1).reference_dataloader()])
    with evaluation(model, 0):
        expected = frechet_distance(*moments(real), *moments(model.sample(30)))
    assert result["test/fid"] == pytest.approx(expected.item(), rel=1e-4)
    receipts = [
        Receipt.from_dict(json.loads((tmp_path / "receipts" / f"{stage}.json").read_text())["scores"][0])
        for stage in ("val", "test")
    ]
    for receipt in receipts:
        assert (receipt.num_real, receipt.num_generated) == (60, 30)
        assert receipt.split == f"{module.protocol} [train, not augmented]"


def test_without_a_number_there_are_as_many_samples_as_training_images(tmp_path: Path) -> None:
    for metrics, number in ((["fid"], 60), (["inception_score"], 20)):
        measure = GenerationMetrics("pixels", metrics, real="train")  # type: ignore[arg-type]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lit_gen.callbacks.metrics.make_extractor", lambda *_: ClassifierFeatures(classifier()))
            trainer(tmp_path, measure).test(vae(), data(), verbose=False)
        scores = json.loads((tmp_path / "receipts" / "test.json").read_text())["scores"]
        assert scores[0]["num_generated"] == number


def test_what_cannot_be_measured_is_said() -> None:
    with pytest.raises(ValueError, match="real must be evaluation or train, got 'test'"):
        GenerationMetrics("pixels", real="test")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="leave real out, got 'train'"):
        GenerationMetrics("pixels", of="reconstructions", real="train")
    with pytest.raises(TypeError, match=r"needs a data module with a reference_dataloader.*got Growing"):
        trainer(Path(), GenerationMetrics("pixels", real="train")).test(vae(), Growing(8), verbose=False)
    loader = Growing(8).test_dataloader()
    with pytest.raises(TypeError, match="got none: set `real` to evaluation"):
        trainer(Path(), GenerationMetrics("pixels", real="train")).test(vae(), loader, verbose=False)
    with pytest.raises(ValueError, match="of must be samples or reconstructions, got 'pixels'"):
        GenerationMetrics("pixels", of="pixels")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="leave num_samples out, got 5"):
        GenerationMetrics("pixels", of="reconstructions", num_samples=5)
    with pytest.raises(TypeError, match="GAN reconstructs nothing: set `of` to samples"):
        GenerationMetrics("pixels", of="reconstructions").setup(trainer(Path()), GAN(SHAPE), "fit")


def test_receipts_lie_in_the_run_folder(tmp_path: Path) -> None:
    run = trainer(tmp_path, GenerationMetrics("pixels", ["fid"], num_samples=15, batch_size=4, seed=7))
    model = vae()
    run.fit(model, data())
    (result,) = run.test(model, data(), verbose=False)
    content = json.loads((tmp_path / "receipts" / "test.json").read_text())
    receipt = Receipt.from_dict(content["scores"][0])
    assert receipt.value == pytest.approx(result["test/fid"])
    assert (receipt.num_real, receipt.num_generated) == (20, 15)
    assert receipt.split == f"{data().protocol} [test]"
    assert "20 test" in receipt.split
    assert "binarization threshold" in receipt.split
    assert receipt.extractor == Pixels(SHAPE).digest()
    assert (content["step"], content["seed"]) == (6, 7)
    (score,) = json.loads((tmp_path / "receipts" / "val.json").read_text())["scores"]
    assert score["split"] == f"{data().protocol} [val]"


class Growing(pl.LightningDataModule):
    """Knows how many images it has only once it is set up, as a folder does."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count, self.protocol = count, "Growing: unknown"

    def setup(self, stage: str) -> None:
        self.protocol = f"Growing: {self.count} test"

    def test_dataloader(self) -> DataLoader[Any]:
        torch.manual_seed(self.count)
        return DataLoader([(torch.rand(SHAPE), 0) for _ in range(self.count)], batch_size=4)


def test_receipts_of_unlike_data_do_not_compare(tmp_path: Path) -> None:
    def receipt(test_data: Any) -> Receipt:
        trainer(tmp_path, GenerationMetrics("pixels", ["fid"], num_samples=8)).test(vae(), test_data, verbose=False)
        return Receipt.from_dict(json.loads((tmp_path / "receipts" / "test.json").read_text())["scores"][0])

    module, measure = Growing(8), GenerationMetrics("pixels", ["fid"], num_samples=8)
    run = trainer(tmp_path, measure)
    for count in (8, 6):  # one callback, whose data change between two tests
        module.count = count
        run.test(vae(), module, verbose=False)
        split = json.loads((tmp_path / "receipts" / "test.json").read_text())["scores"][0]["split"]
        assert split == f"Growing: {count} test [test]"
    ours, other = receipt(data()), receipt(data(binarization="none"))
    assert ours.unlike(other).keys() == {"split"}
    assert ours.unlike(receipt(data())) == {}
    assert receipt(Growing(8).test_dataloader()).split == "data [test]"


def test_generators_of_the_accelerator_are_forked_before_the_model_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """In ``setup`` the model is still on the CPU."""

    class Strategy:
        root_device = torch.device("cuda", 1)

    class Run:
        strategy = Strategy()
        datamodule = None

    devices: list[torch.device] = []

    def forked(device: torch.device, seed: int) -> Any:
        devices.append(device)
        return nullcontext()

    monkeypatch.setattr("lit_gen.callbacks.metrics.forked_generators", forked)
    GenerationMetrics("pixels").setup(Run(), vae(), "fit")  # type: ignore[arg-type]
    assert devices == [torch.device("cuda", 1)]


def test_weights_of_inception_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str | None] = []

    def inception(weights_path: str | None = None) -> Pixels:
        asked.append(weights_path)
        return Pixels(SHAPE)

    pytest.importorskip("torch_fidelity")
    with pytest.raises(FileNotFoundError, match=r"no Inception weights at .*nowhere\.pth"):
        trainer(tmp_path, GenerationMetrics("inception:nowhere.pth")).test(vae(), data(), verbose=False)
    monkeypatch.setattr("lit_gen.callbacks.metrics.InceptionV3", inception)
    for features in ("inception", "inception:a:b/weights.pth"):
        trainer(tmp_path, GenerationMetrics(features, ["fid"])).test(vae(), data(), verbose=False)
    assert asked == [None, "a:b/weights.pth"]


@pytest.mark.parametrize("num_samples", [3, 5])
def test_too_few_samples_for_neighbours_cost_these_scores_alone(num_samples: int, tmp_path: Path) -> None:
    measure = GenerationMetrics("pixels", ["fid", "precision_recall", "density_coverage"], num_samples=num_samples)
    with pytest.warns(SmallSampleWarning, match="are left out: with k="):
        (result,) = trainer(tmp_path, measure).test(vae(), data(), verbose=False)
    kept = {name for name in result if name.split("/")[1] in ("fid", "precision", "recall", "density", "coverage")}
    assert kept == ({"test/fid"} if num_samples == 3 else {"test/fid", "test/precision", "test/recall"})
    assert "test/loss" in result


def test_a_checkpoint_can_be_chosen_by_a_score(tmp_path: Path) -> None:
    keeper = BestAndLast("val/fid")
    run = trainer(tmp_path, GenerationMetrics("pixels", ["fid"]), keeper, max_epochs=2)
    run.fit(vae(), data())
    assert keeper.best_model_score is not None
    assert keeper.best_model_score.isfinite()


def test_measured_every_n_epochs_and_in_the_last(tmp_path: Path) -> None:
    class Seen(pl.Callback):
        epochs: list[int] = []

        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if "val/fid" in trainer.logged_metrics:
                self.epochs.append(trainer.current_epoch)

    seen = Seen()
    trainer(tmp_path, GenerationMetrics("pixels", ["fid"], every_n_epochs=2), seen, max_epochs=5).fit(vae(), data())
    assert seen.epochs[:1] == [1]
    assert 0 not in seen.epochs
    assert 4 in seen.epochs


def test_real_features_of_validation_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    extract = Pixels.extract
    monkeypatch.setattr(Pixels, "extract", lambda self, images: seen.append(len(images)) or extract(self, images))
    trainer(tmp_path, GenerationMetrics("pixels", ["fid"], stages=["val"]), max_epochs=3).fit(vae(), data())
    assert sum(seen) == 20 + 3 * 20
    scores = json.loads((tmp_path / "receipts" / "val.json").read_text())["scores"]
    assert (scores[0]["num_real"], scores[0]["num_generated"]) == (20, 20)


def test_a_classifier_as_extractor_stays_out_of_the_model(tmp_path: Path) -> None:
    features = classifier()
    run = trainer(tmp_path)
    run.fit(features, data())
    path = tmp_path / "classifier.ckpt"
    run.save_checkpoint(path)
    torch.manual_seed(0)
    plain = vae()
    trainer(tmp_path).fit(plain, data())
    torch.manual_seed(0)
    measured = vae()
    run = trainer(tmp_path, GenerationMetrics(str(path), ["fid", "inception_score"]))
    run.fit(measured, data())
    assert run.callback_metrics["val/fid"].isfinite()
    assert run.callback_metrics["val/inception_score"] >= 1
    assert {name for name, _ in measured.named_parameters()} == {name for name, _ in plain.named_parameters()}
    for name, value in plain.state_dict().items():
        assert torch.equal(value, measured.state_dict()[name]), f"measuring changed {name}"
    run.save_checkpoint(tmp_path / "measured.ckpt")
    assert torch.load(tmp_path / "measured.ckpt")["state_dict"].keys() == plain.state_dict().keys()


@pytest.mark.parametrize("averaging_first", [True, False])
def test_averaged_weights_are_measured(averaging_first: bool, tmp_path: Path) -> None:
    """With a decay of 1 the average stays at the initial weights, whatever training does."""
    measure = GenerationMetrics("pixels", ["fid"])
    model = vae(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05))
    averaging = EMAWeightAveraging(decay=1.0, update_starting_at_step=0)
    callbacks = [averaging, measure] if averaging_first else [measure, averaging]
    values = []

    class Seen(pl.Callback):
        def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if not trainer.sanity_checking:
                values.append(float(trainer.callback_metrics["val/fid"]))

    trainer(tmp_path, *callbacks, Seen(), max_epochs=3).fit(model, data())
    # The first update copies the weights after the first step; from then on the average stands still.
    assert values[0] == values[1] == values[2]


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint 'nothing\.ckpt'"):
        trainer(tmp_path, GenerationMetrics("nothing.ckpt")).fit(vae(), data())
    with pytest.raises(ValueError, match="stages must be one or both of val and test"):
        GenerationMetrics(stages=["train"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="Classifier draws none: leave it out"):
        trainer(tmp_path, GenerationMetrics("pixels")).fit(classifier(), data())
    with pytest.raises(TypeError, match="Classifier has none: leave it out"):
        trainer(tmp_path, ImportanceBound()).fit(classifier(), data())


def test_bound_approaches_the_log_likelihood(tmp_path: Path) -> None:
    loader = DataLoader([(X[0], 0)] * 4, batch_size=3)
    (result,) = trainer(tmp_path, ImportanceBound(20000)).test(LinearGaussianVAE(), loader, verbose=False)
    assert result["test/log_likelihood_iw20000"] == pytest.approx(LOG_P, abs=0.005)


def test_bound_is_averaged_over_images_not_batches(tmp_path: Path) -> None:
    class Sized(VAE):
        def lower_bound(self, images: torch.Tensor, num_samples: int = 1, condition: Any = None) -> torch.Tensor:
            return torch.full((len(images),), -float(len(images)))

    run = trainer(tmp_path, ImportanceBound(5, ["val", "test"]))
    run.fit(Sized(SHAPE, 2, small, small), data(num_val=16))
    # 10 images at -10 and 6 at -6.
    assert run.callback_metrics["val/log_likelihood_iw5"] == pytest.approx(-(100 + 36) / 16)
    assert issubclass(Sized, GenerativeModel)
