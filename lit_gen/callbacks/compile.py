"""torch.compile for parts of a model."""

from typing import Literal

import lightning.pytorch as pl

from lit_gen.models.base import LitGenModule


class Compile(pl.Callback):
    """Compiles what a model runs in training: its networks, each on its own, or a step of DRAW as a whole.

    Names in checkpoints stay as they are.

    Args:
        mode: how hard torch.compile tries; None is its default.
        backend: compiler of torch.compile.
    """

    def __init__(
        self,
        mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] | None = None,
        backend: str = "inductor",
    ) -> None:
        self.mode = mode
        self.backend = backend

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and isinstance(pl_module, LitGenModule):
            pl_module.compile_parts(mode=self.mode, backend=self.backend)
