"""The configuration of a run, kept beside it."""

from typing import Any

import lightning.pytorch as pl
import yaml
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn

from lit_gen.callbacks.files import write_whole
from lit_gen.callbacks.logging import run_folder, writes_files


class RunConfig(SaveConfigCallback):
    """Writes the full configuration to ``config.yaml`` in the run folder and gives it to Weights & Biases.

    ``validate``, ``test`` and ``predict`` write ``config_<stage>.yaml``, so that the configuration of the fit stays.
    Lightning's own refuses a folder that holds one already, which ends the second W&B run of a project.

    Args:
        parser: of the command line.
        config: as parsed.
        kwargs: other arguments of SaveConfigCallback.
    """

    def __init__(self, parser: Any, config: Any, **kwargs: Any) -> None:
        super().__init__(parser, config, **{**kwargs, "save_to_log_dir": False})

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if TrainerFn(stage) != TrainerFn.FITTING:
            super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Not in setup: a fit that is refused because of an earlier run must not replace its configuration.
        super().setup(trainer, pl_module, TrainerFn.FITTING.value)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A resumed fit with nothing left to train does not start.
        super().setup(trainer, pl_module, TrainerFn.FITTING.value)

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not writes_files(trainer):
            return
        text = self.parser.dump(self.config, skip_none=False)
        stage = TrainerFn(stage).value  # Lightning gives the member, whose text is "TrainerFn.TESTING"
        name = "config.yaml" if stage == "fit" else f"config_{stage}.yaml"
        write_whole(run_folder(trainer) / name, lambda path: path.write_text(text))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.config.update({"cli": yaml.safe_load(text)}, allow_val_change=True)
