"""What all models inherit: one step for one batch, checkpoints, messages."""

import functools
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_gen.models import VAE, FusedAdam, load_model
from lit_gen.models.base import Conditional, GenerativeModel, LitGenModule
from lit_gen.models.checkpoint import check_trusted, plain, read_checkpoint
from lit_gen.networks import MLP, Network, Shape


class TwoOptimizers(LitGenModule):
    """Three steps of one optimizer for each batch, one of the other every second batch, none every fifth."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.first, self.second = nn.Linear(2, 1), nn.Linear(2, 1)
        self.logged: list[int] = []

    def training_step(self, batch: Any, batch_idx: int) -> None:
        with self.one_step() as (first, second):
            if batch_idx % 5 == 4:
                return
            for _ in range(3):
                first.zero_grad()
                self.manual_backward(self.first(batch[0]).square().mean())
                first.step()
            if batch_idx % 2:
                second.zero_grad()
                self.manual_backward(self.second(batch[0]).square().mean())
                second.step()
        if self.should_log:
            self.logged.append(batch_idx)
            self.log_training({"loss": torch.zeros(())})

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.first.parameters(), 0.1), torch.optim.SGD(self.second.parameters(), 0.1)]


def loader(shape: Shape = (2,), size: int = 40, batch: int = 4) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.rand(size, *shape).round(), torch.zeros(size)), batch)


def trainer(folder: Path, **arguments: Any) -> pl.Trainer:
    settings = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    settings["enable_checkpointing"] = "callbacks" in arguments
    return pl.Trainer(default_root_dir=folder, **{**settings, **arguments})


def test_one_batch_is_one_step_with_two_optimizers(tmp_path: Path) -> None:
    model = TwoOptimizers()
    checkpoints = ModelCheckpoint(tmp_path / "ckpt", filename="{step}", every_n_train_steps=3, save_top_k=-1)
    logger = CSVLogger(tmp_path, name="", version="log")
    run = trainer(tmp_path, max_steps=7, callbacks=[checkpoints], log_every_n_steps=2, logger=logger)
    run.fit(model, loader())
    assert run.global_step == 7
    assert sorted(path.name for path in (tmp_path / "ckpt").iterdir()) == ["step=3.ckpt", "step=6.ckpt"]
    assert model.logged == [1, 3, 5]
    steps = [int(line.split(",")[1]) for line in (tmp_path / "log" / "metrics.csv").read_text().split()[1:]]
    assert steps == [1, 3, 5]


class BetaVAE(VAE):
    """A user's variant with an argument of its own and one fixed."""

    def __init__(self, image_shape: Shape, beta: float = 4.0, **kwargs: Any) -> None:
        super().__init__(image_shape, kl_weight=beta, **kwargs)


@pytest.mark.parametrize(
    "make",
    [
        lambda: VAE((1, 4, 4), 3),
        lambda: VAE((1, 4, 4), 3, lambda i, o: MLP(i, o, hidden_dims=(5, 6)), optimizer=lambda p: FusedAdam(p, 0.1)),
        lambda: BetaVAE((1, 4, 4), 3.0, latent_dim=2),
    ],
)
def test_model_built_in_python_is_rebuilt_from_its_checkpoint(make: Any, tmp_path: Path) -> None:
    model = make()
    run = trainer(tmp_path, max_steps=2)
    run.fit(model, loader((1, 4, 4)))
    run.save_checkpoint(tmp_path / "model.ckpt")
    assert set(torch.load(tmp_path / "model.ckpt", weights_only=True)) >= {"state_dict", "hyper_parameters"}
    loaded = load_model(tmp_path / "model.ckpt")
    assert type(loaded) is type(model)
    assert not loaded.training
    assert isinstance(loaded, VAE)
    assert loaded.kl_weight == model.kl_weight
    torch.manual_seed(5)
    expected = model.eval().sample(3)
    torch.manual_seed(5)
    assert torch.equal(loaded.sample(3), expected)
    # A loaded model can be trained and stored again.
    run = trainer(tmp_path, max_steps=1)
    run.fit(loaded.train(), loader((1, 4, 4)))
    run.save_checkpoint(tmp_path / "again.ckpt")
    assert type(load_model(tmp_path / "again.ckpt")) is type(model)


