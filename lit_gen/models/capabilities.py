"""What a model can do, as small abstract classes that callbacks test with ``isinstance``."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from lit_gen.captions import Caption, Vocabulary
from lit_gen.inference import GRID, PartitionEstimate, Progress, PyramidLikelihood, stochastic_pseudo_log_likelihood
from lit_gen.inference.depth import View, observe_depth
from lit_gen.views import Views


class Frame(NamedTuple):
    """One step of the way by which samples come to be."""

    images: Tensor
    """(B, C, H, W) or voxels (B, 1, D, H, W), in [0, 1]; the size may differ from frame to frame."""
    boxes: Tensor | None = None
    """(B, K, 4) attention windows as (x0, y0, x1, y1) in pixels of ``images``, or None."""
    weights: Tensor | None = None
    """(B, T) attention over the parts of the condition (words, say), or None."""
    line_widths: Tensor | None = None
    """(B, K) of the lines around ``boxes``, in pixels of ``images``, or None for thin ones: how blurred a window is."""


class RenderedViews(NamedTuple):
    """Objects as a model sees them."""

    images: Tensor
    """(B, C, H, W) in [0, 1], on white."""
    masks: Tensor
    """(B, 1, H, W) in [0, 1]: how much of each pixel the object covers."""


class Reconstructs(ABC):
    """Gives back its version of an image."""

    @abstractmethod
    def reconstruct(self, images: Tensor, condition: Any = None) -> Tensor:
        """``(B, C, H, W)`` in [0, 1] -> the same shape and range."""


class ComparesImages(ABC):
    """Knows how unlike two images are, by the distances that it is trained with."""

    @abstractmethod
    def compare(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Distances ``(B,)`` by name, 0 for equal images: ``(B, C, H, W)`` in [0, 1] each."""


class CompletesShapes(ABC):
    """Completes voxels of which only a part has been seen."""

    @abstractmethod
    def complete(self, voxels: Tensor, observed: Tensor, num_particles: int = 9, steps: int = 50) -> Tensor:
        """Probabilities of the voxels that have not been seen, beside those that have.

        Args:
            voxels: ``(B, 1, D, H, W)`` in [0, 1]; what they are where they are not observed does not matter.
            observed: of the same shape, bool: which of them are known; they are never changed.
            num_particles: guesses for each shape, whose mean is returned.
            steps: updates of each guess.

        Returns:
            ``(B, 1, D, H, W)`` in [0, 1].
        """

    def observe(self, voxels: Tensor, view: View) -> Tensor:
        """Which voxels a depth camera sees, as bool: see :func:`~lit_gen.inference.depth.observe_depth`."""
        return observe_depth(voxels, view).observed


class Inpaints(ABC):
    """Draws the unknown part of an image, given the rest."""

    @abstractmethod
    def inpaint(self, images: Tensor, known: Tensor, condition: Any = None) -> Tensor:
        """Images with what is not known of them drawn anew.

        Args:
            images: ``(B, C, H, W)`` in [0, 1]; what they are where they are not known does not matter.
            known: bool, of the same shape or one that broadcasts to it.
            condition: for a conditional model.

        Returns:
            ``(B, C, H, W)`` in [0, 1], the known pixels as they were.
        """


class InfersLatents(ABC):
    """Tells what its latents are for an image, all at once or one part after another."""

    @abstractmethod
    def posterior_draws(self, images: Tensor, num_samples: int = 1, condition: Any = None) -> list[Tensor]:
        """Of each stochastic layer or step, the lowest or first one first, numbers whose expectation is E_q[h given x].

        ``(1, B, *latent)`` where that is known in closed form, else ``(num_samples, B, *latent)``, independent of each
        other.
        """


class Encodes(InfersLatents):
    """Maps images to a distribution over latents."""

    @abstractmethod
    def encode(self, images: Tensor, condition: Any = None) -> Distribution:
        """``(B, C, H, W)`` -> q(z given x) with batch shape ``(B,)`` and event shape ``latent_shape``."""

    def posterior_draws(self, images: Tensor, num_samples: int = 1, condition: Any = None) -> list[Tensor]:
        """The mean of q(z given x), or draws where it has no closed form; a model of several layers overrides it."""
        posterior = self.encode(images, condition)
        try:
            return [posterior.mean[None]]
        except NotImplementedError:
            return [posterior.sample(torch.Size([num_samples]))]


