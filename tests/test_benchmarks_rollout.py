"""The benchmark of sampling, at tiny sizes: every side says the same lengths, and vLLM gets what the others get."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from test_benchmarks import printed

from benchmarks import rollout
from benchmarks.grpo_cases import SIZES
from benchmarks.vllm_side import BLOCK, cache_bytes, environment, preloaded

VLLM = os.environ.get("VLLM_PYTHON", "")


def _interpreter(folder: Path, *libraries: str) -> Path:
    (folder / "bin").mkdir()
    (folder / "lib").mkdir()
    for name in libraries:
        (folder / "lib" / name).touch()
    python = folder / "bin" / "python"
    python.touch()
    return python


@pytest.mark.slow
def test_ours_and_generate_take_turns(capsys: pytest.CaptureFixture[str]) -> None:
    rollout.main(["--sizes", "tiny", "--case", "30m_p128", "--runs", "1", "--threads", "1"])
    found = printed(capsys)["30m_p128"]
    assert found["ratio"].keys() >= {"wall", "tokens_per_s", "peak_memory"}
    assert found["tokens"] == pytest.approx(found["ours"]["tokens_per_s"] * found["ours"]["wall"])


@pytest.mark.slow
@pytest.mark.skipif(not VLLM, reason="VLLM_PYTHON names no interpreter with vLLM")
@pytest.mark.parametrize("layout", ["apart", "together"])
def test_ours_and_vllm_take_turns(layout: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--sizes", "tiny", "--case", "30m_p512", "--runs", "1", "--threads", "1", "--peers", "vllm"]
    rollout.main([*words, "--vllm-python", VLLM, "--vllm-layout", layout])
    found = printed(capsys)["30m_p512_vllm"]
    assert found["ratio"].keys() >= {"wall", "tokens_per_s", "peak_memory"}
    assert found["sides"]["vllm"]["dtype"] == "torch.float32" and found["sides"]["vllm"]["prefix_caching"]
    assert found["samples"]["peer"][0]["tokens_per_s"] > 0


def test_vllm_has_as_many_cores_as_ours_and_stays_offline(tmp_path: Path) -> None:
    """Left alone it would keep one core free."""
    python = _interpreter(tmp_path)
    cores = sorted(os.sched_getaffinity(0))
    for threads in (1, len(cores)):
        for layout in ("apart", "together"):
            made = environment(python, threads, layout)
            assert made["VLLM_CPU_OMP_THREADS_BIND"] == ",".join(map(str, cores[:threads]))
            assert made["HF_HUB_OFFLINE"] == made["DO_NOT_TRACK"] == made["VLLM_NO_USAGE_STATS"] == "1"
            assert "LD_PRELOAD" not in made


def test_vllm_gets_the_libraries_that_its_environment_holds(tmp_path: Path) -> None:
    python = _interpreter(tmp_path, "libiomp5.so", "libiomp5_db.so", "libtcmalloc_minimal.so.4", "libother.so")
    assert [path.name for path in preloaded(python)] == ["libtcmalloc_minimal.so.4", "libiomp5.so"]
    assert environment(python, 1, "apart")["LD_PRELOAD"] == ":".join(map(str, preloaded(python)))


def test_no_response_of_vllm_waits_for_memory() -> None:
    """Two responses of 20 and 40 tokens to 30: 2 and 3 blocks at least, of keys and values in float32."""
    sizes = SIZES["tiny"]
    block = BLOCK * 2 * sizes.layers * sizes.kv_heads * sizes.head_dim * 4
    assert cache_bytes(sizes, [30], [[20, 40]]) >= (2 + 3) * block


def test_an_interpreter_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        rollout.main(["--peers", "vllm", "--vllm-python", "/nowhere/bin/python"])
    assert ended.value.code == 2
    assert "/nowhere/bin/python" in capsys.readouterr().err
