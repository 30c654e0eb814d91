"""Which rectangles of an image become slices: the arithmetic of LLaVA-UHD (arXiv 2403.11703, section 3.1).

No pixel is touched here, so a prompt's length is known from the width and height of its images alone. All sizes are
(width, height) in pixels, as Pillow gives them; grids are (columns, rows).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Size = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicePlan:
    """How one image is cut: an overview of the whole image, then the cells of a grid in row-major order."""

    source: Size
    """Size in pixels that the whole image is resized to."""
    grid: Size | None = None
    """Columns and rows of the cells; None when the overview alone shows the image well enough."""
    refined: Size | None = None
    """Size in pixels that the original is resized to before it is cut into the grid; None without a grid."""

    @property
    def cell(self) -> Size | None:
        """Size in pixels of one cell, or None without a grid."""
        if self.grid is None or self.refined is None:
            return None
        return self.refined[0] // self.grid[0], self.refined[1] // self.grid[1]

    @property
    def num_slices(self) -> int:
        """Slices the model encodes: the overview and every cell."""
        return 1 + (0 if self.grid is None else self.grid[0] * self.grid[1])

    def patch_grids(self, patch_size: int) -> list[Size]:
        """(rows, columns) in patches of every slice, overview first; the `tgt_sizes` of the image."""
        sizes = [self.source]
        if self.cell is not None:
            sizes += [self.cell] * (self.num_slices - 1)
        return [(height // patch_size, width // patch_size) for width, height in sizes]


def plan_slices(width: int, height: int, *, max_slice_nums: int, scale_resolution: int, patch_size: int) -> SlicePlan:
    """Decide how an image of `width` x `height` pixels is cut.

    The image is worth about (width * height) / scale_resolution^2 views of the encoder's native resolution, at most
    `max_slice_nums`. One view needs no grid. Otherwise the grid is the one, among those with that many cells or one
    more or less, whose shape is closest to the image's in log aspect ratio.

    Raises:
        ValueError: an image with no pixels, or a setting below one.
    """
    if width < 1 or height < 1:
        raise ValueError(f"An image of {width} x {height} pixels has nothing to encode.")
    if min(max_slice_nums, scale_resolution, patch_size) < 1:
        raise ValueError(
            "max_slice_nums, scale_resolution and patch_size must be at least 1, "
            f"got {max_slice_nums}, {scale_resolution} and {patch_size}."
        )
    views = min(math.ceil(width * height / (scale_resolution * scale_resolution)), max_slice_nums)
    if views <= 1:
        return SlicePlan(source=_fit(width, height, scale_resolution, patch_size, enlarge=True))
    columns, rows = choose_grid(width, height, views, max_slice_nums)
    cell_width, cell_height = _fit(
        _to_multiple(width, columns) / columns,
        _to_multiple(height, rows) / rows,
        scale_resolution,
        patch_size,
        enlarge=True,
    )
    return SlicePlan(
        source=_fit(width, height, scale_resolution, patch_size, enlarge=False),
        grid=(columns, rows),
        refined=(cell_width * columns, cell_height * rows),
    )


def choose_grid(width: int, height: int, views: int, max_slice_nums: int) -> Size:
    """(columns, rows) of the grid that fits the image's aspect ratio best.

    Candidates are tried for views - 1, views and views + 1 cells, and for each by rising number of columns; the first
    of equally good ones wins, which makes a square image with two cells one column of two rows.
    """
    log_ratio = math.log(width / height)
    best, best_error = (1, 1), math.inf
    for cells in (views - 1, views, views + 1):
        # One cell would be the overview again; more than the maximum is not allowed.
        if cells == 1 or cells > max_slice_nums:
            continue
        for columns in range(1, cells + 1):
            if cells % columns:
                continue
            rows = cells // columns
            error = abs(log_ratio - math.log(columns / rows))
            if error < best_error:
                best, best_error = (columns, rows), error
    return best


def _fit(width: float, height: float, scale_resolution: int, patch_size: int, *, enlarge: bool) -> Size:
    """Size near scale_resolution^2 of area with the same aspect ratio, both sides whole patches.

    Smaller pictures keep their size unless `enlarge`. The width follows from the already truncated height: released
    checkpoints were trained on exactly this order of roundings.
    """
    if enlarge or width * height > scale_resolution * scale_resolution:
        ratio = width / height
        height = int(scale_resolution / math.sqrt(ratio))
        width = int(height * ratio)
    return _to_multiple(width, patch_size), _to_multiple(height, patch_size)


def _to_multiple(length: float, unit: int) -> int:
    """Nearest multiple of `unit`, at least one unit; halves go to the even multiple, as Python rounds."""
    return max(round(length / unit) * unit, unit)
