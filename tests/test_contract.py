"""One test for all concrete models: what every model of the package keeps, whoever wrote it."""

import inspect
import json
from collections.abc import Callable, Collection, Iterable
from math import isfinite
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch.optim.lr_scheduler import StepLR

import lit_gen.models
from lit_gen.callbacks.evaluation import first
from lit_gen.data import CaptionedDigits, ImageDataModule, Synthetic, SyntheticChairs
from lit_gen.models import (
    AAE,
    BGAN,
    DBM,
    DBN,
    DCGAN,
    DDPM,
    DPM2015,
    DRAW,
    GAN,
    HMCVAE,
    IWAE,
    LAPGAN,
    PIWAE,
    R1,
    RBM,
    VAE,
    VAEGAN,
    AdversarialModel,
    AlignDRAW,
    AncestralSampler,
    BinomialKernel,
    ChairGenerator,
    ClassDCGAN,
    ClassDDPM,
    Classifier,
    ClassifierEncoder,
    ClassLAPGAN,
    ClassRBM,
    ConditionalVAE,
    ConvDRAW,
    ConvVAE,
    DDIMSampler,
    DeePSiM,
    DeePSiMInversion,
    DiffAugment,
    DReG,
    EnergyModel,
    Equilibrium,
    FeatureDistance,
    FeatureMatching,
    FlowVAE,
    FusedAdam,
    GaussianKernel,
    GradientPenalty,
    Hinge,
    LadderVAE,
    LeastSquares,
    LinearSchedule,
    NoTransformation,
    PerceptualLikelihood,
    PersistentContrastiveDivergence,
    PolicyGradient,
    PublishedTransformation,
    ShapeNets3D,
    SharpenedAlignDRAW,
    StagedModel,
    load_model,
)
from lit_gen.models.base import (
    BoundsFreeEnergy,
    CompletesShapes,
    Conditional,
    Decodes,
    Encodes,
    EstimatesPartition,
    GenerativeModel,
    HasFilters,
    HasFreeEnergy,
    HasLowerBound,
    HasReconstructionTrajectory,
    HasTrajectory,
    InfersLatents,
    LikelihoodModel,
    LitGenModule,
    Reconstructs,
)
from lit_gen.models.checkpoint import stored_hyperparameters
from lit_gen.networks import (
    MLP,
    CategoricalVisible,
    ConvDecoder,
    ConvEncoder,
    ConvReader,
    ConvWriter,
    DCGANDiscriminator,
    DCGANGenerator,
    DiscretizedLogisticLikelihood,
    FixedSentence,
    FlowPrior,
    FullReader,
    FullWriter,
    GaussianVisible,
    InverseAutoregressiveFlow,
    MaxoutMLP,
    MixtureOfGaussians,
    PlanarFlow,
    PlaneDiscriminator,
    PlaneGenerator,
    RandomComparator,
    Shape,
    UNet,
    UniformMLP,
    UpConvNetwork,
    VAEGANDiscriminator,
    VAEGANEncoder,
    VAEGANGenerator,
    VampPrior,
    WordVectors,
)
from tests.conditional import ClassVAE
from tests.movements import Movements
from tests.resume import assert_exact_resume

SHAPE: Shape = (1, 8, 8)
VOXELS: Shape = (1, 8, 8, 8)
VIEWS: Shape = (3, 16, 16)
SCENES: Shape = (1, 12, 12)
"""The shape of images with captions."""
WORDS = CaptionedDigits()


def small(input_shape: Shape, output_shape: Shape) -> MLP:
    return MLP(input_shape, output_shape, hidden_dims=[16])


