"""mcgrad: gradients of expectations, as composable JAX transforms."""

__version__ = "0.1.0"  # read by the build too

from mcgrad import _stub

# What every program uses, and what is named as its file is: an import of the file would put the file in its place.
from mcgrad.natural import natural as natural
from mcgrad.perturbed import perturbed as perturbed
from mcgrad.sample import sample as sample
from mcgrad.transforms import expectation as expectation
from mcgrad.transforms import explain as explain
from mcgrad.transforms import grad as grad
from mcgrad.transforms import value_and_grad as value_and_grad

__getattr__, __dir__, __all__ = _stub.attach(__name__, __file__)
