"""LitGenCLI: LightningCLI in subclass mode for model and data, mended where lit_gen's users would stumble."""

import logging
import netrc
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import lightning.pytorch as pl
import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

import lit_gen.models  # noqa: F401  (short class names are found among imported classes)
from lit_gen.callbacks import (
    AtomicCheckpointIO,
    Compile,
    ProgressBar,
    RunConfig,
    Unprofiled,
    default_callbacks,
    run_folder,
)
from lit_gen.cli.command import find_config
from lit_gen.cli.defaults import keep_no_foreign_defaults
from lit_gen.cli.imports import import_module, named_classes
from lit_gen.cli.messages import Parser
from lit_gen.data import ImageDataModule
from lit_gen.models.base import LitGenModule
from lit_gen.models.checkpoint import check_trusted, find_checkpoint, plain, read_checkpoint, resolve_class

LINKED = ("image_shape", "num_classes", "vocabulary", "captions", "views")
"""Arguments of a model that come from the data."""
SIZES = ("image_shape", "num_classes", "vocabulary")
"""Those of them in which the data that a checkpoint is measured on must agree with those it was trained on."""
SUBCOMMANDS = ("fit", "validate", "test", "predict")


class LitGenCLI(LightningCLI):
    """``fit``, ``validate``, ``test`` and ``predict`` for any :class:`LitGenModule` and :class:`ImageDataModule`.

    Beyond LightningCLI: short class names of the package, a user's own class by dotted path, sizes linked from data to
    model, the callbacks that fit the model's capabilities, run folders under ``trainer.default_root_dir``, and
    checkpoints that bring their own model and data while the command line wins.
    """

    def __init__(self, args: Sequence[str] | None = None, run: bool = True) -> None:
        self.checkpoint: dict[str, Any] | None = None
        self.checkpoint_path: Path | None = None
        keep_no_foreign_defaults()
        strict = {"allow_abbrev": False}
        super().__init__(
            LitGenModule,
            ImageDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_callback=RunConfig,
            parser_class=Parser,
            parser_kwargs={**strict, **dict.fromkeys(SUBCOMMANDS, strict)} if run else strict,
            args=list(args) if args is not None else None,
            run=run,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name in LINKED:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        parser.add_argument(
            "--default_callbacks", type=bool, default=True, help="Add the callbacks that fit the model's capabilities."
        )
        parser.add_argument(
            "--compile", type=bool, default=False, help="Compile the networks of the model with torch.compile."
        )
        parser.set_defaults(
            {"trainer.inference_mode": False, "trainer.default_root_dir": "runs", "trainer.log_every_n_steps": 50}
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        words = list(sys.argv[1:] if args is None else args)
        if words and words[0] in SUBCOMMANDS:
            words = self._prepare(words)
            with tempfile.TemporaryDirectory() as folder:
                self.config = parser.parse_args(self._with_checkpoint(words, Path(folder)))
            self._check_checkpoint()
        else:
            self.config = parser.parse_args(words)

    def _parse_ckpt_path(self) -> None:
        """Nothing is left to do: here a checkpoint comes first and the command line wins, upstream the reverse."""

    @staticmethod
    def _prepare(words: list[str]) -> list[str]:
        """Import what ``--import`` names, find ready configs by name and put them first: options win over configs."""
        configs: list[str] = []
        options: list[str] = []
        rest = iter(words[1:])
        for word in rest:
            flag, equals, value = word.partition("=")
            if flag not in ("--import", "-c", "--config"):
                options.append(word)
                continue
            value = value if equals else next(rest, "")
            if not value:
                raise ValueError(f"{flag} needs a value")
            if flag == "--import":
                import_module(value)
            else:
                configs += ["--config", str(find_config(value))]
        return [words[0], *configs, *options]

    def _with_checkpoint(self, words: list[str], folder: Path) -> list[str]:
        """Bring in the model and data that a checkpoint names.

        Options win over both. Configs win in a fit, which may go on with other settings; elsewhere only over the data,
        because the model is the one that was trained.
        """
        words = list(words)
        place = next((i for i, word in enumerate(words) if word.split("=")[0] == "--ckpt_path"), None)
        if place is None:
            return words
        value = words[place].partition("=")[2] if "=" in words[place] else "".join(words[place + 1 : place + 2])
        if not value or value.startswith("--"):
            raise ValueError("--ckpt_path needs a value: a file, the folder of a run, best or last")
        path = find_checkpoint(value, self._root(words))
        words[place : place + (1 if "=" in words[place] else 2)] = ["--ckpt_path", str(path)]
        self.checkpoint, self.checkpoint_path = read_checkpoint(path), path
        for named in named_classes(words):
            import_module(named.rpartition(".")[0])
        first: list[str] = []
        after_configs: list[str] = []
        for key, section in (("hyper_parameters", "model"), ("datamodule_hyper_parameters", "data")):
            values = dict(self.checkpoint.get(key, {}))
            values.pop("_instantiator", None)
            check_trusted(values)
            class_path = values.pop("_class_path", None)
            if not class_path:
                continue
            linked = LINKED if section == "model" else ()
            arguments = {name: value for name, value in values.items() if name not in linked}
            file = folder / f"{section}.yaml"
            file.write_text(yaml.safe_dump({section: {"class_path": class_path, "init_args": arguments}}))
            target = after_configs if section == "model" and words[0] != "fit" else first
            target += ["--config", str(file)]
        options = next((i for i in range(1, len(words), 2) if words[i] != "--config"), len(words))
        return [words[0], *first, *words[1:options], *after_configs, *words[options:]]

    @staticmethod
    def _root(words: list[str]) -> Path:
        """``trainer.default_root_dir`` as the configs and options on the command line say, before they are parsed."""
        root = "runs"
        for flag, value in pairwise(words):
            if flag == "--config":
                config = yaml.safe_load(Path(value).read_text()) or {}
                root = (config.get("trainer") or {}).get("default_root_dir", root)
        for flag, value in zip(words, [*words[1:], ""], strict=True):
            if flag.partition("=")[0] == "--trainer.default_root_dir":
                root = flag.partition("=")[2] or value
        return Path(root)

    def _check_checkpoint(self) -> None:
        settings = self.config[self.config.subcommand]
        if self.checkpoint is None:
            if self.config.subcommand != "fit" and settings.ckpt_path is None:
                raise ValueError(
                    f"{self.config.subcommand} without a checkpoint would measure random weights; give --ckpt_path"
                    " best, last, the folder of a run or a file"
                )
            return
        stored = self.checkpoint.get("hyper_parameters", {})
        asked = resolve_class(settings.model.class_path, LitGenModule)
        if "_class_path" in stored and resolve_class(stored["_class_path"], LitGenModule) is not asked:
            raise ValueError(
                f"the checkpoint {str(self.checkpoint_path)!r} holds a {stored['_class_path'].rpartition('.')[2]}, the"
                f" command line asks for {asked.__name__}; leave --model out, or give the checkpoint of that model"
            )
        if self.config.subcommand == "fit":
            self._warn_of_kept_optimizers(stored, settings.model.get("init_args", Namespace()).as_dict())

    def _warn_of_kept_optimizers(self, stored: dict[str, Any], asked: dict[str, Any]) -> None:
        for name in stored:
            changed = name.endswith(("optimizer", "lr_scheduler")) and plain(asked.get(name)) != stored[name]
            if changed and stored[name] is not None:
                rank_zero_warn(
                    f"the resumed run keeps the state of its {name}, learning rate included: {stored[name]}; what the"
                    f" command line or a config asks for ({asked.get(name)}) has no effect"
                )

    def before_instantiate_classes(self) -> None:
        settings = self._get(self.config, "trainer")
        for logger in _as_list(settings.logger):
            arguments = logger.get("init_args") if isinstance(logger, Namespace) else None
            if arguments is None:
                continue
            # Runs of every logger lie where `last` and `best` look for them.
            if arguments.get("save_dir", "") in (None, "."):
                arguments.save_dir = settings.default_root_dir
            if logger.class_path.endswith(".WandbLogger"):
                # Copies of checkpoints on their way to W&B lie with the runs, not in the home folder.
                os.environ.setdefault("WANDB_DATA_DIR", str(Path(settings.default_root_dir).absolute()))
                if not has_wandb_key():
                    # A run without an account is recorded on disk, for `wandb sync`; the first use must never ask.
                    os.environ.setdefault("WANDB_MODE", "offline")

    def instantiate_classes(self) -> None:
        super().instantiate_classes()
        if self.checkpoint is not None:
            stored = self.checkpoint.get("hyper_parameters", {})
            for name in SIZES:
                wanted, got = stored.get(name), getattr(self.datamodule, name)
                if wanted is None or plain(wanted) == plain(got):
                    continue
                trained = f"the model in {str(self.checkpoint_path)!r} was trained with"
                if name == "vocabulary":
                    raise ValueError(
                        f"{trained} a vocabulary of {len(wanted):,} words, the data has another one of {len(got):,};"
                        " use the captions it was trained on"
                    )
                raise ValueError(
                    f"{trained} {name} {plain(wanted)}, the data has {plain(got)}; use the data it was trained on, or"
                    " set data.image_size and data.channels"
                )

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except RuntimeError as error:
            if "loading state_dict" not in str(error):
                raise
            raise ValueError(
                f"the weights in {str(self.checkpoint_path)!r} do not fit the model that the command line asks for;"
                f" leave its --model options out. {error}"
            ) from error
        self._report()

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        if not torch.cuda.is_available():
            # Lightning lets torch look for GPUs through NVML, as every optimizer step does: 0.1 ms where there is none.
            os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
        settings = self._get(self.config_init, "trainer", default=Namespace())
        if settings.logger is None or settings.logger is True:
            kwargs["logger"] = self._default_logger(Path(settings.default_root_dir))
        if not self.model.automatic_optimization:
            _refuse_automatic_options(type(self.model).__name__, settings)
        plain_ddp = settings.strategy in ("auto", "ddp") and _several_devices(settings)
        if plain_ddp and not self.model.automatic_optimization:
            # With two optimizers each step leaves some parameters without gradient, which plain DDP refuses.
            kwargs["strategy"] = "ddp_find_unused_parameters_true"
        plugins = _as_list(settings.plugins)
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(AtomicCheckpointIO())
        kwargs["plugins"] = plugins
        callbacks = _as_list(settings.callbacks)
        if self._get(self.config_init, "compile"):
            callbacks.append(Compile())
        if self._get(self.config_init, "default_callbacks"):
            given = {type(callback) for callback in callbacks}
            callbacks += [callback for callback in default_callbacks(self.model) if type(callback) not in given]
        if self.subcommand not in (None, "fit") or settings.enable_checkpointing is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, Checkpoint)]
            kwargs["enable_checkpointing"] = False
        if self.subcommand not in (None, "fit"):
            # It averages in a fit alone, whose checkpoints hold the averaged weights, and elsewhere warns of itself.
            callbacks = [callback for callback in callbacks if not isinstance(callback, pl.callbacks.WeightAveraging)]
        own_bar = any(isinstance(callback, pl.callbacks.ProgressBar) for callback in callbacks)
        if settings.enable_progress_bar is not False and not own_bar:
            callbacks.append(ProgressBar())
        if settings.profiler is None:
            kwargs["profiler"] = Unprofiled()
        kwargs["callbacks"] = callbacks
        return super().instantiate_trainer(**kwargs)

    def _default_logger(self, root: Path) -> CSVLogger:
        """A new run folder for a fit; what a checkpoint is measured by goes into the folder of its own run."""
        if self.subcommand in (None, "fit") or self.checkpoint_path is None:
            return CSVLogger(root, name="")
        run_of_checkpoint = self.checkpoint_path.parent
        if run_of_checkpoint.name == "checkpoints":
            run_of_checkpoint = run_of_checkpoint.parent
        return CSVLogger(run_of_checkpoint, name=str(self.subcommand))

    def _report(self) -> None:
        """Say where the results are."""
        if not self.trainer.is_global_zero or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        folder = run_folder(self.trainer)
        print(f"run folder: {folder}")
        checkpoint = self.trainer.checkpoint_callback
        if self.subcommand == "fit" and isinstance(checkpoint, ModelCheckpoint) and checkpoint.best_model_path:
            print(f"best checkpoint: {checkpoint.best_model_path}")
        for pictures in sorted({path.parent for path in folder.rglob("*.*") if path.suffix in (".png", ".gif")}):
            print(f"{pictures.relative_to(folder)}: {max(pictures.glob('*.*'))}")


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _refuse_automatic_options(model: str, settings: Namespace) -> None:
    """Say what stands in for options that Lightning's trainer keeps for models of one optimizer."""
    instead = {
        "gradient_clip_val": "clip by its own arguments where it has any, such as --model.generator_clip",
        "accumulate_grad_batches": "save memory by its own argument where it has one, such as --model.micro_batches",
    }
    for option, remedy in instead.items():
        value = settings[option]
        if value not in (None, 0) and (option, value) != ("accumulate_grad_batches", 1):
            raise ValueError(
                f"{model} steps its optimizers by itself, so that trainer.{option}={value} cannot act: leave it out,"
                f" and {remedy}"
            )