class Decodes(ABC):
    """Maps latents, drawn from a prior, to images."""

    @property
    @abstractmethod
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one latent."""

    @property
    @abstractmethod
    def prior(self) -> Distribution:
        """p(z), batch shape ``()``, event shape ``latent_shape``, on the model's device."""

    def conditional_prior(self, condition: Any = None) -> Distribution:
        """p(z given the condition), from which images are drawn.

        Its batch shape is ``()`` where it is one for all, else ``(B,)``. A model whose latents depend on the condition
        overrides it, and keeps :attr:`prior` for what stands in where no condition is known.
        """
        return self.prior

    def sample_latents(self, num_samples: int, condition: Any = None) -> Tensor:
        """``(num_samples, *latent_shape)`` from :meth:`conditional_prior`; a condition is that of so many images."""
        prior = self.conditional_prior(condition)
        return prior.sample() if prior.batch_shape else prior.sample(torch.Size([num_samples]))

    @abstractmethod
    def decode(self, z: Tensor, condition: Any = None) -> Distribution | Tensor:
        """``(B, *latent_shape)`` -> p(x given z) over ``(B, C, H, W)``, or images where the model has no likelihood."""

    def joint_prior(self, condition: Any = None) -> Distribution:
        """p(u) of all that an image is decoded from: of the latent, and of what layers below it draw.

        A model that draws more than z on the way to p(x given z) overrides it with :meth:`decode_joint`, so that
        estimates of log p(x) are those of the model that is sampled from.
        """
        return self.conditional_prior(condition)

    def decode_joint(self, u: Tensor, condition: Any = None) -> Distribution | Tensor:
        """p(x given u) over ``(B, C, H, W)``, or images: :meth:`decode` of what :meth:`joint_prior` draws."""
        return self.decode(u, condition)

    def decode_images(self, z: Tensor, condition: Any = None) -> Tensor:
        """The mean E[x given z] of the likelihood, or the image itself: ``(B, C, H, W)`` in [0, 1]."""
        decoded = self.decode(z, condition)
        return decoded.mean if isinstance(decoded, Distribution) else decoded


class HasLowerBound(ABC):
    """Bounds log p(x) from below, the tighter the more samples."""

    bound_samples: int | None = 200
    """Samples of each image by which ``lit-gen test`` measures the bound unless it is told otherwise; None: not at all,
    for a model whose own test gives the bound and to which many samples would cost hours."""
    max_rows: int = 1000
    """Largest number of images that a bound decodes at a time; it bounds the memory."""

    @abstractmethod
    def lower_bound(self, images: Tensor, num_samples: int = 1, condition: Any = None) -> Tensor:
        """k-sample bound of each image, ``(B,)`` nats; k = 1 is the ELBO."""


class HasLogProb(ABC):
    """Knows log p(x) exactly."""

    @abstractmethod
    def log_prob(self, images: Tensor, condition: Any = None) -> Tensor:
        """``(B,)`` nats."""


class HasFreeEnergy(ABC):
    """Knows log p(x) up to one constant."""

    @abstractmethod
    def free_energy(self, images: Tensor, condition: Any = None) -> Tensor:
        """``(B,)`` nats; lower is likelier."""

    def pseudo_log_likelihood(self, images: Tensor) -> Tensor:
        """Unbiased estimate of the sum over pixels of log p(pixel given the others), from one pixel of each image.

        Args:
            images: ``(B, C, H, W)`` of zeros and ones.

        Returns:
            ``(B,)`` nats, in float64.
        """
        return stochastic_pseudo_log_likelihood(
            lambda states: self.free_energy(states.view_as(images)), images.flatten(1)
        )


class Dreams(ABC):
    """Draws images as it believes them to be: those whose mean a sample shows."""

    @abstractmethod
    def dream(self, num_samples: int) -> Tensor:
        """Draws ``(num_samples, C, H, W)`` of pixels, noise included: binary ones are 0 or 1, others may leave [0, 1].

        The model is left as it is, and a condition is drawn like the pixels.
        """


class BoundsFreeEnergy(ABC):
    """Bounds -log p(x) from above, up to one constant."""

    @abstractmethod
    def free_energy_bound(self, images: Tensor, condition: Any = None) -> Tensor:
        """``(B,)`` nats, at least the free energy."""


class EstimatesPartition(ABC):
    """Can estimate the constant that its free energy, or the bound on it, lacks: log p(x) = -F(x) - log Z."""

    @abstractmethod
    def log_partition_ais(
        self, num_chains: int = 100, num_temperatures: int = 14_500, progress: Progress = iter
    ) -> PartitionEstimate:
        """log Z by annealing from a base that fits the pixel means: too low on average, log p(x) too high.

        Args:
            num_chains: independent chains.
            num_temperatures: steps of each chain.
            progress: goes through the steps.
        """

    @abstractmethod
    def log_partition_reverse_ais(
        self, images: Tensor, num_temperatures: int = 14_500, burn_in: int = 1000, progress: Progress = iter
    ) -> PartitionEstimate:
        """log Z by annealing samples of the model back to the base: too high on average, log p(x) too low.

        Args:
            images: ``(num_chains, C, H, W)`` in [0, 1], where the Markov chains that draw the samples begin.
            num_temperatures: steps of each chain.
            burn_in: Gibbs steps from the images to the samples.
            progress: goes through the steps of annealing.
        """


