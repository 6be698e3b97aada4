"""Derivatives of draws and distributions in their parameters."""
