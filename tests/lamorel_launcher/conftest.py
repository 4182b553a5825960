"""The tiny models of tests/lamorel."""

from tests.lamorel.conftest import tiny_models

__all__ = ["tiny_models"]
