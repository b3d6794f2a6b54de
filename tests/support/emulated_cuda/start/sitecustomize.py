"""Gives each Python process that finds this folder first on its path two emulated CUDA devices."""

from tests.support.emulated_cuda import api

api.install()