MODELS: dict[str, Callable[[], LitGenModule]] = {
    "VAE": lambda: VAE(SHAPE, 4, small, small),
    "VAE-conv-logistic": lambda: VAE(SHAPE, 4, conv_encoder, conv_decoder, DiscretizedLogisticLikelihood),
    "VAE-vamp": lambda: VAE(SHAPE, 4, small, small, latent_prior=vamp),
    "VAE-mixture": lambda: VAE(SHAPE, 4, small, small, latent_prior=lambda d, s: MixtureOfGaussians(d, s, 3)),
    "ConvVAE": lambda: ConvVAE(SHAPE, 4),
    "ConvVAE-on-a-classifier": lambda: ConvVAE(SHAPE, 4, classifier_encoder),
    "ConvVAE-perceptual": lambda: ConvVAE(SHAPE, 4, likelihood=lambda s: PerceptualLikelihood(s, distance=two_layers)),
    "ConditionalVAE": lambda: ConditionalVAE(SHAPE, 3, 4, small, small),
    "ConditionalVAE-conv-prior": lambda: ConditionalVAE(SHAPE, 3, 4, conv_encoder, conv_decoder, learned_prior=True),
    "IWAE": lambda: IWAE(SHAPE, [4], 6, lambda: PIWAE(2), small, small),
    "IWAE-two-layers": lambda: IWAE(SHAPE, [5, 3], 4, DReG, small, small, small, small),
    "FlowVAE": lambda: FlowVAE(SHAPE, 4, planar, small, small, annealing_steps=4),
    "FlowVAE-iaf": lambda: FlowVAE(SHAPE, 4, autoregressive, small, small, annealing_steps=4, latent_prior=FlowPrior),
    "HMCVAE": lambda: HMCVAE(SHAPE, 4, 2, 0.05, "learned", 0.5, small, small, reverse=small),
    "HMCVAE-conv": lambda: HMCVAE(SHAPE, 4, 1, encoder=conv_encoder, decoder=conv_decoder, reverse=None),
    "LadderVAE": lambda: LadderVAE(SHAPE, [5, 4, 3], [9, 8, 7], 1, normed, small, normed, normed, kl_warmup_steps=4),
    "LadderVAE-weighted": lambda: LadderVAE(SHAPE, [5, 3], [9, 8], 3, small, small, small, small),
    "DRAW": lambda: DRAW(SHAPE, 3, 4, 12),
    "DRAW-full": lambda: DRAW(SHAPE, 3, 4, 12, FullReader, FullWriter, likelihood=DiscretizedLogisticLikelihood),
    "ConvDRAW": lambda: ConvDRAW(SHAPE, 3, 2, 6, lambda shape, dim: ConvReader(shape, dim, [4, 4]), conv_writer),
    "AlignDRAW": lambda: AlignDRAW(SCENES, WORDS.vocabulary, WORDS.captions, 3, 4, 12),
    "AlignDRAW-fixed": lambda: AlignDRAW(
        SCENES, WORDS.vocabulary, WORDS.captions, 2, 4, 12, sentence_encoder=WordVectors, sentence_reader=FixedSentence
    ),
    "SharpenedAlignDRAW": lambda: sharpened("pyramid", regularizer=R1, ema_decay=0.9),
    "SharpenedAlignDRAW-reconstruction": lambda: sharpened("reconstruction", sample_noise=True, micro_batches=2),
    "ClassVAE": lambda: ClassVAE(SHAPE, 3),
    "Classifier": lambda: Classifier(SHAPE, 3, num_features=8, network=conv_encoder),
    "DCGAN": lambda: DCGAN(SHAPE, 4, "normal", dcgan_generator, spectral, Hinge, ema_decay=0.9),
    "ClassDCGAN": lambda: ClassDCGAN(SHAPE, 3, 4, "uniform", dcgan_generator, layered, LeastSquares, GradientPenalty),
    "GAN": lambda: GAN(SHAPE, 4, generator=uniform, discriminator=maxout),
    "GAN-critic": lambda: critic(),
    "GAN-steadied": lambda: GAN(SHAPE, 4, "normal", small, crowd, feature_matching=matched, augmentation=DiffAugment),
    "AAE": lambda: AAE(SHAPE, 4, small, small, small),
    "VAEGAN": lambda: hybrid(),
    "BGAN": lambda: BGAN(SHAPE, 4, "normal", dcgan_generator, layered, num_samples=3, ema_decay=0.9),
    "BGAN-policy": lambda: BGAN(SHAPE, 4, "uniform", uniform, maxout, policy, 2, Hinge, GradientPenalty),
    "LAPGAN": lambda: LAPGAN(SHAPE, [4, 6, 8], 4, small, small, plane, planar_critic, regularizer=R1, ema_decay=0.9),
    "ClassLAPGAN": lambda: ClassLAPGAN(SHAPE, 3, [4, 8], 4, small, small, plane, planar_critic, micro_batches=2),
    "DeePSiM": lambda: DeePSiM(SHAPE, 4, feature_distance=two_layers, discriminator=layered, micro_batches=2),
    "DeePSiM-pixels": lambda: DeePSiM(SHAPE, 4, small, small, feature_weight=0, adversarial_weight=0),
    "DeePSiMInversion": lambda: DeePSiMInversion(
        SHAPE, lambda s: RandomComparator(s, [4, 6]), 0, small, feature_distance=two_layers, discriminator=layered
    ),
    "RBM": lambda: RBM(SHAPE, 8, sample_steps=5),
    "RBM-categorical": lambda: RBM(SHAPE, 8, CategoricalVisible, sample_steps=5),
    "ClassRBM": lambda: ClassRBM(SHAPE, 3, 8, negative_phase=persistent, sample_steps=5),
    "RBM-gaussian-pcd": lambda: RBM(SHAPE, 8, GaussianVisible, persistent, sample_steps=5),
    "DBM": lambda: DBM(SHAPE, [8, 6], negative_phase=persistent, pretraining_epochs=1, sample_steps=5),
    "DBN": lambda: DBN(SHAPE, [8, 6], negative_phase=persistent, pretraining_epochs=1, sample_steps=5),
    "DBN-up-down": lambda: DBN(SHAPE, [6, 70, 4], GaussianVisible, persistent, 1, finetuning_epochs=1, sample_steps=5),
    "DBM-three-layers": lambda: DBM(SHAPE, [8, 6, 4], GaussianVisible, pretraining_epochs=1, sample_steps=5),
    "ShapeNets3D": lambda: shapenets(),
    "DPM2015": lambda: DPM2015(SHAPE, lambda shape: BinomialKernel(shape, 6)),
    "DPM2015-gaussian": lambda: DPM2015(SHAPE, lambda shape: GaussianKernel(shape, 6)),
    "DDPM": lambda: DDPM(SHAPE, unet, rising, sampler=lambda: DDIMSampler(3)),
    "ClassDDPM": lambda: ClassDDPM(SHAPE, 3, 2.0, 0.3, unet, rising, sampler=lambda: AncestralSampler(4)),
    "ChairGenerator": lambda: ChairGenerator(VIEWS, 10, network=upconv, transformation=full_transformation),
    "ChairGenerator-untransformed": lambda: ChairGenerator(VIEWS, 10, [(0, 20)], upconv, NoTransformation),
}