class EstimatesLogLikelihood(ABC):
    """Can estimate log p(x) of single images from below."""

    @abstractmethod
    def log_likelihood_raise(
        self, images: Tensor, num_chains: int = 1, num_temperatures: int = 14_500, progress: Progress = iter
    ) -> Tensor:
        """log p(x) by annealing images back to the base: too low on average for the model that annealing makes.

        Args:
            images: ``(B, C, H, W)`` in [0, 1].
            num_chains: independent chains of each image; more make the estimate higher on average.
            num_temperatures: steps of each chain.
            progress: goes through the steps.

        Returns:
            ``(B,)`` nats, in float64.
        """


class EstimatesLevels(ABC):
    """Makes images level by level, and can estimate log p(x) as a sum over its levels."""

    @abstractmethod
    def log_likelihood_parzen(
        self,
        images: Tensor,
        validation: Tensor | None = None,
        condition: Any = None,
        validation_condition: Any = None,
        num_samples: int = 10_000,
        num_residuals: int = 200,
        sigmas: Sequence[float] = GRID,
        level_sigmas: Sequence[float] | None = None,
        max_rows: int = 20,
        progress: Progress = iter,
    ) -> PyramidLikelihood:
        """Parzen-window estimate of log p(x): see :func:`~lit_gen.models.pyramid_likelihood.pyramid_log_likelihood`.

        Args:
            images: ``(B, C, H, W)`` in [0, 1] to be measured.
            validation: others, neither among these nor trained on; None where sigma need not be chosen.
            condition: of the images.
            validation_condition: of the validation images.
            num_samples: samples of the coarsest level.
            num_residuals: samples of each finer level for each image.
            sigmas: standard deviations to choose from at every level, in pixel units.
            level_sigmas: that of each level, the finest first, where they have been chosen before.
            max_rows: images at a time, each with ``num_residuals`` samples.
            progress: goes through the parts of each level, the finest first.

        Raises:
            ValueError: several sigmas and no validation images to choose by, or not one sigma for each level.
        """


class HasHiddenUnits(ABC):
    """Has binary hidden units that images switch on."""

    @abstractmethod
    def hidden_probabilities(self, images: Tensor) -> Tensor:
        """p(h = 1 given the image), or its mean-field estimate: ``(B, C, H, W) -> (B, units)``, all layers in a row."""


class HasChains(ABC):
    """May be trained with Markov chains that outlive a training step."""

    @abstractmethod
    def chain_images(self) -> Tensor | None:
        """What the chains of this process believe now, ``(num_chains, C, H, W)``; None where there are no chains."""


class HasDiscriminator(ABC):
    """Learns by what another network says of images and of generated ones.

    The terms of a training batch, and those of :meth:`judge`, have the names ``discriminator_loss``, ``real_logit`` and
    ``fake_logit``; of several discriminators, as of the levels of a pyramid, each under a name of its own before these:
    ``level0/real_logit``.
    """

    @abstractmethod
    def judge(self, images: Tensor, condition: Any = None) -> dict[str, Tensor]:
        """Losses and logits ``(B,)`` of images ``(B, C, H, W)``, and of as many generated ones, by name."""

    def takes_critic(self) -> bool:
        """Whether the model would take the loss of a Wasserstein critic, its normalisation aside."""
        return True


