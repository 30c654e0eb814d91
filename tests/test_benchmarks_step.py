"""The benchmark of a whole step, at tiny sizes: both sides have the same work, and its table says what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_benchmarks import printed

from benchmarks import grpo_step, table, weight_sync
from benchmarks.grpo_cases import CASES, DEFAULT, FIRST_NUMBER, SIZES, Workload, peer_environment
from benchmarks.grpo_folder import tokenizer, write_folder
from benchmarks.grpo_ours import OurStep
from benchmarks.report_form import case, report
from hybrid_rl.interrupt import StopSignal
from hybrid_rl.workers.cluster import LocalCluster

TINY = SIZES["tiny"]


def test_the_work_of_the_published_cases() -> None:
    """8 prompts x 8 responses, half of them long: what the targets are stated for."""
    for name, prompt in (("text_p128", 128), ("text_p512", 512)):
        work = Workload.of(CASES[name], SIZES["30m"])
        assert {len(text.split()) for text in work.texts} == {prompt}
        assert [set(lengths) for lengths in work.lengths[::2]] == [{256}] * 4
        assert all(16 <= n <= 32 for lengths in work.lengths[1::2] for n in lengths)
        assert len(work.texts) * len(work.lengths[0]) == 64
    assert set(DEFAULT) <= set(CASES)


def test_a_word_is_a_token_and_the_stop_is_out_of_reach() -> None:
    work = Workload.of(CASES["mixed_prompts"], SIZES["30m"])
    words = tokenizer(work.sizes, stop=work.sizes.vocabulary)
    for number, text in enumerate(work.texts):
        ids = words.encode(text, add_special_tokens=False)
        assert len(ids) == len(text.split()) and ids[0] == FIRST_NUMBER + number
    assert words.eos_token_id == work.sizes.vocabulary


def test_the_peer_runs_with_its_own_defaults_unless_it_is_tuned() -> None:
    assert peer_environment(CASES["text_p128"]) == {"OMP_WAIT_POLICY": None}
    assert "MALLOC_MMAP_THRESHOLD_" in peer_environment(CASES["text_p128_peer_tuned"])


def test_our_side_takes_whole_steps_of_forced_lengths(tmp_path: Path) -> None:
    work = Workload.of(CASES["text_p128"], TINY)
    write_folder(tmp_path, TINY, images=False)
    with StopSignal() as stop:
        step = OurStep(work, tmp_path, 1, LocalCluster(stop))
        figures = [step.run() for _ in range(2)]  # it asserts the lengths itself
    for run in figures:
        assert run["wall"] == pytest.approx(run["generate_s"] + run["update_s"] + run["sync_s"])
        assert run["tokens_per_s"] == pytest.approx(work.response_tokens / run["wall"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["text_p128", "images_frozen"])
def test_both_sides_take_turns(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("trl")
    grpo_step.main(["--sizes", "tiny", "--case", name, "--runs", "1", "--threads", "1", "--micro-batches", "2", "4"])
    found = printed(capsys)[name]
    assert found["ratio"]["peak_memory"] > 0 and found["runs"] == 1
    assert set(found["sides"]["peer"]["tried_wall_s"]) == {"2", "4"}
    assert str(found["sides"]["peer"]["micro_batch"]) in ("2", "4")


def test_weights_are_sent_and_compared(capsys: pytest.CaptureFixture[str]) -> None:
    weight_sync.main(["--sizes", "tiny", "--cases", "local", "--runs", "1"])
    found = printed(capsys)["local_tiny"]
    assert found["equal_to_the_last_bit"] and found["ours"]["gib_per_s"] > 0


def test_the_table_is_made_of_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = [{"wall": 10.0, "peak_memory": 2.0, "others_cores": 0.03}]
    made = report([case("text_p128", ours, [{"wall": 55.0, "peak_memory": 5.0, "others_cores": 0.01}])])
    (tmp_path / "a.json").write_text(json.dumps(made))
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.main([str(tmp_path / "a.json"), "--into", str(readme)])
    text = readme.read_text()
    assert "| `text_p128` | 10 s | 55 s | 5.50x | 2.00 GiB | 5.00 GiB | 0.40x | 1 |" in text
    assert "at most 0.03 cores" in text and "old" not in text and text.endswith("after\n")
    table.main([str(tmp_path / "a.json")])
    assert capsys.readouterr().out.startswith("| case |")
    with pytest.raises(SystemExit, match="no place"):
        table.put_into("nothing", "")