def rising() -> LinearSchedule:
    return LinearSchedule(6, 0.1, 0.5)


def policy() -> PolicyGradient:
    return PolicyGradient("loss")


def unet(input_shape: Shape, output_shape: Shape, num_classes: int) -> UNet:
    return UNet(input_shape, output_shape, num_classes, channels=4, multipliers=[1, 2], blocks=1, groups=2)


def uniform(input_shape: Shape, output_shape: Shape) -> UniformMLP:
    return UniformMLP(input_shape, output_shape, hidden_dims=[16])


def maxout(input_shape: Shape, output_shape: Shape) -> MaxoutMLP:
    return MaxoutMLP(input_shape, output_shape, hidden_dims=[8], pieces=2, weight_range=0.3)


def crowd(input_shape: Shape, output_shape: Shape) -> MaxoutMLP:
    return MaxoutMLP(input_shape, output_shape, [8], 2, weight_range=0.3, minibatch_kernels=3)


def matched() -> FeatureMatching:
    return FeatureMatching("layers.1")


def dcgan_generator(input_shape: Shape, output_shape: Shape) -> DCGANGenerator:
    return DCGANGenerator(input_shape, output_shape, width=4)


def spectral(input_shape: Shape, output_shape: Shape) -> DCGANDiscriminator:
    return DCGANDiscriminator(input_shape, output_shape, width=4, spectral_norm=True, minibatch_deviation=True)