def test_overrides_when_loading(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_steps=1)
    run.fit(VAE((1, 4, 4), 3), loader((1, 4, 4)))
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded = load_model(tmp_path / "model.ckpt", kl_weight=0.25)
    assert isinstance(loaded, VAE)
    assert loaded.kl_weight == 0.25
    with pytest.raises(ValueError, match="do not fit VAE"):
        load_model(tmp_path / "model.ckpt", latent_dim=4)


def test_unreadable_checkpoints_say_what_is_wrong(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_steps=1)
    run.fit(VAE((1, 4, 4), 3), loader((1, 4, 4)))
    run.save_checkpoint(tmp_path / "good.ckpt")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*bad\.ckpt.*good\.ckpt"):
        load_model(tmp_path / "bad.ckpt")
    (tmp_path / "short.ckpt").write_bytes((tmp_path / "good.ckpt").read_bytes()[:500])
    (tmp_path / "empty.ckpt").touch()
    for name in ("short.ckpt", "empty.ckpt"):
        with pytest.raises(ValueError, match="truncated"):
            load_model(tmp_path / name)
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="no state_dict"):
        load_model(tmp_path / "other.ckpt")
    torch.save({"state_dict": {}, "model": VAE((1, 4, 4), 3).encoder}, tmp_path / "pickled.ckpt")
    with pytest.raises(ValueError, match="could run code"):
        read_checkpoint(tmp_path / "pickled.ckpt")
    torch.save({"state_dict": {}, "hyper_parameters": {"width": 3}}, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match="does not name its model"):
        load_model(tmp_path / "foreign.ckpt")


def test_classes_outside_the_package_are_not_imported(tmp_path: Path) -> None:
    # `antigravity` opens a browser when it is imported: any module of a crafted file could do worse.
    crafted = {"state_dict": {}, "hyper_parameters": {"_class_path": "antigravity.Model"}}
    torch.save(crafted, tmp_path / "crafted.ckpt")
    with pytest.raises(ValueError, match="--import antigravity"):
        load_model(tmp_path / "crafted.ckpt")
    with pytest.raises(ValueError, match="--import evil"):
        check_trusted({"_class_path": "lit_gen.models.vae.VAE", "encoder": [{"class_path": "evil.Net"}]})


def test_arguments_that_cannot_be_stored_are_named(tmp_path: Path) -> None:
    class Odd(VAE):
        def __init__(self, image_shape: Shape, thing: object) -> None:
            super().__init__(image_shape)

    with pytest.raises(TypeError, match="argument thing of Odd"):
        trainer(tmp_path, max_steps=1, callbacks=[ModelCheckpoint(tmp_path)]).fit(
            Odd((1, 4, 4), object()), loader((1, 4, 4))
        )


def test_arguments_without_a_name_are_refused() -> None:
    class Loose(VAE):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)

    with pytest.raises(TypeError, match="give arguments by name"):
        Loose((1, 4, 4))
    assert Loose(image_shape=(1, 4, 4)).image_shape == (1, 4, 4)


def test_a_module_as_argument_is_refused() -> None:
    class Built(VAE):
        def __init__(self, image_shape: Shape, net: nn.Module) -> None:
            super().__init__(image_shape)

    with pytest.raises(TypeError, match="take a factory"):
        Built((1, 4, 4), nn.Linear(2, 2))


