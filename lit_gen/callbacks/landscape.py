"""What training does to the free energies of images and of dreams."""

from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_gen.callbacks.charts import Chart, Color, Panel, ticks
from lit_gen.callbacks.evaluation import FirstBatchCallback, positive
from lit_gen.callbacks.logging import log_image
from lit_gen.callbacks.trajectory import spread
from lit_gen.models.base import Dreams, HasFreeEnergy

IMAGES: Color = (31, 119, 180)
DREAMS: Color = (225, 105, 20)
BINS = 30


class Look(NamedTuple):
    """Free energies in nats above the mean of the images, in one epoch."""

    epoch: int
    images: Tensor
    """(N,) of images."""
    dreams: Tensor
    """(N,) of draws from the model."""
    way: Tensor
    """(steps, N) from each image to a dream."""


def between(start: Tensor, end: Tensor, steps: int, binary: bool) -> Tensor:
    """States on the way from one batch to another.

    Binary pixels are exchanged one after another in random order, so that every state on the way is binary, and a draw
    that mixes both ends pixel by pixel. Others go along the straight line.

    Args:
        start: ``(N, ...)``.
        end: ``(N, ...)``.
        steps: states on the way, both ends among them.
        binary: whether pixels are 0 or 1.

    Returns:
        ``(steps, N, ...)``.
    """
    weights = torch.linspace(0, 1, steps, device=start.device)
    moments = torch.rand_like(start)  # in [0, 1): at weight 1 every pixel has been exchanged
    if binary:
        return torch.stack([torch.where(moments < weight, end, start) for weight in weights])
    return torch.stack([torch.lerp(start, end, weight.to(start)) for weight in weights])


class EnergyLandscape(FirstBatchCallback):
    """Draws how training digs valleys for the images and hills elsewhere, as ``val/`` and ``test/energy_landscape``.

    On the left the free energies of images and of dreams (draws from the model's own long chains), epoch below epoch.
    In a good model the two lie upon each other; dreams far to the left are beliefs that training has not met.
    On the right the mean free energy on the way from an image to a dream (:func:`between`), with the middle 80 % of all
    pairs in the last epoch: the barrier that a chain would have to cross. All are in nats above the mean of the images
    in the same epoch, since the constant of the free energy changes in training.

    Args:
        num_images: images of the first batch, and as many dreams.
        steps: states on the way from an image to a dream.
        rows: epochs shown; of more an even selection, with the first and the last.
        every_n_epochs: act in every n-th epoch of a fit, and in the last.
        seed: of the dreams.
    """

    capability = HasFreeEnergy

    def __init__(
        self, num_images: int = 100, steps: int = 25, rows: int = 8, every_n_epochs: int = 5, seed: int = 0
    ) -> None:
        super().__init__(every_n_epochs, seed)
        self.num_images = positive("num_images", num_images)
        if steps < 2 or rows < 2:
            raise ValueError(f"steps and rows must be at least 2, got {steps} and {rows}")
        self.steps = steps
        self.rows = rows
        self._looks: list[Look] = []

    def applies(self, pl_module: pl.LightningModule) -> bool:
        return super().applies(pl_module) and isinstance(pl_module, Dreams)

    def state_dict(self) -> dict[str, Any]:
        return {"looks": [tuple(look) for look in self._looks]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._looks = [Look(*look) for look in state_dict["looks"]]

    def show(self, trainer: pl.Trainer, model: Any, stage: str, images: Tensor, condition: Any) -> None:
        look = self._look(trainer.current_epoch, model, images[: self.num_images])
        looks = [look]
        if stage == "val":
            looks = [*self._looks, look]
            if len(looks) > 4 * self.rows:
                looks = [*looks[:-1:2], look]
            self._looks = looks
        log_image(trainer, f"{stage}/energy_landscape", draw([looks[place] for place in spread(len(looks), self.rows)]))

    def _look(self, epoch: int, model: Any, images: Tensor) -> Look:
        states = between(images, model.dream(len(images)).to(images), self.steps, model.needs_binary)
        way = torch.stack([model.free_energy(state) for state in states]).double().cpu()
        way = way - way[0].mean()
        return Look(epoch, way[0], way[-1], way)


def draw(looks: list[Look]) -> Tensor:
    """One picture of several epochs, the newest last: ``(3, H, W)`` in [0, 1]."""
    chart = Chart(1000, 110 + max(300, 62 * len(looks)))
    bottom = chart.size[1] - 50
    low, high = _range(torch.cat([torch.cat([look.images, look.dreams]) for look in looks]))
    edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64)
    left = Panel(chart, (90, 50, 490, bottom), (low, high), (0, len(looks)))
    left.x_ticks(ticks(low, high))
    chart.text((290, bottom + 34), "free energy, nats above the images' mean", anchor="mm")
    chart.text((90, 25), "images", IMAGES, size=16)
    chart.text((165, 25), "dreams", DREAMS, size=16)
    for row, look in enumerate(looks):
        base = len(looks) - 1 - row
        counts = [torch.histogram(values.clamp(low, high), edges).hist for values in (look.images, look.dreams)]
        largest = torch.cat(counts).max()
        for count, color in zip(counts, (IMAGES, DREAMS), strict=True):
            # A staircase: two points for each bin.
            xs = edges.repeat_interleave(2).tolist()
            ys = [base, *(base + 0.9 * count / largest).repeat_interleave(2).tolist(), base]
            left.band(xs, [base] * len(xs), ys, color, 0.35)
            left.curve(xs, ys, color, 1)
        chart.text((82, left.place(low, base + 0.3)[1]), f"epoch {look.epoch}", anchor="rm")

    weights = torch.linspace(0, 1, len(looks[0].way)).tolist()
    inner = looks[-1].way.quantile(torch.tensor([0.1, 0.9], dtype=torch.float64), 1)
    means = [look.way.mean(1) for look in looks]
    low, high = _range(torch.cat([*means, inner.flatten()]))
    right = Panel(chart, (600, 50, 970, bottom), (0, 1), (low, high))
    right.y_ticks(ticks(low, high))
    chart.text((600, 25), "free energy on the way from an image to a dream", size=16)
    for place, text, anchor in ((0, "image", "lm"), (1, "dream", "rm")):
        chart.text((right.place(place, low)[0], bottom + 12), text, anchor=anchor)
    right.band(weights, inner[0].tolist(), inner[1].tolist(), IMAGES, 0.15)
    for number, mean in enumerate(means):
        share = (number + 1) / len(means)  # old epochs pale, the newest dark
        pale, dark = (190, 205, 225), (10, 40, 90)
        red, green, blue = (round(a + share * (b - a)) for a, b in zip(pale, dark, strict=True))
        right.curve(weights, mean.tolist(), (red, green, blue), 1.5 + 1.5 * (number == len(means) - 1))
    chart.text((785, bottom + 34), f"pale: epoch {looks[0].epoch}, dark: epoch {looks[-1].epoch}", anchor="mm")
    return chart.tensor()


def _range(values: Tensor) -> tuple[float, float]:
    """Of nearly all values, with a margin."""
    values = values[values.isfinite()]
    low, high = values.quantile(torch.tensor([0.005, 0.995], dtype=torch.float64)).tolist() if len(values) else (0, 0)
    margin = max(0.08 * (high - low), 1e-3)
    return low - margin, high + margin
