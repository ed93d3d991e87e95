"""A DeePSiM that tells its weights: an autoencoder needs no noise."""

from lit_gen.models import DeePSiM
from tests.models.written import WritesWeights


class Written(WritesWeights, DeePSiM):
    """Writes the weights that a process begins and ends with."""
