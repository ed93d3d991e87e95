"""The callbacks that a run has unless its user says otherwise."""

import lightning.pytorch as pl

from lit_gen.callbacks.alignment import Alignment
from lit_gen.callbacks.caption_similarity import CaptionSimilarity
from lit_gen.callbacks.checkpoints import BestAndLast
from lit_gen.callbacks.columns import ShiftExperiment
from lit_gen.callbacks.completion import Completion
from lit_gen.callbacks.doctor import Doctor
from lit_gen.callbacks.held_out_views import HeldOutViews
from lit_gen.callbacks.images import Filters, ReconstructionGrid, SampleGrid
from lit_gen.callbacks.inpainting import Inpainting
from lit_gen.callbacks.landscape import EnergyLandscape
from lit_gen.callbacks.latents import LatentGrid
from lit_gen.callbacks.metrics import ImportanceBound
from lit_gen.callbacks.partition import LogPartition
from lit_gen.callbacks.pseudo_likelihood import PseudoLikelihood
from lit_gen.callbacks.resume import ExactResume
from lit_gen.callbacks.trajectory import Trajectory
from lit_gen.callbacks.validation import ValidateAtEnd
from lit_gen.callbacks.views import ClassMorph, Turntable, ViewGrid
from lit_gen.callbacks.voxels import VoxelGrid
from lit_gen.callbacks.writer import ImageWriter
from lit_gen.models.base import (
    CaptionConditional,
    ComparesImages,
    CompletesShapes,
    Decodes,
    Dreams,
    EstimatesPartition,
    GeneratesViews,
    GenerativeModel,
    HasFilters,
    HasFreeEnergy,
    HasLowerBound,
    HasTrajectory,
    Inpaints,
    LitGenModule,
    Reconstructs,
)


def default_callbacks(model: LitGenModule) -> list[pl.Callback]:
    """Checkpoints, exact resume and the doctor, and what shows and measures all that the model can do.

    Args:
        model: decides by its capabilities.
    """
    callbacks: list[pl.Callback] = [
        BestAndLast(),
        ExactResume(),
        ValidateAtEnd(),
        Doctor(),
    ]
    if isinstance(model, GenerativeModel):
        callbacks += [SampleGrid(), ImageWriter()]
        if len(model.image_shape) == 4:
            callbacks.append(VoxelGrid())
        if isinstance(model, Reconstructs):
            callbacks.append(ReconstructionGrid())
        if isinstance(model, ComparesImages):
            callbacks.append(ShiftExperiment())
        if isinstance(model, Decodes):
            callbacks.append(LatentGrid())
        if isinstance(model, CaptionConditional):
            callbacks.append(CaptionSimilarity())
        if isinstance(model, HasTrajectory):
            callbacks.append(Trajectory())
            if isinstance(model, CaptionConditional):
                callbacks.append(Alignment())
        if isinstance(model, Inpaints):
            callbacks.append(Inpainting())
        if isinstance(model, HasLowerBound) and model.bound_samples is not None:
            callbacks.append(ImportanceBound(model.bound_samples))
        if isinstance(model, CompletesShapes):
            callbacks.append(Completion())
        if isinstance(model, Dreams) and isinstance(model, HasFreeEnergy):
            callbacks.append(EnergyLandscape())
        if isinstance(model, HasFreeEnergy) and model.needs_binary:
            callbacks.append(PseudoLikelihood())
        if isinstance(model, EstimatesPartition):
            callbacks.append(LogPartition())
        if isinstance(model, GeneratesViews):
            callbacks += [Turntable(), ViewGrid(), ClassMorph(), HeldOutViews()]
        if isinstance(model, HasFilters):
            callbacks.append(Filters())
    return callbacks
