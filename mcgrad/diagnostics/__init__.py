"""Diagnostics: how accurate a gradient estimate is, which estimator gives the most accurate one, and if a distribution is right."""

from mcgrad.diagnostics.agreement import Agreement as Agreement
from mcgrad.diagnostics.agreement import DistributionReport as DistributionReport
from mcgrad.diagnostics.check_distribution import check_distribution as check_distribution
from mcgrad.diagnostics.compare import compare as compare
from mcgrad.diagnostics.comparison import Comparison as Comparison
from mcgrad.diagnostics.comparison import EstimatorReport as EstimatorReport
from mcgrad.diagnostics.noise import GradientNoise as GradientNoise
from mcgrad.diagnostics.noise import gradient_noise as gradient_noise
from mcgrad.diagnostics.pilot import least_variance as least_variance
from mcgrad.diagnostics.statistics import GradientStatistics as GradientStatistics
from mcgrad.diagnostics.statistics import gradient_statistics as gradient_statistics
from mcgrad.diagnostics.statistics import per_sample_grad as per_sample_grad
from mcgrad.diagnostics.statistics import samples_for as samples_for
from mcgrad.diagnostics.tune import Tuning as Tuning
from mcgrad.diagnostics.tune import tune as tune
