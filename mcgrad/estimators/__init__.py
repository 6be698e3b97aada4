"""Estimators: one rule for one random choice each."""

from mcgrad import _stub

__getattr__, __dir__, __all__ = _stub.attach(__name__, __file__)
