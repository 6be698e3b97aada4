"""Randomized derivatives: series cut at random, and backward passes that keep a random part of what they need."""

from mcgrad.randomized.debias import debias as debias
from mcgrad.randomized.debias_report import DebiasReport as DebiasReport
from mcgrad.randomized.debias_report import debias_report as debias_report
from mcgrad.randomized.random_checkpoint import random_checkpoint as random_checkpoint
