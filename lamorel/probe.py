"""Check that a way of scoring is exact for a model: on a few tokens it must agree with one unpadded sequence at a time.

Padding, packing or a continued cache may disturb a model: recurrent layers read padding, expert routers count it, and
some decoders are not causal. Such models are recognised by trying, not by name.
"""

import copy
import math
import textwrap
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from lamorel import reference
from lamorel.forwards import base_model
from lamorel.tokenization import TokenIds

# Nats per token. Two exact ways differ by rounding: 1e-14 for most models in fp64, 1e-6 in fp32, 0.2 in bf16.
_TOLERANCE = {torch.float64: 1e-8, torch.float32: 3e-5}
_LOW_PRECISION_TOLERANCE = 1.0

_SMALL_DIFFERENCE = 3e-6  # in fp32; above it, double precision is asked where that costs little

_MOST_BYTES_OF_A_COPY = 8 << 30
_FEW_BYTES_OF_A_COPY = 64 << 20

# Log-probabilities (N,) of all candidate tokens, by the given model.
Score = Callable[[Any, Sequence[TokenIds], Sequence[Sequence[TokenIds]]], torch.Tensor]


class Probe:
    """Contexts and candidates of unequal length, and their scores by one unpadded forward each.

    Args:
        model: the model as it is scored.
        positions: number of positions that the model has; None where there is no end to them.
    """

    def __init__(self, model: Any, *, positions: int | None = None) -> None:
        self.model = model
        config = base_model(model).config.get_text_config()
        # Without the padding token, which some models mask wherever it stands.
        padding = getattr(config, "pad_token_id", None)
        ids = [i for i in range(config.vocab_size) if i != padding]
        lengths = [11, 43] if positions is None else [min(length, positions - 4) for length in (11, 43)]
        head = _tokens(9, ids)  # long enough to be shared
        self.contexts = [(head + _tokens(length, ids))[:length] for length in lengths]
        self.candidates = [[_tokens(n, ids) for n in (1, 3)], [_tokens(n, ids) for n in (3, 1, 4)]]
        # A tree that branches below its root.
        self.candidates[1].append(self.candidates[1][2][:2] + self.candidates[1][0])

    def defect(self, score: Score) -> str | None:
        """Reason why `score` is not exact for this model, or None where it is.

        In low precision rounding hides mistakes, and some models amplify rounding until it looks like one. A copy of
        the model in double precision tells the two apart, if the model is small enough to be copied. Where that costs
        little, it also decides on smaller differences: an untrained model, whose weights are small, makes mistakes
        that are small on a few tokens.
        """
        difference = self._difference(self.model, self._expected, score)
        if isinstance(difference, str):
            return difference
        dtype = self.model.dtype
        cheap = self._bytes_of_a_copy <= _FEW_BYTES_OF_A_COPY
        if dtype == torch.float32 and difference <= (_SMALL_DIFFERENCE if cheap else _TOLERANCE[dtype]):
            return None
        said = f"scores differ from an unpadded forward by {difference:.2g} nats"
        exact = self._difference_in_double(score)
        if exact is None:
            return None if difference <= _TOLERANCE.get(dtype, _LOW_PRECISION_TOLERANCE) else said
        if exact > _TOLERANCE[torch.float64]:
            return f"{said}, by {exact:.2g} in double precision"
        if difference <= _TOLERANCE.get(dtype, math.inf):
            return None
        return f"{said}, by {exact:.2g} in double precision: this model amplifies rounding"

    def forget(self) -> None:
        """Free the copy in double precision."""
        self.__dict__.pop("_in_double", None)

    def _difference_in_double(self, score: Score) -> float | None:
        """Largest difference in double precision; None for a model that does not run in it."""
        if self._in_double is None:
            return None
        with _InDouble():
            difference = self._difference(*self._in_double, score)
        return None if isinstance(difference, str) or math.isinf(difference) else difference

    def _difference(self, model: Any, expected: torch.Tensor | str, score: Score) -> float | str:
        """Largest difference in nats; the error, where a forward fails."""
        if isinstance(expected, str):
            return expected
        try:
            with torch.no_grad():
                found = score(model, self.contexts, self.candidates)
        except Exception as error:  # models refuse a forward that they do not support in many ways
            return _reason(error)
        difference = (found - expected).abs().max().item()
        return math.inf if math.isnan(difference) else difference

    @cached_property
    def _expected(self) -> torch.Tensor | str:
        return self._expected_of(self.model)

    def _expected_of(self, model: Any) -> torch.Tensor | str:
        try:
            with torch.no_grad():
                return reference.token_scores(model, self.contexts, self.candidates)[0]
        except Exception as error:
            return _reason(error)

    @cached_property
    def _bytes_of_a_copy(self) -> int:
        """Of a copy in double precision."""
        return 8 * sum(parameter.numel() for parameter in self.model.parameters())

    @cached_property
    def _in_double(self) -> tuple[Any, torch.Tensor | str] | None:
        """A copy of the model in double precision and its scores; None for a model that cannot be copied."""
        quantized = getattr(base_model(self.model), "is_quantized", False)
        spread = len(set(getattr(base_model(self.model), "hf_device_map", {}).values())) > 1
        if self._bytes_of_a_copy > _MOST_BYTES_OF_A_COPY or quantized or spread:
            return None
        model = copy.deepcopy(self.model).double()
        base_model(model).set_experts_implementation("eager")  # the faster ones know no double precision
        with _InDouble():
            return model, self._expected_of(model)


class _InDouble(TorchFunctionMode):
    """Run in fp64 the parts that a model itself computes in fp32: norms, softmax, rotary angles."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        func = torch.Tensor.double if func is torch.Tensor.float else func
        kwargs = {name: _doubled(value) for name, value in (kwargs or {}).items()}
        return func(*map(_doubled, args), **kwargs)


def _doubled(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


def _reason(error: Exception) -> str:
    return textwrap.shorten(f"{type(error).__name__}: {error}", 240)


def _tokens(count: int, ids: Sequence[int]) -> TokenIds:
    """Some of the ids, spread over all of them."""
    return tuple(ids[(7919 * (i + count)) % len(ids)] for i in range(count))