def layered(input_shape: Shape, output_shape: Shape) -> DCGANDiscriminator:
    return DCGANDiscriminator(input_shape, output_shape, width=4, norm="layer")


def plane(input_shape: Shape, output_shape: Shape) -> PlaneGenerator:
    return PlaneGenerator(input_shape, output_shape, channels=[4], kernel_sizes=[3, 3])


def planar_critic(input_shape: Shape, output_shape: Shape) -> PlaneDiscriminator:
    return PlaneDiscriminator(input_shape, output_shape, channels=4)


def sharpened(blurred: Any, **arguments: Any) -> SharpenedAlignDRAW:
    untrained = stored_hyperparameters(AlignDRAW(SCENES, WORDS.vocabulary, WORDS.captions, 2, 4, 12))
    networks = {"generator": plane, "discriminator": planar_critic}
    return SharpenedAlignDRAW(
        SCENES, WORDS.vocabulary, json.dumps(untrained), WORDS.captions, blurred, **networks, **arguments
    )


def two_layers(image_shape: Shape) -> FeatureDistance:
    return FeatureDistance(image_shape, lambda shape: RandomComparator(shape, [4, 6]), [0, -1])


def critic() -> GAN:
    """All that may be asked of an adversarial model at once."""
    return GAN(
        SHAPE,
        4,
        "normal",
        small,
        small,
        LeastSquares,
        GradientPenalty,
        discriminator_steps=2,
        generator_steps=2,
        micro_batches=2,
        ema_decay=0.9,
        generator_optimizer=FusedAdam,
        discriminator_optimizer=FusedAdam,
        generator_lr_scheduler=lambda optimizer: StepLR(optimizer, 1),
        generator_clip=1.0,
        discriminator_clip=1.0,
    )


def hybrid() -> VAEGAN:
    return VAEGAN(
        SHAPE,
        4,
        lambda i, o: VAEGANEncoder(i, o, channels=[4, 5], hidden_dim=6),
        lambda i, o: VAEGANGenerator(i, o, channels=[4, 5], base_channels=6),
        lambda i, o: VAEGANDiscriminator(i, o, channels=[3, 4, 5], hidden_dim=6),
        "layers.convolution2",
        balance=Equilibrium,
        ema_decay=0.9,
    )


def shapenets() -> ShapeNets3D:
    return ShapeNets3D(
        VOXELS,
        3,
        channels=[4, 6],
        kernel_sizes=[4, 2],
        strides=[2, 1],
        fully_connected=8,
        top=10,
        conv_epochs=1,
        dense_epochs=1,
        top_epochs=1,
        fine_tuning_epochs=1,
        sparsity_targets=0.1,
        sparsity_costs=0.1,
        sample_steps=5,
    )


def shape_of(name: str) -> Shape:
    if name.startswith("ChairGenerator"):
        return VIEWS
    if name.startswith(("AlignDRAW", "SharpenedAlignDRAW")):
        return SCENES
    return VOXELS if name == "ShapeNets3D" else SHAPE


def upconv(input_shape: Shape, output_shape: Shape) -> UpConvNetwork:
    return UpConvNetwork(input_shape, output_shape, 8, 16, image_channels=[6, 5], mask_channels=[5, 4])


def full_transformation() -> PublishedTransformation:
    return PublishedTransformation(ramp=None)


def normed(input_shape: Shape, output_shape: Shape) -> MLP:
    return MLP(input_shape, output_shape, hidden_dims=[16], activation="leaky_relu", batch_norm=True)


def vamp(latent_dim: int, image_shape: Shape) -> VampPrior:
    return VampPrior(latent_dim, image_shape, components=12)


def planar(latent_dim: int) -> PlanarFlow:
    return PlanarFlow(latent_dim, length=3)


def autoregressive(latent_dim: int) -> InverseAutoregressiveFlow:
    return InverseAutoregressiveFlow(latent_dim, hidden_dims=[8], context_dim=3)


def persistent() -> PersistentContrastiveDivergence:
    return PersistentContrastiveDivergence(2, num_chains=7)


def conv_encoder(input_shape: Shape, output_shape: Shape) -> ConvEncoder:
    return ConvEncoder(input_shape, output_shape, channels=(4, 8), batch_norm=True)


