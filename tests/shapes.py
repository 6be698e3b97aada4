"""The checker that `conftest` puts around mcgrad's functions: types and shapes are those of their annotations."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an `int` is a `float` too, as for type checkers
