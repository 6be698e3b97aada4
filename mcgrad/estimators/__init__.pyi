from mcgrad.estimators.auto import Auto as Auto
from mcgrad.estimators.baselines import fitted as fitted
from mcgrad.estimators.baselines import moving_average as moving_average
from mcgrad.estimators.binary import ARM as ARM
from mcgrad.estimators.binary import ARMS as ARMS
from mcgrad.estimators.binary import DisARM as DisARM
from mcgrad.estimators.bonnet_price import BonnetPrice as BonnetPrice
from mcgrad.estimators.boundary import PathwiseWithBoundary as PathwiseWithBoundary
from mcgrad.estimators.coupled import ARSM as ARSM
from mcgrad.estimators.coupled import CARMS as CARMS
from mcgrad.estimators.coupled import TreeDisARM as TreeDisARM
from mcgrad.estimators.double_control import DoubleControl as DoubleControl
from mcgrad.estimators.enumeration import Enumerate as Enumerate
from mcgrad.estimators.every_order import EveryOrder as EveryOrder
from mcgrad.estimators.generalized_reparameterization import (
    GeneralizedReparameterization as GeneralizedReparameterization,
)
from mcgrad.estimators.importance_sampling import ImportanceSampling as ImportanceSampling
from mcgrad.estimators.local_expectation import LocalExpectation as LocalExpectation
from mcgrad.estimators.measure_valued import MeasureValued as MeasureValued
from mcgrad.estimators.pathwise import AdaptiveVelocity as AdaptiveVelocity
from mcgrad.estimators.pathwise import Pathwise as Pathwise
from mcgrad.estimators.relax import LAX as LAX
from mcgrad.estimators.relax import RELAX as RELAX
from mcgrad.estimators.score import Score as Score
from mcgrad.estimators.smoothed_perturbation import SmoothedPerturbation as SmoothedPerturbation
from mcgrad.estimators.straight_through import GumbelRao as GumbelRao
from mcgrad.estimators.straight_through import GumbelSoftmax as GumbelSoftmax
from mcgrad.estimators.straight_through import ReinMax as ReinMax
from mcgrad.estimators.straight_through import StraightThrough as StraightThrough
from mcgrad.estimators.sum_and_sample import SumAndSample as SumAndSample
from mcgrad.estimators.taylor import Taylor as Taylor
from mcgrad.estimators.without_replacement import ImportanceWithoutReplacement as ImportanceWithoutReplacement
from mcgrad.estimators.without_replacement import UnorderedSet as UnorderedSet
