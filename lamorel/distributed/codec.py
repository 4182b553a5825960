"""A message as bytes: a pickled skeleton with placeholders, and the bytes of its tensors beside it.

Small tensors share one buffer, large ones are sent from where they lie. A model or another module is refused: weights
do not travel with requests.
"""

import io
import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

_LARGE = 1 << 16  # bytes
_ALIGNMENT = 16  # bytes of the largest type: a view of bytes as a type must begin at a multiple of its size


class Packed(NamedTuple):
    skeleton: bytes
    buffers: list[memoryview]


def pack(message: Any) -> Packed:
    """The bytes of a message.

    Raises:
        TypeError: it holds a module.
        Exception: whatever pickle says of an object that it cannot take.
    """
    file = io.BytesIO()
    packer = _Packer(file)
    packer.dump(message)
    return Packed(file.getvalue(), [memoryview(packer.small), *packer.large])


def unpack(skeleton: bytes | bytearray, buffers: Sequence[torch.Tensor]) -> Any:
    """The message.

    Args:
        buffers: uint8, of torch's own memory, as kernels may round otherwise where it is not aligned.
    """
    return _Unpacker(io.BytesIO(skeleton), buffers).load()


class _Packer(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.small = bytearray()
        self.large: list[memoryview] = []
        self._places: dict[int, tuple[Any, ...]] = {}
        self._kept: list[torch.Tensor] = []  # an id is used again once its object is gone

    def persistent_id(self, obj: Any) -> tuple[Any, ...] | None:
        if isinstance(obj, torch.nn.Module):
            raise TypeError(f"a module ({type(obj).__name__}) cannot be sent: give its data, or its weights as tensors")
        if not isinstance(obj, torch.Tensor):
            return None
        if id(obj) not in self._places:
            self._places[id(obj)] = self._place(obj)
            self._kept.append(obj)
        return self._places[id(obj)]

    def _place(self, tensor: torch.Tensor) -> tuple[Any, ...]:
        """Type, shape, buffer and offset of a tensor whose bytes are now part of the message."""
        dtype, shape = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
        plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
        raw = plain.numpy().data
        if len(raw) >= _LARGE:
            self.large.append(raw)
            return dtype, shape, len(self.large), 0
        self.small.extend(bytes(-len(self.small) % _ALIGNMENT))
        offset = len(self.small)
        self.small.extend(raw)
        return dtype, shape, 0, offset


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, buffers: Sequence[torch.Tensor]) -> None:
        super().__init__(file)
        self._buffers = buffers

    def persistent_load(self, place: tuple[Any, ...]) -> torch.Tensor:
        name, shape, buffer, offset = place
        dtype = getattr(torch, name)
        size = torch.Size(shape).numel() * dtype.itemsize
        if size == 0:
            return torch.empty(shape, dtype=dtype)
        tensor = self._buffers[buffer][offset : offset + size].view(dtype).reshape(shape)
        return tensor if buffer else tensor.clone()  # of its own: to keep or save one tensor is not to keep them all
