"""Callbacks that watch a model through its contract: they know ``lit_gen.models.base`` and no concrete model."""

from lit_gen.callbacks.alignment import Alignment, alignment_picture, captioned_grid
from lit_gen.callbacks.caption_accuracy import CaptionAccuracy
from lit_gen.callbacks.caption_retrieval import CaptionRetrieval
from lit_gen.callbacks.caption_similarity import CaptionSimilarity
from lit_gen.callbacks.checkpoint_io import AtomicCheckpointIO
from lit_gen.callbacks.checkpoints import BestAndLast
from lit_gen.callbacks.columns import ReconstructionColumns, ShiftExperiment
from lit_gen.callbacks.compile import Compile
from lit_gen.callbacks.completion import Completion
from lit_gen.callbacks.config import RunConfig
from lit_gen.callbacks.defaults import default_callbacks
from lit_gen.callbacks.doctor import Doctor
from lit_gen.callbacks.estimator import LikelihoodEstimator
from lit_gen.callbacks.estimators import ActiveUnits, Annealing, ImportanceSampling, ParzenWindow
from lit_gen.callbacks.evaluation import FirstBatchCallback, evaluation
from lit_gen.callbacks.feature_classification import FeatureClassification
from lit_gen.callbacks.held_out_views import HeldOutViews
from lit_gen.callbacks.images import Filters, ReconstructionGrid, SampleGrid
from lit_gen.callbacks.inpainting import Inpainting
from lit_gen.callbacks.landscape import EnergyLandscape
from lit_gen.callbacks.latents import LatentGrid, arithmetic_grid
from lit_gen.callbacks.likelihood_desk import LikelihoodDesk
from lit_gen.callbacks.logging import image_grid, log_animation, log_image, run_folder
from lit_gen.callbacks.memorization import Memorization
from lit_gen.callbacks.metrics import GenerationMetrics, ImportanceBound
from lit_gen.callbacks.mode_coverage import ModeCoverage
from lit_gen.callbacks.partition import LogPartition
from lit_gen.callbacks.profiler import Unprofiled
from lit_gen.callbacks.progress import ProgressBar
from lit_gen.callbacks.pseudo_likelihood import PseudoLikelihood
from lit_gen.callbacks.pyramid_parzen import PyramidParzen
from lit_gen.callbacks.resume import ExactResume
from lit_gen.callbacks.trajectory import Trajectory
from lit_gen.callbacks.validation import ValidateAtEnd
from lit_gen.callbacks.views import ClassMorph, Turntable, ViewGrid
from lit_gen.callbacks.voxels import VoxelGrid
from lit_gen.callbacks.writer import ImageWriter, prompted_names, refuse_leftovers, write_images, write_prompted
from lit_gen.rendering import render_voxels

__all__ = [
    "ActiveUnits",
    "Alignment",
    "Annealing",
    "AtomicCheckpointIO",
    "BestAndLast",
    "CaptionAccuracy",
    "CaptionRetrieval",
    "CaptionSimilarity",
    "ClassMorph",
    "Compile",
    "Completion",
    "Doctor",
    "EnergyLandscape",
    "ExactResume",
    "FeatureClassification",
    "Filters",
    "FirstBatchCallback",
    "GenerationMetrics",
    "HeldOutViews",
    "ImageWriter",
    "ImportanceBound",
    "ImportanceSampling",
    "Inpainting",
    "LatentGrid",
    "LikelihoodDesk",
    "LikelihoodEstimator",
    "LogPartition",
    "Memorization",
    "ModeCoverage",
    "ParzenWindow",
    "ProgressBar",
    "PseudoLikelihood",
    "PyramidParzen",
    "ReconstructionColumns",
    "ReconstructionGrid",
    "RunConfig",
    "SampleGrid",
    "ShiftExperiment",
    "Trajectory",
    "Turntable",
    "Unprofiled",
    "ValidateAtEnd",
    "ViewGrid",
    "VoxelGrid",
    "alignment_picture",
    "arithmetic_grid",
    "captioned_grid",
    "default_callbacks",
    "evaluation",
    "image_grid",
    "log_animation",
    "log_image",
    "prompted_names",
    "refuse_leftovers",
    "render_voxels",
    "run_folder",
    "write_images",
    "write_prompted",
]
