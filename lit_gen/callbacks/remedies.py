"""What may help a training, by options that the model at hand has."""

import inspect

import lightning.pytorch as pl
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lit_gen.models.base import HasDiscriminator, LitGenModule
from lit_gen.models.checkpoint import stored_hyperparameters


def either(hints: list[str], last: str = "or") -> str:
    """Hints as one clause: ``a, b, or c``."""
    return hints[0] if len(hints) == 1 else f"{', '.join(hints[:-1])}, {last} {hints[-1]}"


def clipping(model: pl.LightningModule) -> list[str]:
    """How gradients are clipped in training, where they can be."""
    if model.automatic_optimization:
        return ["clip gradients (--trainer.gradient_clip_val 1)"]
    # The trainer refuses to clip for several optimizers: each has a bound of its own.
    names = [name for name in inspect.signature(type(model).__init__).parameters if name.endswith("_clip")]
    return [f"clip gradients ({' '.join(f'--model.{name} 1' for name in names)})"] if names else []


class Remedies:
    """What to try when a game between networks goes wrong: a sentence of options, each of which the model takes.

    Args:
        model: the adversarial model.
    """

    def __init__(self, model: LitGenModule) -> None:
        self._model = model
        self._names = inspect.signature(type(model).__init__).parameters
        self._stored = stored_hyperparameters(model)

    def against_collapse(self) -> str:
        """Of a generator that draws few images over and over."""
        hints = self._penalty()
        if self._part("discriminator").get("minibatch_deviation") is False:
            hints.append("a discriminator that sees a batch vary (--model.discriminator.minibatch_deviation true)")
        if "feature_matching" in self._names and self._stored.get("feature_matching") is None:
            layer = "--model.feature_matching FeatureMatching --model.feature_matching.layer LAYER"
            hints.append(f"a generator that matches what a layer of the discriminator sees ({layer})")
        hints += self._rate("generator", "lower")
        if "discriminator_steps" in self._names:
            hints.append("more discriminator steps (--model.discriminator_steps 2)")
        return _sentence(hints)

    def against_victory(self) -> str:
        """Of a discriminator that is far ahead."""
        hints, loss = self._penalty(), str(self._stored.get("loss"))
        if "Minimax" in loss:
            hints.append("a loss with a gradient where the discriminator is sure (--model.loss NonSaturating)")
        elif "NonSaturating" in loss and self._part("loss").get("real_target") == 1:
            hints.append("smoothed labels (--model.loss NonSaturating --model.loss.real_target 0.9)")
        if "augmentation" in self._names and self._stored.get("augmentation") is None:
            hints.append("images changed at random where there are few of them (--model.augmentation DiffAugment)")
        return _sentence([*hints, *self._rate("discriminator", "lower")])

    def against_slopes(self) -> str:
        """Of a Wasserstein critic without a bound on its slope."""
        hints = self._penalty()
        if self._part("discriminator").get("spectral_norm") is False:
            hints.append("spectral normalisation (--model.discriminator.spectral_norm true)")
        return _sentence(hints)

    def against_sleep(self) -> str:
        """Of a discriminator that says the same of all images."""
        return _sentence(["larger initial weights", *self._rate("discriminator", "higher")])

    def _part(self, name: str) -> dict[str, object]:
        """The arguments of a network or another part."""
        part = self._stored.get(name)
        arguments = part.get("init_args") if isinstance(part, dict) else None
        return arguments if isinstance(arguments, dict) else {}

    def _penalty(self) -> list[str]:
        if "regularizer" not in self._names:
            return []
        if self._stored.get("regularizer") is not None:
            return ["a larger weight of the regularizer"]
        hints = ["a penalty on gradients (--model.regularizer R1)"]
        if "loss" in self._names and self._takes_wasserstein():
            layer = " --model.discriminator.norm layer" if self._part("discriminator").get("norm") == "batch" else ""
            options = f"--model.loss Wasserstein --model.regularizer GradientPenalty{layer}"
            hints.append(f"a Wasserstein critic with one ({options})")
        return hints

    def _takes_wasserstein(self) -> bool:
        """Whether a Wasserstein critic with a gradient penalty is refused by nothing else that the model has."""
        judges = [getattr(self._model, name, None) for name in ("discriminator", "discriminators", "critic")]
        layers = [layer for judge in judges if isinstance(judge, nn.Module) for layer in judge.modules()]
        normalised = any(isinstance(layer, _BatchNorm) for layer in layers)
        if normalised and self._part("discriminator").get("norm") != "batch":
            return False  # no option takes the batch normalisation away
        return isinstance(self._model, HasDiscriminator) and self._model.takes_critic()

    def _rate(self, player: str, how: str) -> list[str]:
        option = f"{player}_optimizer"
        return [f"a {how} learning rate of the {player} (--model.{option}.lr)"] if option in self._names else []


def _sentence(hints: list[str]) -> str:
    return f"Try {either(hints)}." if hints else ""