def test_precision_that_rounds_the_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="use bf16-mixed"):
        trainer(tmp_path, max_steps=1, precision="bf16-true").fit(VAE((1, 4, 4)), loader((1, 4, 4)))


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
def test_gradients_are_clipped_alike_in_fp16(precision: Any, tmp_path: Path) -> None:
    class Norm(pl.Callback):
        def __init__(self) -> None:
            self.norms: list[float] = []

        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            self.norms.append(torch.nn.utils.get_total_norm(p.grad for p in pl_module.parameters()).item())

    norm = Norm()
    model = VAE((1, 4, 4), 2)
    # On a CPU Lightning replaces fp16 by bf16, so the plugin is made by hand.
    fp16 = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=256.0))
    plugins = [fp16] if precision == "16-mixed" else []
    run = trainer(tmp_path, max_steps=4, callbacks=[norm], plugins=plugins, gradient_clip_val=0.5)
    run.fit(model, loader((1, 4, 4)))
    assert len(norm.norms) == 4
    # The hook runs before clipping, on gradients that are already unscaled: those of a loss of a dozen nats.
    assert all(1 < value < 100 for value in norm.norms), norm.norms
    reference = VAE((1, 4, 4), 2)
    assert not torch.equal(model.decoder.layers[0].weight, reference.decoder.layers[0].weight)


class Plateau(VAE):
    """Halves the learning rate when the validation loss stalls."""

    def __init__(self, image_shape: Shape) -> None:
        plateau = functools.partial(ReduceLROnPlateau, monitor="val/kl", patience=0, factor=0.5, threshold=1e9)
        super().__init__(image_shape, 2, lr_scheduler=plateau)


def test_plateau_scheduler_watches_what_it_names_and_waits_for_validation(tmp_path: Path) -> None:
    model = Plateau((1, 4, 4))
    run = trainer(tmp_path, max_epochs=6, check_val_every_n_epoch=2)
    run.fit(model, loader((1, 4, 4)), loader((1, 4, 4)))
    assert run.lr_scheduler_configs[0].monitor == "val/kl"
    assert run.optimizers[0].param_groups[0]["lr"] < 1e-3


def test_plain_values() -> None:
    network = MLP((2,), (3,), hidden_dims=(4,))
    assert plain({"a": (1, 2), "n": network, "p": Path("x")}) == {
        "a": [1, 2],
        "n": {
            "class_path": "lit_gen.networks.mlp.MLP",
            "init_args": {"hidden_dims": [4], "activation": "tanh", "batch_norm": False},
        },
        "p": "x",
    }


def test_wrong_image_size_is_said_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 4, 4\), the data gives \(3, 8, 8\); set data.image_size"):
        VAE((1, 4, 4)).training_step((torch.zeros(2, 3, 8, 8), None), 0)


class ByClass(GenerativeModel, Conditional):
    """Images whose brightness is their class."""

    condition_fields = {"class": int}

    def draw(self, num_samples: int, condition: Any = None) -> Tensor:
        return (condition / 9).reshape(-1, 1, 1, 1).expand(num_samples, *self.image_shape)

    def make_condition(self, fields: dict[str, Any], num_samples: int) -> Tensor:
        return torch.full((num_samples,), fields["class"])

    def sample_condition(self, num_samples: int) -> Tensor:
        return torch.arange(num_samples) % 10

    def target_condition(self, target: Any) -> Tensor:
        return target


def test_conditions() -> None:
    model = ByClass((1, 2, 2))
    assert model.sample(3)[:, 0, 0, 0].tolist() == pytest.approx([0, 1 / 9, 2 / 9])
    assert model.sample(2, torch.tensor([9, 9])).eq(1).all()
    with pytest.raises(ValueError, match="takes no condition"):
        VAE((1, 4, 4)).sample(2, torch.zeros(2))
    with pytest.raises(ValueError, match="at least 1"):
        VAE((1, 4, 4)).sample(0)


def test_samples_are_float32_under_bf16_weights() -> None:
    assert VAE((1, 4, 4)).to(torch.bfloat16).sample(2).dtype is torch.float32


def test_fused_adam_takes_the_steps_of_adam() -> None:
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    second.load_state_dict(first.state_dict())
    ours, theirs = FusedAdam(first.parameters(), 0.1), torch.optim.Adam(second.parameters(), 0.1)
    for _ in range(5):
        x = torch.randn(4, 3)
        for network, optimizer in ((first, ours), (second, theirs)):
            optimizer.zero_grad()
            network(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(first.weight, second.weight)


def test_networks_are_the_compiled_parts() -> None:
    model = VAE((1, 4, 4))
    assert model.compiled_parts() == [model.encoder, model.decoder]
    assert all(isinstance(part, Network) for part in model.compiled_parts())
