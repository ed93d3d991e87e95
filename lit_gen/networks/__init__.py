"""Networks without loss or optimizer, injected into models as factories."""

from lit_gen.networks.boltzmann import BoltzmannLayer, State
from lit_gen.networks.conv import ConvDecoder, ConvEncoder
from lit_gen.networks.conv_boltzmann import ConvBoltzmannLayer
from lit_gen.networks.deep_boltzmann import DeepBoltzmannMachine
from lit_gen.networks.flows import (
    MADE,
    AutoregressiveTransform,
    Flow,
    FlowFactory,
    InverseAutoregressiveFlow,
    PlanarFlow,
    PlanarTransform,
    RadialFlow,
    RadialTransform,
)
from lit_gen.networks.likelihood import (
    BernoulliLikelihood,
    DiscretizedLogisticLikelihood,
    GaussianLikelihood,
    Likelihood,
    LikelihoodFactory,
)
from lit_gen.networks.mean_field import MeanFieldClassifier
from lit_gen.networks.mlp import MLP, GlorotMLP
from lit_gen.networks.network import Network, NetworkFactory, Recorded, Shape, build, full_precision
from lit_gen.networks.pretrained import PretrainedEncoder, TorchvisionEncoder
from lit_gen.networks.priors import FlowPrior, MixtureOfGaussians, Prior, PriorFactory, StandardNormal, VampPrior
from lit_gen.networks.softmax import CategoricalVisible
from lit_gen.networks.visible import BernoulliVisible, GaussianVisible, Natural, VisibleFactory, VisibleLayer

__all__ = [
    "MADE",
    "MLP",
    "AutoregressiveTransform",
    "BernoulliLikelihood",
    "BernoulliVisible",
    "BoltzmannLayer",
    "CategoricalVisible",
    "ConvBoltzmannLayer",
    "ConvDecoder",
    "ConvEncoder",
    "DeepBoltzmannMachine",
    "DiscretizedLogisticLikelihood",
    "Flow",
    "FlowFactory",
    "FlowPrior",
    "GaussianLikelihood",
    "GaussianVisible",
    "GlorotMLP",
    "InverseAutoregressiveFlow",
    "Likelihood",
    "LikelihoodFactory",
    "MeanFieldClassifier",
    "MixtureOfGaussians",
    "Natural",
    "Network",
    "NetworkFactory",
    "PlanarFlow",
    "PlanarTransform",
    "PretrainedEncoder",
    "Prior",
    "PriorFactory",
    "RadialFlow",
    "RadialTransform",
    "Recorded",
    "Shape",
    "StandardNormal",
    "State",
    "TorchvisionEncoder",
    "VampPrior",
    "VisibleFactory",
    "VisibleLayer",
    "build",
    "full_precision",
]
