"""Tests of `pipeline.html`."""
