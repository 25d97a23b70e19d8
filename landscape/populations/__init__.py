"""Populations: many models trained by a design, and all of them measured."""
