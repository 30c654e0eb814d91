"""Slicing arithmetic and the image processor's pixels."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from golden.golden_set import GoldenSet, image_processor_of
from golden.ledger import Ledger
from model import MiniCPMVImageProcessor
from model.prompt import image_pieces

PIXEL = 1 / 255
"""On the scale of `pixel_values`, -1 to 1, where neighbouring grey levels are 2/255 apart."""


def decoded(levels: Tensor) -> Tensor:
    """Normalised pixels of recorded grey levels."""
    return (levels.float() / 255 - 0.5) / 0.5


def check_pixels(golden: GoldenSet, ledger: Ledger, file: str) -> None:
    """Packed pixels of small pictures of every mode."""
    tensors = golden.tensors(file)
    for entry in golden.index["files"][file]["cases"]:
        case = entry["case"]
        with ledger.at(file, case):
            processor = MiniCPMVImageProcessor(entry["max_slice_nums"], entry["scale_resolution"])
            array = tensors[f"{case}.image"].numpy()
            picture = array if array.dtype == np.float32 else Image.fromarray(array)
            if isinstance(picture, Image.Image):
                ledger.same("mode", picture.mode, entry["mode"])
            out = processor(picture)
            strips = out["pixel_values"][0]
            ledger.same("sizes", out["tgt_sizes"][0], tensors[f"{case}.tgt_sizes"])
            ledger.same("sizes in the index", out["tgt_sizes"][0], entry["tgt_sizes_hw"])
            ledger.same("picture size", out["image_sizes"][0][0], entry["wh"])
            ledger.same("picture size seen", out["image_sizes"][0][0], entry["image_size_seen"])
            ledger.same("number of slices", len(strips), entry["n_pixel_tensors"])
            recorded = torch.cat([decoded(tensors[f"{case}.pixel_u8.{i}"]) for i in range(len(strips))], dim=-1)
            ledger.close("pixels", torch.cat(strips, dim=-1), recorded, PIXEL)
            for i, strip in enumerate(strips):
                if (name := f"{case}.pixel_values_float32.{i}") in tensors:
                    ledger.close("decoded pixels", strip, tensors[name], PIXEL)


def check_slicing(golden: GoldenSet, ledger: Ledger, file: str) -> None:
    """Sizes, token counts and placeholder text of one picture."""
    content = golden.json(file)
    processor = golden.released_processor
    processor.image_processor = slicer = image_processor_of(content["image_processor"])
    for row in content["rows"]:
        size = (row["w"], row["h"])
        with ledger.at(file, f"{row['w']}x{row['h']} max {row['max_slice_nums']}"):
            plan = slicer.plan(*size, row["max_slice_nums"])
            grids = plan.patch_grids(slicer.patch_size)
            width = slicer.image_feature_size
            ledger.same("grid", plan.grid, row["grid_cols_rows"])
            got = [plan.source, plan.cell, plan.refined, plan.num_slices - 1]
            ledger.same("sizes", got, [row[k] for k in ("source_wh", "slice_wh", "refine_wh", "n_slices")])
            ledger.same("patch sizes", grids, row["tgt_sizes_hw"])
            count = processor.image_token_count(*size, max_slice_nums=row["max_slice_nums"])
            counts = [plan.num_slices * width, count]
            ledger.same("tokens", counts, [row["n_unk_tokens"], row["n_tokens_real_tokenizer"]])
            texts = [_placeholder(plan.grid, width, number) for number in (0, None)]
            recorded = [row[key].replace("{U}", "<unk>" * width) for key in ("placeholder", "placeholder_no_image_id")]
            ledger.same("placeholder text", texts, recorded)
            ledger.same("placeholder hash", hashlib.sha256(texts[0].encode()).hexdigest(), row["placeholder_sha256"])
            if "upstream_preprocess_error" in row:
                # Released code takes such a picture for channel-first; here it is a picture like any other.
                array = np.zeros((row["h"], row["w"], 3), dtype=np.uint8)
                ledger.same("sizes of the pixels", slicer(array, row["max_slice_nums"])["tgt_sizes"][0], grids)


def _placeholder(grid: tuple[int, int] | None, width: int, number: int | None) -> str:
    pieces = image_pieces(grid, width, number)
    return "".join("<unk>" * piece if isinstance(piece, int) else piece for piece in pieces)


def check_sweep(golden: GoldenSet, ledger: Ledger, file: str) -> None:
    """Many random sizes, in one comparison a column."""
    with ledger.at(file, "sweep"):
        tensors, slicer = golden.tensors(file), golden.released_processor.image_processor
        sweep, names = tensors["sweep"], [name.partition("(")[0] for name in _columns(tensors.metadata["columns"])]
        plans = [slicer.plan(w, h, maximum) for w, h, maximum in sweep[:, :3].tolist()]
        rows = [[*(plan.grid or (0, 0)), *plan.source, *(plan.refined or (0, 0))] for plan in plans]
        for i, name in enumerate(names[3:]):
            ledger.same(name, [row[i] for row in rows], sweep[:, 3 + i])


def _columns(text: str) -> list[str]:
    """Column names, split at the commas outside of brackets."""
    names, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            names.append("")
        else:
            names[-1] += character
    return names
