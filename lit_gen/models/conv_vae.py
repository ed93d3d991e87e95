"""Convolutional variational autoencoder: presets of the VAE for photographs and for digits.

Kingma & Welling 2013, Auto-Encoding Variational Bayes (https://arxiv.org/abs/1312.6114). The networks are the strided
and transposed convolutions of Radford, Metz & Chintala 2015, Unsupervised representation learning with deep
convolutional generative adversarial networks (https://arxiv.org/abs/1511.06434), as VAEs of faces have used them since
Larsen et al. 2015, Autoencoding beyond pixels using a learned similarity metric (https://arxiv.org/abs/1512.09300).
"""

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable

from lit_gen.models.optimizers import FusedAdam
from lit_gen.models.vae import VAE
from lit_gen.networks import (
    ConvDecoder,
    ConvEncoder,
    DiscretizedLogisticLikelihood,
    LikelihoodFactory,
    NetworkFactory,
    PriorFactory,
    Shape,
    StandardNormal,
)


class ConvVAE(VAE):
    """VAE of convolutional networks whose depth comes from the size of the images.

    Images are halved until their shorter side is about 4 pixels, while feature maps double:

    ================ ================== ========
    image            feature maps       smallest
    ================ ================== ========
    8x8              32                 4x4
    28x28, 28x20     32, 64, 128        3x3, 3x2
    32x32            32, 64, 128        4x4
    48x48            32, 64, 128, 256   3x3
    64x64            32, 64, 128, 256   4x4
    ================ ================== ========

    A variant hands in other networks, such as an encoder trained for something else
    (:class:`~lit_gen.models.ClassifierEncoder`, :class:`~lit_gen.networks.TorchvisionEncoder`), or overrides what a
    variant of :class:`VAE` does.

    Example:
        >>> ConvVAE((3, 64, 64)).sample(2).shape
        torch.Size([2, 3, 64, 64])

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        latent_dim: number of latent units.
        encoder: network from the image to the mean and log-variance of q(z given x).
        decoder: network from z to the parameters of the likelihood.
        likelihood: p(x given z); the default is a probability of 8-bit pixels, so that the bound is in bits per
            dimension. Binary pixels want ``BernoulliLikelihood``.
        kl_weight: weight of the KL term in the loss; 1 gives the bound, above 1 a beta-VAE.
        kl_warmup_steps: training steps over which the weight rises linearly from 0 (against posterior collapse).
        latent_prior: p(z), as in :class:`VAE`.
        optimizer: takes the parameters.
        lr_scheduler: takes the optimizer; stepped after each epoch.
    """

    def __init__(
        self,
        image_shape: Shape,
        latent_dim: int = 64,
        encoder: NetworkFactory = lambda i, o: ConvEncoder(i, o, channels=32, batch_norm=True, kernel_size=4),
        decoder: NetworkFactory = lambda i, o: ConvDecoder(i, o, channels=32, batch_norm=True, kernel_size=4),
        likelihood: LikelihoodFactory = DiscretizedLogisticLikelihood,
        kl_weight: float = 1.0,
        kl_warmup_steps: int = 0,
        latent_prior: PriorFactory = StandardNormal,
        optimizer: OptimizerCallable = FusedAdam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(
            image_shape,
            latent_dim,
            encoder,
            decoder,
            likelihood,
            kl_weight,
            kl_warmup_steps,
            latent_prior,
            optimizer,
            lr_scheduler,
        )
