"""Rank correlation of measures with generalisation over a population of models."""
