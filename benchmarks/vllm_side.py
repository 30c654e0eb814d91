"""vLLM's CPU build as a side of `benchmarks.rollout`, run by the interpreter of an environment of its own.

Such an interpreter has no hybrid-rl: besides vLLM and what it asks for, this file imports only what is in `benchmarks`.
vLLM gets what it is fastest with and what a step of training allows: every core that the side may have, blocks of the
cache small enough that prompts are shared, a cache that is forgotten before each call as after new weights, sampling
without seeds of each request, and no log-probabilities, which ours does record.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.grpo_cases import Sizes, Workload

BLOCK = 32
"""Tokens of a block of the cache. vLLM's own 128 on a CPU would share nothing of a prompt of 128, as a block whose last
token has yet to be forwarded is not shared; fewer than 32 are slower, it says."""

LAYOUTS = ("apart", "together")
"""vLLM's engine in processes of its own, as it does by default, or in the one that asks it."""

_FLOAT32_BYTES = 4


def environment(python: Path, threads: int, layout: str) -> dict[str, str | None]:
    """Variables of the process: offline and silent, `threads` cores, and the libraries that vLLM wants preloaded.

    Args:
        python: interpreter of the environment with vLLM; its `lib` may hold `libiomp5.so` and `libtcmalloc*.so*`.
        layout: one of `LAYOUTS`.
    """
    cores = sorted(os.sched_getaffinity(0))[:threads]
    apart = layout == "apart"
    found: dict[str, str | None] = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1" if apart else "0",
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "OMP_NUM_THREADS": None if apart else str(threads),  # apart it counts the cores; the others are to have one
        "OMP_WAIT_POLICY": None,
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    libraries = preloaded(python)
    if libraries:
        found["LD_PRELOAD"] = ":".join(map(str, libraries))
    return found


def preloaded(python: Path) -> list[Path]:
    """tcmalloc and Intel's OpenMP, as far as the environment holds them; else vLLM has the system's and torch's."""
    folder = python.absolute().parents[1] / "lib"
    patterns = ("libtcmalloc*.so", "libtcmalloc*.so.?"), ("libiomp5.so",)
    return [found[0] for names in patterns if (found := [path for name in names for path in sorted(folder.glob(name))])]


class VllmSide:
    """The engine, up, and the call that it answers.

    Args:
        folder: of the policy, as `write_folder` leaves it.
    """

    def __init__(self, work: Workload, folder: Path) -> None:
        from tokenizers import Tokenizer
        from vllm import LLM, SamplingParams

        words = Tokenizer.from_file(str(folder / "tokenizer.json"))
        ids = [words.encode(text).ids for text in work.texts]
        self._work = work
        self._llm: Any = LLM(
            model=str(folder),
            dtype="float32",
            skip_tokenizer_init=True,
            enable_prefix_caching=True,
            block_size=BLOCK,
            max_model_len=max(map(len, ids)) + work.longest,
            max_num_seqs=sum(map(len, work.lengths)),
            kv_cache_memory_bytes=cache_bytes(work.sizes, [len(i) for i in ids], work.lengths),
            disable_log_stats=True,
            seed=0,
        )
        self._prompts = [{"prompt_token_ids": i} for i, group in zip(ids, work.lengths, strict=True) for _ in group]
        self._sampling = [
            SamplingParams(temperature=1.0, max_tokens=length, ignore_eos=True, detokenize=False)
            for group in work.lengths
            for length in group
        ]
        self._lengths = [length for group in work.lengths for length in group]

    def facts(self) -> Mapping[str, Any]:
        """What the side is: versions and settings, as the engine has them."""
        import torch
        import vllm

        config = self._llm.llm_engine.vllm_config
        return {
            "vllm": vllm.__version__,
            "torch": torch.__version__,
            "python": sys.version.split()[0],
            "dtype": str(config.model_config.dtype),
            "block_size": config.cache_config.block_size,
            "prefix_caching": config.cache_config.enable_prefix_caching,
            "most_tokens_a_pass": config.scheduler_config.max_num_batched_tokens,
            "executor": str(config.parallel_config.distributed_executor_backend),
            "cores": os.environ.get("VLLM_CPU_OMP_THREADS_BIND"),
            "preloaded": [Path(path).name for path in os.environ.get("LD_PRELOAD", "").split(":") if path],
        }

    def run(self) -> dict[str, float]:
        """One call; the cache is forgotten before the clock starts, as weights that have changed would ask for."""
        assert self._llm.reset_prefix_cache()
        start = time.perf_counter()
        found = self._llm.generate(self._prompts, self._sampling, use_tqdm=False)
        wall = time.perf_counter() - start
        assert [len(one.outputs[0].token_ids) for one in found] == self._lengths
        shared = sum(one.num_cached_tokens or 0 for one in found)
        return {"wall": wall, "tokens_per_s": self._work.response_tokens / wall, "prompt_tokens_shared": float(shared)}


def cache_bytes(sizes: Sizes, prompts: list[int], lengths: list[list[int]]) -> int:
    """Room for every response together with a prompt of its own, so that nothing ever waits for memory.

    Args:
        prompts: tokens of each prompt.
        lengths: tokens of its responses.
    """
    token = 2 * sizes.layers * sizes.kv_heads * sizes.head_dim * _FLOAT32_BYTES
    rows = [prompt + length for prompt, group in zip(prompts, lengths, strict=True) for length in group]
    blocks = sum(-(-row // BLOCK) + 1 for row in rows)
    return (blocks + 1) * BLOCK * token
