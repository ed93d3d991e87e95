"""When a run validates."""

import lightning.pytorch as pl


class ValidateAtEnd(pl.Callback):
    """Lets the last epoch of a fit validate, whatever ``check_val_every_n_epoch`` is.

    Otherwise a fit of fewer epochs shows no picture and keeps no best checkpoint, and any other fit may end without
    either for its final weights. The last epoch is that of ``max_epochs``; where ``max_steps`` or an early stop end a
    fit, nobody knows beforehand.
    """

    def __init__(self) -> None:
        self._given: int | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._arrange(trainer)  # a run resumed within an epoch does not start it again

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._arrange(trainer)

    def _arrange(self, trainer: pl.Trainer) -> None:
        epoch, every = trainer.current_epoch + 1, trainer.check_val_every_n_epoch
        if every is not None and epoch == trainer.max_epochs and epoch % every:
            # The number of the epoch, not 1: by 1 ModelCheckpoint would tell a run that validates after every epoch.
            self._given, trainer.check_val_every_n_epoch = every, epoch

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restore(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore(trainer)

    def _restore(self, trainer: pl.Trainer) -> None:
        if self._given is not None:
            trainer.check_val_every_n_epoch, self._given = self._given, None
