"""Static description of a point grid of any number of axes, both ends included."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grid:
    """Evenly spaced points on a box, end points included; without axes it is a single point, for finite dimension.

    Args:
      points: number of points along each axis.
      lengths: length of the box along each axis, in the system's length unit.

    Raises:
      ValueError: axes disagree, fewer than two points, or a length that is not positive.
    """

    points: tuple[int, ...]
    lengths: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.points) != len(self.lengths):
            raise ValueError(f"expected one length per grid axis, got points={self.points} and lengths={self.lengths}")
        if any(n < 2 for n in self.points) or any(not length > 0 for length in self.lengths):
            raise ValueError(
                f"expected at least two points and a positive length per axis, got {self.points} points over "
                f"{self.lengths}; try Grid((64,), (10.0,))"
            )

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance between neighbouring points along each axis."""
        return tuple(length / (n - 1) for n, length in zip(self.points, self.lengths, strict=True))

    def coordinates(self, axis: int = 0) -> np.ndarray:
        """Coordinates of the points along one axis, shape (points,)."""
        return np.linspace(0.0, self.lengths[axis], self.points[axis])
