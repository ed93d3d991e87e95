"""Networks without loss or optimizer, injected into models as factories."""

from lit_gen.networks.conv import ConvDecoder, ConvEncoder
from lit_gen.networks.likelihood import (
    BernoulliLikelihood,
    DiscretizedLogisticLikelihood,
    GaussianLikelihood,
    Likelihood,
    LikelihoodFactory,
)
from lit_gen.networks.mlp import MLP
from lit_gen.networks.network import Network, NetworkFactory, Recorded, Shape, build, full_precision

__all__ = [
    "MLP",
    "BernoulliLikelihood",
    "ConvDecoder",
    "ConvEncoder",
    "DiscretizedLogisticLikelihood",
    "GaussianLikelihood",
    "Likelihood",
    "LikelihoodFactory",
    "Network",
    "NetworkFactory",
    "Recorded",
    "Shape",
    "build",
    "full_precision",
]
