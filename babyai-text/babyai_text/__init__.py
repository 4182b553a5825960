"""BabyAI-Text: MiniGrid and BabyAI levels whose observations are sentences. Importing it registers its levels."""

from babyai_text.description import describe
from babyai_text.making import make, make_vec
from babyai_text.missions import task_of
from babyai_text.registration import LEVELS, register_levels
from babyai_text.vector import make_vec_from

__all__ = ["LEVELS", "describe", "make", "make_vec", "make_vec_from", "task_of"]

register_levels()
