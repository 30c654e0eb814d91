"""`python -m benchmarks.rollout`: the rollout engine against `transformers.generate` or vLLM, in turn, same weights.

8 prompts x 8 responses of a random Qwen3, half of them short (16 to 32 tokens), half long. Both sides are forced to the
same lengths: ours by the budgets of the requests, with no stop token in the vocabulary; the peer by a processor of its
logits that allows nothing but the stop token from a response's length on. One call of 64 rows each, sampled at
temperature 1 in float32, each side in a process of its own that stays warm. JSON alone goes to standard output.

vLLM lives in an environment of its own (docs/benchmarks.md), whose interpreter `--vllm-python` names. Its cases end in
`_vllm`; it is told to ignore ends, and how long each response is to be.

    python -m benchmarks.rollout                       # 30 M parameters, prompts of 128 and of 512 tokens; 120 M
    python -m benchmarks.rollout --case 30m_p128 --runs 5
    python -m benchmarks.rollout --sizes tiny          # seconds, only to see that it runs
    python -m benchmarks.rollout --peers vllm --vllm-python ~/vllm/bin/python
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.grpo_cases import SIZES, Case, Sizes, Workload
from benchmarks.grpo_folder import write_folder
from benchmarks.report_form import case as case_of
from benchmarks.report_form import print_report
from benchmarks.sides import Side, Turns, in_turn, serve
from benchmarks.vllm_side import LAYOUTS, VllmSide, environment

_SIZES_120M = replace(SIZES["30m"], hidden_size=768, layers=16, heads=12, kv_heads=6, mlp_size=2304)
CASES: dict[str, tuple[Case, Sizes]] = {
    "30m_p128": (Case(name="30m_p128"), SIZES["30m"]),
    "30m_p512": (Case(name="30m_p512", prompt_lengths=(512,)), SIZES["30m"]),
    "120m_p128_cap64": (Case(name="120m_p128_cap64", long=(64, 64)), _SIZES_120M),
}

_TINY = replace(SIZES["tiny"], head_dim=32)  # vLLM has no attention for smaller heads on a CPU
PEERS = ("generate", "vllm")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options; measure and print, or be one of the sides."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rollout",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES), help="these cases")
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each side, after one to warm up")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of each side")
    parser.add_argument("--sizes", choices=("full", "tiny"), default="full", help="tiny: only to see that it runs")
    parser.add_argument("--vllm-python", type=Path, help="interpreter of an environment with vLLM's CPU build")
    parser.add_argument("--vllm-layout", choices=LAYOUTS, default=LAYOUTS[0], help="its engine in own processes or not")
    parser.add_argument(
        "--peers", nargs="+", choices=PEERS, help="default: generate, and vllm where --vllm-python is given"
    )
    parser.add_argument("--side", choices=("ours", *PEERS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.side:
        _be(options)
        return
    peers = options.peers or PEERS[: 1 + bool(options.vllm_python)]
    if "vllm" in peers and (options.vllm_python is None or not options.vllm_python.is_file()):
        parser.error(
            f"no interpreter of vLLM at {options.vllm_python}; make its environment as docs/benchmarks.md says, and "
            "name the interpreter with --vllm-python"
        )
    cases = []
    for name in options.case:
        for case in _compare(name, peers, options):
            cases.append(case)
            print(f"{case['name']}: {case['ratio']}", file=sys.stderr, flush=True)
    print_report(cases, threads=options.threads)


def _workload(name: str, sizes: str) -> Workload:
    case, full = CASES[name]
    return Workload.of(case, _TINY if sizes == "tiny" else full)


def _compare(name: str, peers: Sequence[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """A case for each peer; all sides take turns with one another."""
    work = _workload(name, options.sizes)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "policy")
        write_folder(folder, work.sizes, images=False)
        sides = [_start(side, name, folder, options) for side in ("ours", *peers)]
        samples = in_turn(sides, options.runs, warm_up=1)
        facts = {side.name: side.facts for side in sides}
        for side in sides:
            side.close()
    return [
        case_of(
            name if peer == "generate" else f"{name}_{peer}",
            samples["ours"],
            samples[peer],
            sizes=asdict(work.sizes),
            tokens=work.response_tokens,
            sides={"ours": facts["ours"], peer: facts[peer]},
        )
        for peer in peers
    ]


def _start(side: str, name: str, folder: Path, options: argparse.Namespace) -> Side:
    words = ["benchmarks.rollout", "--side", side, "--case", name, "--sizes", options.sizes]
    words += ["--threads", str(options.threads), "--folder", str(folder)]
    if side != "vllm":
        return Side(side, words, {"OMP_NUM_THREADS": str(options.threads), "OMP_WAIT_POLICY": None})
    python = options.vllm_python
    return Side(side, words, environment(python, options.threads, options.vllm_layout), python=str(python))


def _be(options: argparse.Namespace) -> None:
    """One of the sides, in its own process."""
    turns = Turns()
    work = _workload(options.case[0], options.sizes)
    if options.side == "vllm":  # its environment has no hybrid-rl
        vllm = VllmSide(work, options.folder)
        serve(vllm.run, turns, vllm.facts())
        return
    from hybrid_rl.quiet import quiet_transformers

    quiet_transformers()
    import torch

    torch.set_num_threads(options.threads)
    side = OurSide(work, options.folder, options.threads) if options.side == "ours" else PeerSide(work, options.folder)
    serve(side.run, turns, {})


class OurSide:
    """The engine as a rollout worker has it."""

    def __init__(self, work: Workload, folder: Path, threads: int) -> None:
        from benchmarks.grpo_ours import make_config
        from hybrid_rl.machine.kernels import KernelChoice
        from hybrid_rl.workers.rollout import engine_arguments
        from hybrid_rl.workers.setup import WorkerSetup, measured_first
        from rollouts.torch_engine import TorchEngine

        config = make_config(work, folder, threads)
        kernels: KernelChoice = measured_first(config)
        setup = WorkerSetup(config=config, checkpoint=None, measured=kernels)
        self._engine = TorchEngine(setup.load(), **engine_arguments(config, kernels))
        self._work, self._calls = work, 0

    def run(self) -> dict[str, float]:
        """One call."""
        from hybrid_rl.records import Message, Prompt, Request

        self._calls += 1
        requests = []
        for p, text in enumerate(self._work.texts):
            message = Message(role="user", text=text)
            prompt = Prompt(id=str(p), source="words", task="words", messages=(message,), gold="")
            requests += [
                Request(
                    prompt=prompt, mode="answer", group=f"{p}", index=g, seed=1000 * self._calls + 100 * p + g,
                    max_new_tokens=length, temperature=1.0,
                )
                for g, length in enumerate(self._work.lengths[p])
            ]  # fmt: skip
        start = time.perf_counter()
        found = self._engine.generate(requests)
        wall = time.perf_counter() - start
        tokens = sum(len(generation.ids) for generation in found)
        assert tokens == self._work.response_tokens
        figures = self._engine.figures
        return {"wall": wall, "tokens_per_s": tokens / wall, "prefill_s": figures.prefill_seconds}


class PeerSide:
    """`transformers.generate` on all rows together, prompts padded on the left."""

    def __init__(self, work: Workload, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, LogitsProcessorList, PreTrainedTokenizerFast

        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self._model = model.eval()
        texts = [text for text, group in zip(work.texts, work.lengths, strict=True) for _ in group]
        self._inputs = tokenizer(texts, return_tensors="pt", padding=True)
        self._inputs.pop("token_type_ids", None)
        self._lengths = torch.tensor([length for group in work.lengths for length in group])
        self._work = work
        self._forced = LogitsProcessorList([self._force])

    def _force(self, ids_BT: Any, scores_BV: Any) -> Any:
        said = ids_BT.shape[1] - self._inputs["input_ids"].shape[1]
        ended_B = self._lengths == said + 1
        scores_BV[:, _STOP] = float("-inf")
        scores_BV[ended_B] = float("-inf")
        scores_BV[ended_B, _STOP] = 0.0
        return scores_BV

    def run(self) -> dict[str, float]:
        """One call."""
        import torch

        start = time.perf_counter()
        with torch.inference_mode():
            found = self._model.generate(
                **self._inputs,
                do_sample=True,
                top_k=0,
                top_p=1.0,
                temperature=1.0,
                eos_token_id=_STOP,
                pad_token_id=0,
                max_new_tokens=self._work.longest,
                logits_processor=self._forced,
            )
        wall = time.perf_counter() - start
        assert found.shape[1] == self._inputs["input_ids"].shape[1] + self._work.longest
        return {"wall": wall, "tokens_per_s": self._work.response_tokens / wall}


_STOP = 1
"""The peer's end of a response; ours never sees one."""


if __name__ == "__main__":
    main()
