"""Speed of the vision tower and resampler against the padded, eager way: `python -m benchmarks.vision`.

Both sides have the same random weights and run in turn in one process; their outputs are compared first. Prints JSON.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.activations import saved_bytes
from benchmarks.eager_vision import EagerResampler, EagerVisionTower
from benchmarks.pictures import MIXED_GRIDS, Slices, random_slices, real_slices
from benchmarks.report_form import case, print_report
from benchmarks.timing import interleaved, machine, product
from model.configuration_minicpmv import MiniCPMVVisionConfig
from model.image_processing import MiniCPMVImageProcessor
from model.resampler import STILL, Resampler
from model.vision import VisionTower

_SLICE_GRID = (32, 32)
"""A slice of 448 x 448 pixels."""
_HEAD_WIDTH = 128
"""Of the resampler, as in all released models."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Our vision side and the eager one with the same weights."""

    ours: tuple[VisionTower, Resampler]
    eager: tuple[EagerVisionTower, EagerResampler]

    @classmethod
    def build(cls, config: MiniCPMVVisionConfig, hidden_size: int, num_queries: int) -> Pair:
        """Random weights in float32."""
        torch.manual_seed(0)
        tower = VisionTower(config, config.num_hidden_layers)
        resampler = Resampler(num_queries, hidden_size, hidden_size // _HEAD_WIDTH, config.hidden_size)
        for name, parameter in [*tower.named_parameters(), *resampler.named_parameters()]:
            if parameter.dim() == 1:
                nn.init.constant_(parameter, 1.0 if name.endswith("weight") else 0.0)
            else:
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        return cls((tower, resampler), (EagerVisionTower.like(tower, config), EagerResampler(resampler)))

    def to(self, dtype: torch.dtype) -> None:
        """Change the type of both."""
        for module in (*self.ours, *self.eager):
            module.to(dtype)

    def runs(self, slices: Slices) -> dict[str, Callable[[], Tensor]]:
        """Tokens of all slices, by each side."""
        return {"ours": lambda: _encode(*self.ours, slices), "eager": lambda: _encode(*self.eager, slices)}


def _encode(tower: Callable[..., Any], resampler: Callable[..., Tensor], slices: Slices) -> Tensor:
    features = tower(slices.strips, slices.grids)
    return resampler(features, slices.grids, [[STILL]] * len(slices.grids))


def executed_flops(lengths: Sequence[int], tower: VisionTower, resampler: Resampler) -> float:
    """Floating-point operations of all matrix products that our side executes for slices of these lengths.

    Two for each multiply-add of linear maps and attention; norms, softmax, GELU and positions count nothing. The
    resampler counts what is executed: its key and value maps act on the queries, half of what the formulas ask for.
    """
    layers = tower.encoder.layers
    linears = sum(p.numel() for p in layers.parameters() if p.dim() == 2)
    linears += tower.embeddings.patch_embedding.weight.numel()
    width, hidden = tower.post_layernorm.weight.numel(), resampler.hidden_size
    queries = resampler.query.shape[0]
    probes = queries * resampler.attn.num_heads
    kv = 0 if isinstance(resampler.kv_proj, nn.Identity) else width * hidden
    per_token = linears + kv + 2 * probes * hidden
    attention = sum(2 * len(layers) * length**2 * width for length in lengths)
    per_slice = 3 * queries * hidden**2  # value map, output map, projection
    return 2.0 * (sum(lengths) * per_token + attention + len(lengths) * per_slice)


def float32_peak(tower: VisionTower, tokens: int) -> tuple[Callable[[], Any], float]:
    """The product that stands for peak: the largest one of the model, as one pass does it."""
    wide, narrow = tower.encoder.layers[0].mlp.fc1.weight.shape  # type: ignore[union-attr, misc]
    return product(tokens, narrow, wide)


@torch.no_grad()
def compare(name: str, pair: Pair, slices: Slices, runs: int, products: int, *, warm_up: bool = True) -> dict[str, Any]:
    """Times of both sides, largest difference of their outputs, and share of peak of ours."""
    candidates: dict[str, Callable[[], Any]] = dict(pair.runs(slices))
    outputs = [run() for run in pair.runs(slices).values()] if warm_up else []
    peak, peak_flops = float32_peak(pair.ours[0], _SLICE_GRID[0] * _SLICE_GRID[1])
    square, square_flops = product(2048, 2048, 2048)
    # Peak is taken between the others, so that it sees the same machine.
    candidates["peak"] = lambda: [peak() for _ in range(products)]
    candidates["square"] = lambda: [square() for _ in range(products)]
    seconds = interleaved(candidates, runs, warm_up=warm_up)
    flops = executed_flops(slices.lengths, *pair.ours)
    rates = {
        "ours_gflops": flops / min(seconds["ours"]) / 1e9,
        "peak_gflops_of_the_largest_product": products * peak_flops / min(seconds["peak"]) / 1e9,
        "peak_gflops_of_2048_cubed": products * square_flops / min(seconds["square"]) / 1e9,
    }
    peak_gflops = max(rates["peak_gflops_of_the_largest_product"], rates["peak_gflops_of_2048_cubed"])
    return case(
        name,
        [{"wall": wall} for wall in seconds["ours"]],
        [{"wall": wall} for wall in seconds["eager"]],
        slices=len(slices.grids),
        patches=sum(slices.lengths),
        padding_fraction=slices.padding_fraction,
        max_difference=float((outputs[0] - outputs[1]).abs().max()) if outputs else None,
        ratio_of_least=min(seconds["eager"]) / min(seconds["ours"]),
        share_of_peak=rates["ours_gflops"] / peak_gflops,
        **rates,
    )


def activation_memory(pair: Pair, slices: Slices) -> dict[str, Any]:
    """What one forward pass with gradient keeps for backward on each side, GiB; `ratio` is peer / ours."""
    parameters = [p for module in (*pair.ours, *pair.eager) for p in module.parameters()]
    kept = {name: saved_bytes(run, parameters) / 2**30 for name, run in pair.runs(slices).items()}
    return {
        "method": "bytes saved by autograd, each storage once",
        "ours": kept["ours"],
        "peer": kept["eager"],
        "ratio": kept["eager"] / kept["ours"],
    }


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run the cases asked for."""
    config = MiniCPMVVisionConfig(
        hidden_size=options.width,
        intermediate_size=options.intermediate,
        num_attention_heads=options.heads,
        num_hidden_layers=options.layers,
    )
    # The tower stands alone here; inside the model it takes the model's choice, which is this one.
    config._attn_implementation = "sdpa"
    pair = Pair.build(config, options.hidden, options.queries)
    cases: list[dict[str, Any]] = []
    if "equal" in options.cases:
        equal = random_slices([_SLICE_GRID] * options.slices)
        cases.append(compare("equal_float32", pair, equal, options.runs, options.peak_products))
        pair.to(torch.bfloat16)
        # Without bfloat16 instructions one eager pass takes a minute or more.
        runs = options.bfloat16_runs
        cases.append(compare("equal_bfloat16", pair, equal, runs, options.peak_products, warm_up=False))
        pair.to(torch.float32)
    if "real" in options.cases:
        real = real_slices(MiniCPMVImageProcessor())
        cases.append(compare("real_float32", pair, real, options.runs, options.peak_products))
    if "mixed" in options.cases:
        mixed = random_slices(list(MIXED_GRIDS))
        found = compare("mixed_float32", pair, mixed, options.runs, options.peak_products)
        cases.append(found | {"activation_memory": activation_memory(pair, mixed)})
    return cases


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vision", description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=("equal", "real", "mixed"), default=["equal", "real", "mixed"])
    parser.add_argument("--runs", type=int, default=3, help="counted float32 runs of each side")
    parser.add_argument("--bfloat16-runs", type=int, default=1, help="counted bfloat16 runs of each side")
    parser.add_argument("--peak-products", type=int, default=10, help="products that one measurement of peak times")
    parser.add_argument("--slices", type=int, default=10, help="slices of 448x448 in the equal case")
    parser.add_argument("--layers", type=int, default=4, help="encoder layers")
    parser.add_argument("--width", type=int, default=1152, help="features of the encoder")
    parser.add_argument("--intermediate", type=int, default=4304, help="features inside its MLPs")
    parser.add_argument("--heads", type=int, default=16, help="its attention heads")
    parser.add_argument("--hidden", type=int, default=4096, help="features of the language model, a multiple of 128")
    parser.add_argument("--queries", type=int, default=64, help="tokens a slice becomes")
    parser.add_argument("--threads", type=int, default=None, help="threads of torch; its own choice if not given")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    cases = measure(options)
    sizes = {name: getattr(options, name) for name in ("width", "intermediate", "heads", "layers", "hidden", "queries")}
    print_report(
        cases, peer="the same weights, padded and eager", sizes=sizes, load_1_minute_after=machine()["load_1_minute"]
    )


if __name__ == "__main__":
    main()
