"""Scores of generated images, over pluggable feature extractors; they know no model."""

from lit_gen.metrics.base import FeatureMetric, MeanStd, SmallSampleWarning
from lit_gen.metrics.birthday import BirthdayResult, birthday_test, duplicate_radius
from lit_gen.metrics.density_coverage import DensityCoverage, DensityCoverageResult
from lit_gen.metrics.features import (
    ClassifierFeatures,
    FeatureExtractor,
    Features,
    ImageClassifier,
    InceptionV3,
    Pixels,
)
from lit_gen.metrics.fid import FID, frechet_distance
from lit_gen.metrics.generation_scores import GenerationScores, MetricName
from lit_gen.metrics.inception_score import InceptionScore
from lit_gen.metrics.kid import KID
from lit_gen.metrics.linear_probe import ProbeResult, fit_probe, linear_probe, pooled_features
from lit_gen.metrics.memorization import MemorizationResult, NearestNeighbors, judge_distances, memorization
from lit_gen.metrics.modes import ModeStatistics, mode_statistics, stacked_classes
from lit_gen.metrics.precision_recall import PrecisionRecall, PrecisionRecallResult
from lit_gen.metrics.receipt import Receipt

__all__ = [
    "FID",
    "KID",
    "BirthdayResult",
    "ClassifierFeatures",
    "DensityCoverage",
    "DensityCoverageResult",
    "FeatureExtractor",
    "FeatureMetric",
    "Features",
    "GenerationScores",
    "ImageClassifier",
    "InceptionScore",
    "InceptionV3",
    "MeanStd",
    "MemorizationResult",
    "MetricName",
    "ModeStatistics",
    "NearestNeighbors",
    "Pixels",
    "PrecisionRecall",
    "PrecisionRecallResult",
    "ProbeResult",
    "Receipt",
    "SmallSampleWarning",
    "birthday_test",
    "duplicate_radius",
    "fit_probe",
    "frechet_distance",
    "judge_distances",
    "linear_probe",
    "memorization",
    "mode_statistics",
    "pooled_features",
    "stacked_classes",
]