def classifier_encoder(input_shape: Shape, output_shape: Shape) -> ClassifierEncoder:
    untrained = stored_hyperparameters(Classifier(SHAPE, 3, num_features=8, network=conv_encoder))
    return ClassifierEncoder(input_shape, output_shape, json.dumps(untrained))


def conv_decoder(input_shape: Shape, output_shape: Shape) -> ConvDecoder:
    return ConvDecoder(input_shape, output_shape, channels=(8, 4), batch_norm=True)


def conv_writer(hidden_shape: Shape, canvas_shape: Shape) -> ConvWriter:
    return ConvWriter(hidden_shape, canvas_shape, channels=[4])


def epochs(model: LitGenModule) -> int:
    """Enough for every stage."""
    return sum(stage.epochs or 2 for stage in model.stages) if isinstance(model, StagedModel) else 2


def data(shape: Shape = SHAPE) -> ImageDataModule:
    if shape == VIEWS:
        return SyntheticChairs(10, grid=12, azimuths=5, held_out_every=2, image_size=shape[1], batch_size=10)
    if shape == SCENES:
        return CaptionedDigits(num_train=60, num_val=20, num_test=20, batch_size=10, image_size=SCENES[1])
    return Synthetic(image_shape=shape, num_classes=3, num_train=60, num_val=20, num_test=20, batch_size=10)


def trainer(folder: Path, **arguments: Any) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        inference_mode=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **arguments,
    )


def slow(names: Iterable[str], among: Collection[str]) -> list[Any]:
    """Parameters of a test, of which some are among the slow tests."""
    return [pytest.param(name, marks=pytest.mark.slow if name in among else ()) for name in names]


def test_every_concrete_model_is_here() -> None:
    exported = {getattr(lit_gen.models, name) for name in lit_gen.models.__all__}
    concrete = {kind for kind in exported if inspect.isclass(kind) and issubclass(kind, LitGenModule)}
    concrete -= {LitGenModule, GenerativeModel, LikelihoodModel, EnergyModel, StagedModel, AdversarialModel}
    assert concrete == {type(make()) for make in MODELS.values()} - {ClassVAE}


VARIANTS = [name for name in MODELS if "-" in name]
"""Models that are here more than once: the first of each is in the default suite, these are among the slow tests."""


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", slow(MODELS, VARIANTS))
def test_contract(name: str, precision: Any, tmp_path: Path) -> None:
    model = MODELS[name]()
    before = {key: value.clone() for key, value in model.named_parameters()}
    run = trainer(tmp_path, max_epochs=epochs(model), precision=precision)
    shape = shape_of(name)
    run.fit(model, data(shape))
    assert run.global_step == 6 * epochs(model), "one batch is one step"
    for key, value in model.named_parameters():
        moved = not torch.equal(value, before[key])
        # An average takes no gradient, and follows one that does.
        expected = value.requires_grad or key.startswith(("average.", "averages."))
        assert moved == expected, f"{key} {'moved' if moved else 'never moved'}"
        assert value.dtype is torch.float32
    loss = "loss"
    if isinstance(model, AdversarialModel):
        # DeePSiM may be without a discriminator.
        loss = "generator_loss" if model.players().keys() == {"generator"} else "discriminator_loss"
    assert run.callback_metrics[f"val/{loss}"].isfinite()
    assert isfinite(run.test(model, data(shape), verbose=False)[0][f"test/{loss}"])
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded = load_model(tmp_path / "model.ckpt")
    assert type(loaded) is type(model)
    assert not loaded.training
    model.eval()
    images, target = next(iter(prepared(shape).test_dataloader()))
    condition = model.target_condition(target) if isinstance(model, Conditional) else None
    if isinstance(model, GenerativeModel):
        check_samples(model, loaded, run)
    if isinstance(model, Decodes):
        z = model.prior.sample(torch.Size([3]))
        assert z.shape == (3, *model.latent_shape)
        check_images(model.decode_images(z, first(condition, 3)), 3, shape)
    if isinstance(model, Reconstructs):
        check_images(model.reconstruct(images, condition), len(images), shape)
    if isinstance(model, Encodes) and isinstance(model, Decodes):
        assert model.encode(images, condition).event_shape == model.latent_shape
    if isinstance(model, InfersLatents):
        layers = model.posterior_draws(images, 2, condition)
        assert all(len(draws) in (1, 2) and len(draws[0]) == len(images) for draws in layers)
    if isinstance(model, HasLowerBound):
        assert model.lower_bound(images, 3, condition).shape == (len(images),)
    if isinstance(model, HasFreeEnergy):
        assert model.free_energy(images).shape == (len(images),)
    if isinstance(model, BoundsFreeEnergy):
        assert model.free_energy_bound(images).shape == (len(images),)
    if isinstance(model, HasFilters):
        assert model.filters().shape[1:] == shape
    if isinstance(model, CompletesShapes):
        check_images(model.complete(images, images > 0.5, 2, 2), len(images), shape)
    if isinstance(model, HasTrajectory):
        frames = list(model.trajectory(2))
        check_images(frames[-1].images, 2, shape)
    if isinstance(model, HasReconstructionTrajectory) and isinstance(model, Reconstructs):
        *_, frame = model.reconstruction_trajectory(images, condition)
        torch.testing.assert_close(frame.images, model.reconstruct(images, condition))
    if isinstance(model, EstimatesPartition):
        for estimate in (model.log_partition_ais(5, 10), model.log_partition_reverse_ais(images, 10, 2)):
            assert isfinite(estimate.log_partition)
    if isinstance(model, LikelihoodModel):
        terms = model.objective(images, condition)
        assert all(term is None or term.shape == (len(images),) for term in terms)
    if isinstance(model, EnergyModel):
        state = model.gibbs(model.data_state(images), 2)
        assert model.energy(state).shape == model.data_energy(images).shape == (len(images),)


