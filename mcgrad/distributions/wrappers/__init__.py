"""Distributions made of other distributions, of plain functions, and of other libraries."""
