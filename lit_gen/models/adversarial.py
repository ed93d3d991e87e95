"""The kind of models whose objective is a game between networks."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lit_gen.models.base import Batch, GenerativeModel, HasDiscriminator
from lit_gen.networks import Shape
from lit_gen.objectives import DiscriminatorTerms


class Player(NamedTuple):
    """One side of the game: what it moves, and how."""

    parts: Sequence[nn.Module]
    """Their parameters are those that the player's optimizer takes."""
    optimizer: OptimizerCallable
    lr_scheduler: LRSchedulerCallable | None = None
    """Stepped after each epoch."""
    gradient_clip: float | None = None
    """Largest norm of the gradient of all its parameters together."""


class Piece(NamedTuple):
    """What a player is given at once: a batch, or a part of one."""

    images: Tensor
    """(b, C, H, W) in [0, 1]."""
    condition: Any
    """Of these images, or None."""
    fakes: Tensor | None
    """Generated images for them, in [0, 1]; None for new ones."""
    share: float
    """Part of the batch that they are."""


class Turns(NamedTuple):
    """Who is updated on a batch."""

    discriminator: bool
    generator: bool


Turn = Callable[[Piece], tuple[Tensor, dict[str, Tensor]]]
"""Loss ``(b,)`` of a piece for one player, and what to log: tensors ``(b,)`` by name."""