def prepared(shape: Shape) -> ImageDataModule:
    module = data(shape)
    module.prepare_data()
    module.setup("test")
    return module


def check_images(images: Tensor, count: int, shape: Shape) -> None:
    assert images.shape == (count, *shape)
    assert images.dtype is torch.float32
    assert images.isfinite().all()
    assert images.min() >= 0
    assert images.max() <= 1


def check_samples(model: GenerativeModel, loaded: LitGenModule, run: pl.Trainer) -> None:
    assert isinstance(loaded, GenerativeModel)
    shape = model.image_shape
    torch.manual_seed(3)
    ours = model.sample(4)
    torch.manual_seed(3)
    assert torch.equal(loaded.sample(4), ours)
    check_images(ours, 4, shape)
    assert not ours.requires_grad
    assert len({tuple(image.flatten().tolist()) for image in ours}) > 1, "all samples are the same"
    # `sample` leaves mode and seed to its caller.
    model.train()
    model.sample(2)
    assert model.training
    model.eval()
    if not isinstance(model, Conditional):
        with pytest.raises(ValueError, match="takes no condition"):
            model.sample(1, condition=torch.zeros(1))
    predictions = run.predict(model, data(shape))
    assert predictions is not None
    check_images(torch.cat(predictions), 20, shape)


@pytest.mark.parametrize("name", slow(MODELS, VARIANTS))
def test_interrupted_run_equals_uninterrupted_run(name: str, tmp_path: Path) -> None:
    assert_exact_resume(MODELS[name], lambda: data(shape_of(name)), tmp_path, max_epochs=epochs(MODELS[name]()))


@pytest.mark.parametrize("name", [name for name, make in MODELS.items() if isinstance(make(), StagedModel)])
def test_each_stage_moves_the_parameters_it_names(name: str, tmp_path: Path) -> None:
    model, movements = MODELS[name](), Movements()
    assert isinstance(model, StagedModel)
    trainer(tmp_path, max_epochs=epochs(model), callbacks=[movements]).fit(model, data(shape_of(name)))
    names = {parameter: name for name, parameter in model.named_parameters()}
    for epoch, moved in enumerate(movements.moved):
        stage = model.stages[model.stage_at(epoch)]
        expected = {names[part] for part in model.stage_parameters(stage) if part.requires_grad}
        assert moved == expected, f"stage {stage.name}"