class HasFeatureMaps(ABC):
    """Sees things in images that may be of use for telling them apart, learnt without labels."""

    @abstractmethod
    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Of images ``(B, C, H, W)`` in [0, 1], the maps ``(B, C', H', W')`` of each layer, the first layer first."""


class HasFilters(ABC):
    """Has units whose weights to the pixels are worth a look."""

    @abstractmethod
    def filters(self) -> Tensor:
        """``(units, C, H, W)``, of any range."""


class HasTrajectory(ABC):
    """Shows the steps by which its samples come to be."""

    @abstractmethod
    def trajectory(self, num_samples: int, condition: Any = None) -> Iterator[Frame]:
        """The frames in order; the last one is the sample."""


class HasReconstructionTrajectory(ABC):
    """Shows the steps by which it reconstructs given images."""

    @abstractmethod
    def reconstruction_trajectory(self, images: Tensor, condition: Any = None) -> Iterator[Frame]:
        """The frames in order; the last one is the reconstruction."""


class Conditional(ABC):
    """Generates given a condition: class, view, caption."""

    @property
    @abstractmethod
    def condition_fields(self) -> dict[str, type]:
        """Names and Python types of the parts of a condition, as a user writes them: ``{"class": int}``."""

    @abstractmethod
    def make_condition(self, fields: dict[str, Any], num_samples: int) -> Any:
        """The condition of ``num_samples`` images from the values a user wrote (already of the declared types).

        Raises:
            ValueError: a value out of range; names the value and the range.
        """

    @abstractmethod
    def sample_condition(self, num_samples: int) -> Any:
        """Conditions drawn from the model's own prior over them."""

    @abstractmethod
    def target_condition(self, target: Any) -> Any:
        """The condition that a batch's target stands for.

        Raises:
            ValueError: the target is none that the model can condition on; names what it needs.
        """


class ClassConditional(Conditional):
    """Generates images of a class, one of ``num_classes``; its conditions are class numbers ``(B,)``."""

    num_classes: int
    condition_fields = {"class": int}

    def make_condition(self, fields: dict[str, Any], num_samples: int) -> Tensor:
        number = fields["class"]
        if not 0 <= number < self.num_classes:
            raise ValueError(f"class must lie in 0..{self.num_classes - 1}, got {number}")
        return torch.full((num_samples,), number)

    def target_condition(self, target: Any) -> Tensor:
        if not isinstance(target, Tensor) or target.ndim != 1 or target.is_floating_point():
            raise ValueError(
                f"the target of a {type(self).__name__} must be class numbers of shape (B,), got {target!r}"
            )
        return target.long()


class GeneratesViews(ABC):
    """Shows each of its objects, and mixtures of them, from any direction."""

    num_classes: int
    """Number of objects."""
    seen_views: Tensor
    """(V, 2) azimuth and elevation, in radians, of the views in training; none where these are not known."""

    @abstractmethod
    def render_views(self, views: Views) -> RenderedViews:
        """Images and masks of B objects; their classes are numbers ``(B,)``, or weights ``(B, num_classes)``."""


class CaptionConditional(Conditional):
    """Generates images of what a caption says; its conditions are a :class:`~lit_gen.captions.Caption` of B images.

    A model takes the arguments ``vocabulary`` and ``captions``, which the command line takes from the data and the
    checkpoint keeps, and hands them to :meth:`keep_vocabulary` when it is built.
    """

    condition_fields = {"caption": str}
    vocabulary: Vocabulary
    """The words that the model knows; a number of them is a row of an embedding."""
    prior_captions: Caption
    """Captions such as those it was trained on, on the CPU: what :meth:`sample_condition` draws from."""

    def keep_vocabulary(self, vocabulary: Sequence[str], captions: Sequence[str] = ()) -> None:
        """Keep the words and the captions that samples are drawn for when none is asked for.

        Args:
            vocabulary: all words in the order of their numbers.
            captions: of training images, or such as they have; words outside the vocabulary become ``<unk>``.

        Raises:
            ValueError: no words: the data has no captions.
        """
        if not vocabulary:
            raise ValueError(
                f"{type(self).__name__} is conditioned on captions, the data has none; use CaptionedDigits,"
                " CocoCaptions or CaptionedFolder"
            )
        self.vocabulary = Vocabulary(vocabulary)
        nothing = Caption(torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
        self.prior_captions = self.vocabulary.encode_all(list(captions), strict=False) if captions else nothing

    def make_captions(self, texts: Sequence[str]) -> Caption:
        """The condition of one image for each text.

        Raises:
            ValueError: no words, or unknown ones; names each of them with the nearest that are known.
        """
        return self.vocabulary.encode_all(texts)

    def make_condition(self, fields: dict[str, Any], num_samples: int) -> Caption:
        return self.make_captions(num_samples * [fields["caption"]])

    def sample_condition(self, num_samples: int) -> Caption:
        total = len(self.prior_captions.lengths)
        if not total:
            raise ValueError(
                f"this {type(self).__name__} was built without captions to draw from; ask for some, or build it with"
                " captions"
            )
        chosen = torch.randint(total, (num_samples,))
        return Caption(*(part[chosen] for part in self.prior_captions))

    def target_condition(self, target: Any) -> Caption:
        if not isinstance(target, Caption):
            found = f"a tensor {tuple(target.shape)}" if isinstance(target, Tensor) else repr(target)
            raise ValueError(
                f"the target of a {type(self).__name__} must be captions, got {found}; use CaptionedDigits,"
                " CocoCaptions or CaptionedFolder"
            )
        return target

    def describe(self, condition: Caption) -> list[str]:
        """The caption of each image, as text."""
        return [" ".join(words) for words in self.vocabulary.decode(condition)]
