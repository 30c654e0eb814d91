"""Vision tower and resampler on recorded inputs, and their position tables."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from golden.golden_set import GoldenSet, Tensors
from golden.ledger import Ledger
from model import MiniCPMVConfig
from model.resampler import STILL, grid_rows, sine_frequencies, sine_rows
from model.vision import VisionEmbeddings, position_buckets

VISION = 3e-5
TABLE = 1e-6
RMS = 1e-4
"""Root mean squares of the index, which were taken over whole tensors."""


@torch.no_grad()
def check_vision_tower(golden: GoldenSet, ledger: Ledger, file: str) -> None:
    """Features of packed slices, and of a plain picture packed here."""
    tensors, model = golden.tensors(file), golden.model
    for entry in golden.index["files"][file]["cases"]:
        case = entry["case"]
        with ledger.at(file, case):
            pixels = tensors[f"{case}.pixel_values"].float()
            expected = tensors[f"{case}.last_hidden_state"]
            if f"{case}.tgt_sizes" not in tensors:
                patch = model.vpm.embeddings.patch_size
                grids = [(pixels.shape[2] // patch, pixels.shape[3] // patch)] * len(pixels)
                strips = [golden.tiny_processor.image_processor.pack(picture) for picture in pixels]
                ledger.close("features of a plain picture", torch.stack(model.vpm(strips, grids)), expected, VISION)
                continue
            grids = _grids(tensors[f"{case}.tgt_sizes"])
            lengths = [rows * columns for rows, columns in grids]
            ledger.same("sizes", grids, entry["sizes"])
            ledger.same("mask", tensors[f"{case}.patch_attention_mask"].flatten(1).sum(1), lengths)
            embedded = [
                model.vpm.embeddings(strip[..., : length * strip.shape[1]], [grid])
                for strip, grid, length in zip(pixels, grids, lengths, strict=True)
            ]
            ledger.close("embeddings", torch.cat(embedded), _valid(tensors[f"{case}.embeddings_out"], lengths), VISION)
            features = torch.cat(model.vpm(list(pixels), grids))
            ledger.close("features", features, _valid(expected, lengths), VISION)
            ledger.close("root mean square", features.square().mean().sqrt(), entry["rms_out"], RMS)


@torch.no_grad()
def check_resampler(golden: GoldenSet, ledger: Ledger, file: str) -> None:
    """Tokens of packages, and the tables of positions."""
    tensors, entry = golden.tensors(file), golden.index["files"][file]
    for case in entry["cases"]:
        name = case["case"]
        with ledger.at(file, name):
            grids = _grids(tensors[f"{name}.tgt_sizes"])
            frames = [x[: rows * columns] for x, (rows, columns) in zip(tensors[f"{name}.x"], grids, strict=True)]
            tokens = golden.model.resampler(frames, grids, case["temporal_ids"] or [[STILL]] * len(grids))
            ledger.same("sizes", grids, case["sizes"])
            ledger.same("shape", tokens.shape, case["out_shape"])
            ledger.close("tokens", tokens, tensors[f"{name}.out"], VISION)
            ledger.close("root mean square", tokens.square().mean().sqrt(), case["rms_out"], RMS)
    width, notes = golden.model.config.hidden_size, entry.get("keys", "")
    for name in sorted(tensors):
        if not name.startswith(("pos2d", "temporal")) or name == "temporal.ids":
            continue
        with ledger.at(file, name):
            _check_table(ledger, tensors, name, width, notes)


def _check_table(ledger: Ledger, tensors: Tensors, name: str, width: int, notes: str) -> None:
    """One table, at the set's width or at the width in its name; of those only the rows that the index's notes name."""
    expected = tensors[name]
    if match := re.fullmatch(r"pos2d(?:_real(\d+))?\.(\d+)x(\d+)", name):
        real, rows, columns = match[1], int(match[2]), int(match[3])
        table = grid_rows(rows, columns, int(real or width)).unflatten(0, (rows, columns))
        if real:
            cells = re.search(rf"{re.escape(name)} rows are grid cells ((?:\(\d+,\d+\),?)+)", notes)
            chosen = re.findall(r"\((\d+),(\d+)\)", cells[1] if cells else "")
            table = torch.stack([table[int(row), int(column)] for row, column in chosen])
        ledger.close("places", table, expected, TABLE)
    elif match := re.fullmatch(r"temporal_omega_(\d+)", name):
        # The last frequencies are small: only a relative error says something about them.
        ledger.relative("frequencies", torch.from_numpy(sine_frequencies(int(match[1]) // 2)), expected, TABLE, 1e-12)
    elif match := re.fullmatch(r"temporal(?:_real(\d+)|\.table)", name):
        ids = tensors["temporal.ids"].tolist()
        if match[1]:
            rows_note = re.search(rf"{re.escape(name)} rows are ids temporal\.ids((?:\[\d+\],?)+)", notes)
            ids = [ids[int(i)] for i in re.findall(r"\[(\d+)\]", rows_note[1] if rows_note else "")]
        ledger.close("ticks", sine_rows(ids, int(match[1] or width)), expected, TABLE)
    else:
        raise ValueError(f"No check knows a table named {name}.")


def check_buckets(golden: GoldenSet, ledger: Ledger) -> None:
    """Buckets of the released vision tower's position table, beside the set, whatever the size of the set's own."""
    file = golden.buckets_path.name
    tensors = Tensors(golden.buckets_path)
    with torch.device("meta"):
        embeddings = VisionEmbeddings(MiniCPMVConfig.from_pretrained(golden.released_path).vision_config)
    with ledger.at(file, "bucket_table"):
        table = tensors["bucket_table"]
        computed = torch.full_like(table, -1)
        for row in range(len(table)):
            computed[row, : row + 1] = position_buckets(row + 1, embeddings.buckets_per_axis)
        ledger.same("buckets", computed, table)
    for name in tensors:
        if name != "bucket_table":
            with ledger.at(file, name):
                rows, columns = map(int, name.rpartition(".")[2].split("x"))
                ledger.same("position ids", embeddings.position_ids(rows, columns), tensors[name])


def _grids(sizes: Tensor) -> list[tuple[int, int]]:
    return [(int(rows), int(columns)) for rows, columns in sizes]


def _valid(padded: Tensor, lengths: list[int]) -> Tensor:
    """Rows that are no padding, of all slices in a row."""
    return torch.cat([rows[:length] for rows, length in zip(padded, lengths, strict=True)])
