"""Predictions of a trained run on new recordings: live backbones, then the fusion."""
