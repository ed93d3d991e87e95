"""Networks without loss or optimizer, injected into models as factories."""

from lit_gen.networks.attention import (
    AttentiveReader,
    AttentiveWriter,
    FilterBank,
    FullReader,
    FullWriter,
    Glimpse,
    Reader,
    ReaderFactory,
    Stroke,
    Window,
    Writer,
    WriterFactory,
)
from lit_gen.networks.average import MovingAverage
from lit_gen.networks.boltzmann import BoltzmannLayer, State
from lit_gen.networks.comparator import (
    Comparator,
    ComparatorFactory,
    ExemplarComparator,
    RandomComparator,
    TrainingImages,
)
from lit_gen.networks.conv import ConvDecoder, ConvEncoder
from lit_gen.networks.conv_boltzmann import ConvBoltzmannLayer
from lit_gen.networks.conv_maxout import ConvMaxoutDiscriminator, DeconvGenerator
from lit_gen.networks.conv_reader import ConvReader, ConvWriter, halving_convolutions
from lit_gen.networks.dcgan import DCGANDiscriminator, DCGANGenerator
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
from lit_gen.networks.inner import check_layer, dropped_maps, watch_layer
from lit_gen.networks.laplacian import (
    ClassPlane,
    CoarseDiscriminator,
    CoarseGenerator,
    PlaneDiscriminator,
    PlaneGenerator,
    VectorPlane,
)
from lit_gen.networks.likelihood import (
    BernoulliLikelihood,
    DiscretizedLogisticLikelihood,
    GaussianLikelihood,
    Likelihood,
    LikelihoodFactory,
)
from lit_gen.networks.maxout import MaxoutMLP, UniformMLP
from lit_gen.networks.mean_field import MeanFieldClassifier
from lit_gen.networks.minibatch import MinibatchDeviation, MinibatchDiscrimination
from lit_gen.networks.mlp import MLP, GlorotMLP
from lit_gen.networks.moments import RunningMoments
from lit_gen.networks.network import Network, NetworkFactory, Recorded, Shape, build, full_precision
from lit_gen.networks.pretrained import PretrainedEncoder, TorchvisionEncoder
from lit_gen.networks.priors import FlowPrior, MixtureOfGaussians, Prior, PriorFactory, StandardNormal, VampPrior
from lit_gen.networks.recurrent import CellFactory, ConvLSTMCell, LSTMCell, LSTMState, RecurrentCell
from lit_gen.networks.sentence import (
    BidirectionalLSTM,
    FixedSentence,
    Sentence,
    SentenceEncoder,
    SentenceEncoderFactory,
    SentenceReader,
    SentenceReaderFactory,
    SoftAlignment,
    WordVectors,
)
from lit_gen.networks.sngan import SNGANDiscriminator, SNGANGenerator
from lit_gen.networks.softmax import CategoricalVisible
from lit_gen.networks.timed import BumpMLP, TimedNetwork, TimedNetworkFactory
from lit_gen.networks.torchvision_comparator import TorchvisionComparator
from lit_gen.networks.unet import UNet
from lit_gen.networks.upconv import UpConv, UpConvFactory, UpConvNetwork, unpool
from lit_gen.networks.vae_gan import VAEGANDiscriminator, VAEGANEncoder, VAEGANGenerator
from lit_gen.networks.visible import BernoulliVisible, GaussianVisible, Natural, VisibleFactory, VisibleLayer

__all__ = [
    "MADE",
    "MLP",
    "AttentiveReader",
    "AttentiveWriter",
    "AutoregressiveTransform",
    "BernoulliLikelihood",
    "BernoulliVisible",
    "BidirectionalLSTM",
    "BoltzmannLayer",
    "BumpMLP",
    "CategoricalVisible",
    "CellFactory",
    "ClassPlane",
    "CoarseDiscriminator",
    "CoarseGenerator",
    "Comparator",
    "ComparatorFactory",
    "ConvBoltzmannLayer",
    "ConvDecoder",
    "ConvEncoder",
    "ConvLSTMCell",
    "ConvMaxoutDiscriminator",
    "ConvReader",
    "ConvWriter",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "DeconvGenerator",
    "DeepBoltzmannMachine",
    "DiscretizedLogisticLikelihood",
    "ExemplarComparator",
    "FilterBank",
    "FixedSentence",
    "Flow",
    "FlowFactory",
    "FlowPrior",
    "FullReader",
    "FullWriter",
    "GaussianLikelihood",
    "GaussianVisible",
    "Glimpse",
    "GlorotMLP",
    "InverseAutoregressiveFlow",
    "LSTMCell",
    "LSTMState",
    "Likelihood",
    "LikelihoodFactory",
    "MaxoutMLP",
    "MeanFieldClassifier",
    "MinibatchDeviation",
    "MinibatchDiscrimination",
    "MixtureOfGaussians",
    "MovingAverage",
    "Natural",
    "Network",
    "NetworkFactory",
    "PlanarFlow",
    "PlanarTransform",
    "PlaneDiscriminator",
    "PlaneGenerator",
    "PretrainedEncoder",
    "Prior",
    "PriorFactory",
    "RadialFlow",
    "RadialTransform",
    "RandomComparator",
    "Reader",
    "ReaderFactory",
    "Recorded",
    "RecurrentCell",
    "RunningMoments",
    "SNGANDiscriminator",
    "SNGANGenerator",
    "Sentence",
    "SentenceEncoder",
    "SentenceEncoderFactory",
    "SentenceReader",
    "SentenceReaderFactory",
    "Shape",
    "SoftAlignment",
    "StandardNormal",
    "State",
    "Stroke",
    "TimedNetwork",
    "TimedNetworkFactory",
    "TorchvisionComparator",
    "TorchvisionEncoder",
    "TrainingImages",
    "UNet",
    "UniformMLP",
    "UpConv",
    "UpConvFactory",
    "UpConvNetwork",
    "VAEGANDiscriminator",
    "VAEGANEncoder",
    "VAEGANGenerator",
    "VampPrior",
    "VectorPlane",
    "VisibleFactory",
    "VisibleLayer",
    "Window",
    "WordVectors",
    "Writer",
    "WriterFactory",
    "build",
    "check_layer",
    "dropped_maps",
    "full_precision",
    "halving_convolutions",
    "unpool",
    "watch_layer",
]
