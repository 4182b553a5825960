"""What a state looks like, put into its info by a wrapper: MiniGrid's levels as data, other environments as a PNG."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from minigrid.minigrid_env import MiniGridEnv

NOTHING = "100"  # MiniGrid's code of an empty cell
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"  # for MiniGrid's indices (type, colour, state); "z" is 35 or more


@dataclass(frozen=True)
class GridPicture:
    """A MiniGrid state.

    Attributes:
        width, height: in cells, walls included.
        cells: MiniGrid's encoding (type, colour, state) of every cell as three digits, row by row from the top.
        visible: one character per cell in the same order, "1" where the agent sees it.
        agent: its column, row and direction (0 east, 1 south, 2 west, 3 north).
        carried: the encoding of what it carries, `NOTHING` if it carries nothing.
    """

    width: int
    height: int
    cells: str
    visible: str
    agent: tuple[int, int, int]
    carried: str


class Pictures(gym.Wrapper):
    """Adds `info["picture"]`: a `GridPicture`, a PNG as a data URI, or None where the environment draws nothing.

    It reads the environment and changes nothing in it, so an episode is the same with and without.
    """

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**kwargs)
        return observation, {**info, "picture": self._picture()}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, {**info, "picture": self._picture()}

    def _picture(self) -> GridPicture | str | None:
        if isinstance(self.unwrapped, MiniGridEnv):
            return grid_picture(self.unwrapped)
        if self.render_mode != "rgb_array":
            return None
        try:
            frame = self.env.render()
        except gym.error.DependencyNotInstalled:  # its renderer is an extra of gymnasium
            return None
        return None if frame is None else png_uri(np.asarray(frame))


def grid_picture(env: MiniGridEnv) -> GridPicture:
    """The present state of a MiniGrid environment."""
    codes = env.grid.encode().transpose(1, 0, 2)  # (height, width, 3), minigrid's own is by column
    column, row = (int(place) for place in env.agent_pos)
    return GridPicture(
        width=env.grid.width,
        height=env.grid.height,
        cells=_digits(codes.ravel().tolist()),
        visible="".join("1" if seen else "0" for seen in visible_cells(env).ravel().tolist()),
        agent=(column, row, int(env.agent_dir)),
        carried=NOTHING if env.carrying is None else _digits(env.carrying.encode()),
    )


def _digits(codes: Iterable[int]) -> str:
    return "".join(DIGITS[min(int(code), len(DIGITS) - 1)] for code in codes)


def visible_cells(env: MiniGridEnv) -> np.ndarray:
    """(height, width) bool: the cells of the grid that the agent sees."""
    _, seen = env.gen_obs_grid()  # by column and row of the view; the agent is at the middle of its last row
    visible = np.zeros((env.grid.height, env.grid.width), dtype=bool)
    ahead, right = env.dir_vec, env.right_vec
    size = env.agent_view_size
    corner = np.asarray(env.agent_pos) + ahead * (size - 1) - right * (size // 2)
    for across, down in zip(*np.nonzero(seen), strict=True):
        column, row = corner - ahead * down + right * across
        if 0 <= column < env.grid.width and 0 <= row < env.grid.height:
            visible[row, column] = True
    return visible


def png_uri(frame: np.ndarray) -> str:
    """An image of shape (height, width, 3 or 4), uint8, as a data URI."""
    from matplotlib.image import imsave  # slow to import, and MiniGrid's levels do without

    buffer = io.BytesIO()
    imsave(buffer, np.ascontiguousarray(frame), format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