class AdversarialModel(GenerativeModel, HasDiscriminator):
    """A generator against a discriminator, each with an optimizer of its own.

    A subclass gives :meth:`players`, :meth:`fakes`, :meth:`discriminator_loss` and :meth:`generator_loss`. A variant
    overrides either loss, :meth:`penalty`, :meth:`generator_objective` (a generator that is told of the images),
    :meth:`generator_turn` (the step ratio), :meth:`turns` (who is updated, given the batch), :meth:`after_step`, or
    with more than two players :meth:`play`, which is made of calls of :meth:`duel`, one for each pair of players, or
    of :meth:`update`, and :meth:`judge` beside it.

    One step is one batch, whatever the number of players and of their updates. The discriminator is updated on every
    batch, the generator after every ``discriminator_steps``-th. Generated images are computed once for both where both
    are updated, and leave no graph where only the discriminator is. A player's step moves its own parameters, and no
    others get a gradient.

    The trainer cannot clip, accumulate or schedule for several optimizers: clipping and schedules belong to each
    player, and a batch that does not fit into memory is computed in ``micro_batches``.

    No value of the losses says which weights are best. The best checkpoint is that of the lowest ``val/fid`` where the
    run measures it (callback ``GenerationMetrics``), else the newest.

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        discriminator_steps: batches, each with an update of the discriminator, for one turn of the generator.
        generator_steps: updates of the generator in its turn, each from new noise.
        micro_batches: parts that a batch is computed in, one after the other, to save memory: the gradients of all are
            those of the whole batch (of networks without batch normalisation, which normalises each part by itself).
    """

    monitor = "val/fid"
    monitor_is_score = True

    def __init__(
        self, image_shape: Shape, discriminator_steps: int = 1, generator_steps: int = 1, micro_batches: int = 1
    ) -> None:
        super().__init__(image_shape)
        for name, value in (
            ("discriminator_steps", discriminator_steps),
            ("generator_steps", generator_steps),
            ("micro_batches", micro_batches),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.discriminator_steps = discriminator_steps
        self.generator_steps = generator_steps
        self.micro_batches = micro_batches
        self.automatic_optimization = False
        self._names: list[str] = []
        self._latest: dict[str, Tensor] = {}

    # ---- what a subclass gives

    @abstractmethod
    def players(self) -> dict[str, Player]:
        """The players by name: those that :meth:`play` updates."""

    @abstractmethod
    def fakes(self, images: Tensor, condition: Any = None) -> Tensor:
        """Generated images ``(B, C, H, W)`` in [0, 1] to hold against a batch; in evaluation from averaged weights."""

    @abstractmethod
    def discriminator_loss(self, images: Tensor, fakes: Tensor, condition: Any = None) -> DiscriminatorTerms:
        """What the discriminator minimises, without :meth:`penalty`, and its logits.

        Args:
            images: ``(B, C, H, W)`` in [0, 1].
            fakes: generated images, of the same shape and range, without gradient.
            condition: of both.
        """

    @abstractmethod
    def generator_loss(self, fakes: Tensor, condition: Any = None) -> Tensor:
        """What the generator minimises, ``(B,)``: the fakes carry its gradient."""

    # ---- what a variant may override

    def penalty(self, images: Tensor, fakes: Tensor, condition: Any = None) -> Tensor | None:
        """What is added to the discriminator's loss in training, ``(B,)``; None for nothing."""
        return None

    def generator_objective(self, images: Tensor, fakes: Tensor, condition: Any = None) -> Tensor:
        """:meth:`generator_loss`, of a generator that is also told of the images it is held against, ``(B,)``."""
        return self.generator_loss(fakes, condition)

    def after_step(self, player: str) -> None:
        """Called without gradient after each step of a player's optimizer."""

    def generator_turn(self) -> bool:
        """Whether the generator is updated on this batch."""
        return (self.trainer.global_step + 1) % self.discriminator_steps == 0

    def turns(self, pieces: Sequence[Piece], generator_turn: bool) -> Turns:
        """Who is updated, given a batch with its generated images; all processes must agree.

        Args:
            pieces: of the batch.
            generator_turn: whether it would be the generator's turn.
        """
        return Turns(discriminator=True, generator=generator_turn)

    def play(self, images: Tensor, condition: Any = None) -> dict[str, Tensor]:
        """The updates that belong to one batch; returns what to log of them."""
        return self.duel(images, condition, self.generator_turn())

    def judge(self, images: Tensor, condition: Any = None) -> dict[str, Tensor]:
        """Losses and logits of other images, to log in evaluation."""
        fakes = self.fakes(images, condition)
        values = self._named(self.discriminator_loss(images, fakes, condition))
        return values | {"generator_loss": self.generator_objective(images, fakes, condition)}

    # ---- one batch

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.trainer.precision in ("bf16-true", "16-true"):
            half = self.trainer.precision
            raise ValueError(
                f"in precision {half} the small steps of adversarial training are rounded away; use"
                f" {half.replace('true', 'mixed')}"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        images, condition = self.unpack(batch)
        with self.one_step():
            values = self.play(images, condition)
        self.log_training(values, progress_bar="generator_loss")
        if self.should_log:
            # A player whose turn it was not is logged as it was at its last.
            for name in self._latest.keys() - values.keys():
                self.log(f"train/{name}", self._latest[name], prog_bar=name == "generator_loss")
        self._latest |= {name: value.float().mean() for name, value in values.items()}

    def duel(
        self,
        images: Tensor,
        condition: Any,
        generator_turn: bool,
        discriminator: str = "discriminator",
        generator: str = "generator",
    ) -> dict[str, Tensor]:
        """The updates of one discriminator and its generator on a batch.

        Args:
            images: what the discriminator shall call real, ``(B, C, H, W)``.
            condition: of these, as the losses and :meth:`fakes` take it.
            generator_turn: what :meth:`generator_turn` said before the first update on the batch.
            discriminator: name in :meth:`players`.
            generator: name in :meth:`players`.

        Returns:
            What to log.
        """
        parts = min(self.micro_batches, len(images))
        has_graph = generator_turn and parts == 1
        pieces = self._pieces(images, condition, parts, has_graph)
        turns = self.turns(pieces, generator_turn)
        values: dict[str, Tensor] = {}
        if turns.discriminator:
            values |= self.update(discriminator, self._discriminator_turn, pieces)
        if turns.generator:
            for step in range(self.generator_steps):
                if step > 0 or not has_graph:
                    pieces = [piece._replace(fakes=None) for piece in pieces]
                values |= self.update(generator, self._generator_turn, pieces)
        return values

    def _pieces(self, images: Tensor, condition: Any, parts: int, keep_graph: bool) -> list[Piece]:
        pieces, start = [], 0
        for part in images.tensor_split(parts):
            end = start + len(part)
            given = apply_to_collection(condition, Tensor, lambda whole, first, last: whole[first:last], start, end)
            with torch.set_grad_enabled(keep_graph):
                fakes = self.fakes(part, given)
            pieces.append(Piece(part, given, fakes, len(part) / len(images)))
            start = end
        return pieces

    def _discriminator_turn(self, piece: Piece) -> tuple[Tensor, dict[str, Tensor]]:
        assert piece.fakes is not None
        fakes = piece.fakes.detach()
        terms = self.discriminator_loss(piece.images, fakes, piece.condition)
        penalty = self.penalty(piece.images, fakes, piece.condition)
        values = self._named(terms)
        return (terms.loss, values) if penalty is None else (terms.loss + penalty, values | {"penalty": penalty})

    def _generator_turn(self, piece: Piece) -> tuple[Tensor, dict[str, Tensor]]:
        fakes = self.fakes(piece.images, piece.condition) if piece.fakes is None else piece.fakes
        loss = self.generator_objective(piece.images, fakes, piece.condition)
        return loss, {"generator_loss": loss}

    @staticmethod
    def _named(terms: DiscriminatorTerms) -> dict[str, Tensor]:
        return {"discriminator_loss": terms.loss, "real_logit": terms.real_logit, "fake_logit": terms.fake_logit}

    def update(self, player: str, turn: Turn, pieces: Sequence[Piece]) -> dict[str, Tensor]:
        """One step of a player's optimizer along the gradient of all pieces of a batch.

        Gradients go to the player's own parameters alone, and processes exchange them once.

        Args:
            player: name in :meth:`players`.
            turn: its loss.
            pieces: of a batch.

        Returns:
            What the turn gave to log, detached, of all pieces.
        """
        found = self.optimizers()
        optimizer = (found if isinstance(found, list) else [found])[self._names.index(player)]
        optimizer.zero_grad()
        gathered: list[dict[str, Tensor]] = []
        for number, piece in enumerate(pieces, start=1):
            with optimizer.toggle_model(sync_grad=number == len(pieces)):
                loss, values = turn(piece)
                # Under autocast the backward pass would cast what was computed in float32 on purpose, penalties above
                # all; without it every operation goes back in the precision it was computed in.
                with torch.autocast(loss.device.type, enabled=False):
                    self.manual_backward(loss.mean() * piece.share)
            gathered.append({name: value.detach() for name, value in values.items()})
        optimizer.step()
        with torch.no_grad():
            self.after_step(player)
        return {name: torch.cat([values[name] for values in gathered]) for name in gathered[0]}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        players = self.players()
        for name, own in zip(self._names, self.trainer.optimizers, strict=True):
            clip = players[name].gradient_clip
            if own is optimizer and clip is not None:
                self.clip_gradients(optimizer, gradient_clip_val=clip, gradient_clip_algorithm="norm")

    def on_train_epoch_end(self) -> None:
        found = self.lr_schedulers()
        for scheduler in [] if found is None else found if isinstance(found, list) else [found]:
            scheduler.step()

    def configure_optimizers(self) -> Any:
        optimizers, schedulers = [], []
        self._names = list(self.players())
        for name, player in self.players().items():
            parameters = [parameter for part in player.parts for parameter in part.parameters()]
            optimizer = player.optimizer(parameters)
            optimizers.append(optimizer)
            if player.lr_scheduler is not None:
                scheduler = player.lr_scheduler(optimizer)
                if isinstance(scheduler, ReduceLROnPlateau):
                    raise ValueError(
                        f"the {name} of {type(self).__name__} has no value that a ReduceLROnPlateau could watch: no"
                        " loss of a game tells how good it is; take a schedule over epochs, such as PolynomialLR"
                    )
                schedulers.append({"scheduler": scheduler, "name": f"lr-{name}"})
        return optimizers, schedulers

    # ---- evaluation

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("test", batch)

    @torch.no_grad()
    def _evaluate(self, stage: str, batch: Batch) -> None:
        """Losses and logits of other images: a real logit far below that of training is a discriminator that overfits.

        How good the samples are they do not say.
        """
        images, condition = self.unpack(batch)
        self.log_evaluation(stage, self.judge(images, condition), len(images))


def check_clip(name: str, value: float | None) -> float | None:
    """The largest norm of a gradient.

    Raises:
        ValueError: it is not positive.
    """
    if value is not None and value <= 0:
        raise ValueError(f"{name} must be positive, or null for no clipping; got {value}")
    return value
