"""Special functions and solvers that distributions are made of; nothing here knows of distributions."""