def _several_devices(settings: Namespace) -> bool:
    devices = settings.devices
    if settings.num_nodes > 1 or (isinstance(devices, list) and len(devices) > 1):
        return True
    if devices in ("auto", -1, "-1"):
        return settings.accelerator != "cpu" and torch.cuda.device_count() > 1
    words = str(devices).split(",")
    return len(words) > 1 or (words[0].isdigit() and int(words[0]) > 1)


def has_wandb_key() -> bool:
    """Whether this machine has a key of Weights & Biases, in the environment or written by `wandb login`."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    try:
        return netrc.netrc().authenticators(host) is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False


def run(words: Sequence[str]) -> int:
    """Run ``fit``, ``validate``, ``test`` or ``predict``.

    Args:
        words: the command line after ``lit-gen``.

    Returns:
        Exit code; 130 if the run was interrupted.
    """
    # Advertisements that Lightning prints at every start.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )
    # Lightning 2.6 uses a name that torch 2.15 deprecates; a user can do nothing about it.
    warnings.filterwarnings("ignore", message="`isinstance.treespec, LeafSpec.` is deprecated", category=FutureWarning)
    # Callbacks of training, ModelCheckpoint above all, have nothing to do in a test.
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`")
    # Batches of a resident data set carry no indices; the writer numbers samples by itself.
    warnings.filterwarnings("ignore", message="Couldn't infer the batch indices")
    # Here nothing is in eval mode but encoders that are frozen.
    warnings.filterwarnings("ignore", message="Found .* in eval mode at the start of training")
    cli = LitGenCLI(words)
    return 130 if cli.trainer.state.status == TrainerStatus.INTERRUPTED else 0
