"""Models: one file for each paper."""

from lit_gen.models.base import GenerativeModel, LikelihoodModel, LitGenModule
from lit_gen.models.checkpoint import load_model
from lit_gen.models.classifier import Classifier
from lit_gen.models.optimizers import FusedAdam
from lit_gen.models.vae import VAE

__all__ = ["VAE", "Classifier", "FusedAdam", "GenerativeModel", "LikelihoodModel", "LitGenModule", "load_model"]
