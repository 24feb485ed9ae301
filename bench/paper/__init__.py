"""Experiments of the source paper, one command each."""
