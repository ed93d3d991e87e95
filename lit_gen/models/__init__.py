"""Models: one file for each paper."""

from lit_gen.models.aae import AAE
from lit_gen.models.adversarial import AdversarialModel, Player
from lit_gen.models.adversarial_losses import (
    AdversarialLoss,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Wasserstein,
)
from lit_gen.models.align_draw import AlignDRAW
from lit_gen.models.augmentations import Augmentation, DiffAugment
from lit_gen.models.balance import BalancingRule, Equilibrium, ErrorBalance, RatioBalance
from lit_gen.models.base import GenerativeModel, LikelihoodModel, LitGenModule
from lit_gen.models.bgan import BGAN
from lit_gen.models.chairs import ChairGenerator
from lit_gen.models.checkpoint import load_model
from lit_gen.models.class_ddpm import ClassDDPM
from lit_gen.models.class_lapgan import ClassLAPGAN
from lit_gen.models.class_rbm import ClassRBM
from lit_gen.models.classifier import Classifier
from lit_gen.models.classifier_comparator import ClassifierComparator
from lit_gen.models.classifier_encoder import ClassifierEncoder
from lit_gen.models.conv_draw import ConvDRAW
from lit_gen.models.conv_vae import ConvVAE
from lit_gen.models.cvae import ConditionalVAE
from lit_gen.models.dbm import DBM
from lit_gen.models.dbn import DBN
from lit_gen.models.dcgan import DCGAN, ClassDCGAN
from lit_gen.models.ddpm import DDPM
from lit_gen.models.deepsim import DeePSiM
from lit_gen.models.deepsim_inversion import DeePSiMInversion
from lit_gen.models.diffusion_kernels import BinomialKernel, DiffusionKernel, GaussianKernel
from lit_gen.models.diffusion_samplers import AncestralSampler, DDIMSampler, DiffusionSampler
from lit_gen.models.discrete_estimators import BoundarySeeking, DiscreteEstimator, PolicyGradient
from lit_gen.models.dpm import DPM2015
from lit_gen.models.draw import DRAW
from lit_gen.models.energy import EnergyModel
from lit_gen.models.feature_matching import FeatureMatching
from lit_gen.models.flow_vae import FlowVAE
from lit_gen.models.gan import GAN
from lit_gen.models.gradient_estimators import CIWAE, MIWAE, PIWAE, DReG, GradientEstimator, Reparametrized
from lit_gen.models.hmc_vae import HMCVAE
from lit_gen.models.image_distances import (
    FeatureDistance,
    ImageDistance,
    LayerDistance,
    PixelDistance,
    SumOfDistances,
)
from lit_gen.models.iwae import IWAE
from lit_gen.models.ladder_vae import LadderVAE
from lit_gen.models.lapgan import LAPGAN
from lit_gen.models.negative_phase import (
    ContrastiveDivergence,
    FastPersistentContrastiveDivergence,
    NegativePhase,
    ParallelTempering,
    PersistentContrastiveDivergence,
)
from lit_gen.models.noise_schedules import CosineSchedule, LinearSchedule, NoiseSchedule
from lit_gen.models.optimizers import FusedAdam, FusedSGD, GANAdam
from lit_gen.models.perceptual_likelihood import PerceptualLikelihood
from lit_gen.models.rbm import RBM
from lit_gen.models.regularizers import R1, GradientPenalty, Regularizer, WeightClipping
from lit_gen.models.schedules import GrowingSteps, LengtheningStages, MomentumSchedule, RisingMomentum
from lit_gen.models.shapenets import ShapeNets3D
from lit_gen.models.sharpened_align_draw import SharpenedAlignDRAW
from lit_gen.models.staged import StagedModel
from lit_gen.models.transformations import NoTransformation, PublishedTransformation, Transformation
from lit_gen.models.vae import VAE
from lit_gen.models.vae_gan import VAEGAN

__all__ = [
    "AAE",
    "BGAN",
    "CIWAE",
    "DBM",
    "DBN",
    "DCGAN",
    "DDPM",
    "DPM2015",
    "DRAW",
    "GAN",
    "HMCVAE",
    "IWAE",
    "LAPGAN",
    "MIWAE",
    "PIWAE",
    "R1",
    "RBM",
    "VAE",
    "VAEGAN",
    "AdversarialLoss",
    "AdversarialModel",
    "AlignDRAW",
    "AncestralSampler",
    "Augmentation",
    "BalancingRule",
    "BinomialKernel",
    "BoundarySeeking",
    "ChairGenerator",
    "ClassDCGAN",
    "ClassDDPM",
    "ClassLAPGAN",
    "ClassRBM",
    "Classifier",
    "ClassifierComparator",
    "ClassifierEncoder",
    "ConditionalVAE",
    "ContrastiveDivergence",
    "ConvDRAW",
    "ConvVAE",
    "CosineSchedule",
    "DDIMSampler",
    "DReG",
    "DeePSiM",
    "DeePSiMInversion",
    "DiffAugment",
    "DiffusionKernel",
    "DiffusionSampler",
    "DiscreteEstimator",
    "EnergyModel",
    "Equilibrium",
    "ErrorBalance",
    "FastPersistentContrastiveDivergence",
    "FeatureDistance",
    "FeatureMatching",
    "FlowVAE",
    "FusedAdam",
    "FusedSGD",
    "GANAdam",
    "GaussianKernel",
    "GenerativeModel",
    "GradientEstimator",
    "GradientPenalty",
    "GrowingSteps",
    "Hinge",
    "ImageDistance",
    "LadderVAE",
    "LayerDistance",
    "LeastSquares",
    "LengtheningStages",
    "LikelihoodModel",
    "LinearSchedule",
    "LitGenModule",
    "Minimax",
    "MomentumSchedule",
    "NegativePhase",
    "NoTransformation",
    "NoiseSchedule",
    "NonSaturating",
    "ParallelTempering",
    "PerceptualLikelihood",
    "PersistentContrastiveDivergence",
    "PixelDistance",
    "Player",
    "PolicyGradient",
    "PublishedTransformation",
    "RatioBalance",
    "Regularizer",
    "Reparametrized",
    "RisingMomentum",
    "ShapeNets3D",
    "SharpenedAlignDRAW",
    "StagedModel",
    "SumOfDistances",
    "Transformation",
    "Wasserstein",
    "WeightClipping",
    "load_model",
]
