"""What pyproject.toml cannot say yet: a compiled file that is left out where it cannot be built."""

from setuptools import Extension, setup

setup(ext_modules=[Extension("features._padding", ["features/_padding.c"], optional=True)])
