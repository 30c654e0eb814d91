"""Whole runs on prompts with videos: what they train, write down and refuse."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import DEFAULT_CONFIG, SMALL
from other_models import save
from PIL import Image
from test_run import assert_same_run, interrupt_after
from videos import write_digits

import hybrid_rl
from hybrid_rl.cli.main import EXIT_USER_ERROR, main
from hybrid_rl.config import load_config
from hybrid_rl.doctor.prompts import examine_prompts
from hybrid_rl.errors import Interrupted
from hybrid_rl.images import inline_png
from hybrid_rl.kept_media import keep_media
from hybrid_rl.preflight import prepare
from hybrid_rl.run_folder import RunFolder
from hybrid_rl.saved import evaluate_saved, open_saved
from hybrid_rl.saved_evaluations import evaluate_blind
from hybrid_rl.studies.replay import replay
from hybrid_rl.train import resume
from hybrid_rl.workers.actor import ActorWorker

SETTINGS = [o for o in SMALL if not o.startswith("warmup.")]
SETTINGS += ["run.steps=2", "evaluation.blind=true", "train.prompts_per_step=4", "checkpoints.keep_best=null"]
SETTINGS += ["rewards.accuracy={target: 'rewards.ocr_match:ocr_match'}", "rewards.format={target: 'VARIED:varied'}"]


def write_data(folder: Path, count: int = 24) -> list[dict[str, Any]]:
    """`films.jsonl`: digits to read one after the other from a GIF, a folder of frames, or beside a picture."""
    rows: list[dict[str, Any]] = []
    for number in range(count):
        digits = f"{number % 10}{7 * number % 10}{3 * number % 10}"[: 2 + number % 2]
        name = write_digits(folder / f"{number}.gif", digits, seed=number)
        row: dict[str, Any] = {"prompt": "Read the digits.", "videos": [Path(name).name], "gold": digits}
        if number % 4 == 1:
            frames = folder / f"{number}"
            frames.mkdir(exist_ok=True)
            for place, digit in enumerate(digits):
                write_digits(folder / "one.gif", digit, seed=number)
                Image.open(folder / "one.gif").convert("RGB").save(frames / f"frame_{place + 9}.png")
            row["videos"] = [{"frames": frames.name, "frames_per_second": 2}]
        if number % 4 == 2:
            (folder / f"{number}.png").write_bytes(inline_png(Image.new("RGB", (40, 40), "white")).data)
            row["images"] = [f"{number}.png"]
        rows.append(row)
    (folder / "films.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "varied.py").write_text("def varied(ids): return sum(ids) % 5 / 4\n")
    return rows


def overrides_of(folder: Path, *more: str) -> list[str]:
    source = "{target: 'hybrid_rl.data.files:FileSource', args: {path: %s, eval_fraction: 0.3}}" % (
        folder / "films.jsonl"
    )
    return [
        *(setting.replace("VARIED", str(folder / "varied.py")) for setting in SETTINGS),
        f"data.sources={{film: {source}}}",
        "warmup=null",
        *more,
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps with checkpoints of both."""
    folder = tmp_path_factory.mktemp("films")
    write_data(folder)
    summary = hybrid_rl.run(load_config(DEFAULT_CONFIG, overrides_of(folder, f"run.dir={folder / 'run'}")))
    assert (summary["status"], summary["steps"]) == ("completed", 2)
    assert summary["warnings"] == []
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_videos_are_encoded_once_a_phase_and_learned_from_on_policy(finished: Path) -> None:
    first, second = lines(finished / "run" / "metrics.jsonl")
    for row in (first, second):
        for phase in ("generate", "reference", "update"):
            assert row[f"encodes_per_image/{phase}"] == 1.0, phase
        assert row["ratio_deviation"] < 1e-4 and row["grad_norm"] > 0 and row["padding/update"] == 0
    rows = lines(finished / "run" / "rollouts" / "step_000001.jsonl")
    assert {row["mode"] for row in rows} == {"short", "long"}


def test_records_and_the_report_show_a_strip_of_frames(finished: Path) -> None:
    run = finished / "run"
    rows = lines(run / "rollouts" / "step_000002.jsonl")
    for row in rows:
        (name,) = row["videos"]
        with Image.open(run / name) as strip:
            assert strip.height == 80 and strip.width == 82 * len(row["gold"]) - 2  # frames of 40 pixels, doubled
    assert 'alt="frames of a video of the prompt"' in (run / "report.html").read_text()


def test_blind_evaluation_hides_videos(finished: Path) -> None:
    run = finished / "run"
    sighted, blinded = (lines(run / "eval_items" / f"{name}.jsonl") for name in ("after", "blind/after"))
    assert [row["prompt_id"] for row in sighted] == [row["prompt_id"] for row in blinded]
    assert [row["tokens"] for row in sighted] != [row["tokens"] for row in blinded]
    summary = json.loads((run / "summary.json").read_text())
    assert evaluate_blind(open_saved(run), None)["blind"] == summary["eval_blind"]["after"]


def test_the_saved_run_evaluates_and_replays(finished: Path) -> None:
    summary = json.loads((finished / "run" / "summary.json").read_text())
    keep_media(0)
    assert evaluate_saved(open_saved(finished / "run"), None) == summary["eval"]["after"]
    for mode in replay(RunFolder.existing(finished / "run"), rescore=True):
        assert mode.responses > 0 and mode.largest_difference == 0


def test_an_interrupted_run_goes_on_as_it_would_have(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = tmp_path / "half"
    with monkeypatch.context() as patch:
        interrupt_after(patch, ActorWorker, "update", 1)
        with pytest.raises(Interrupted):
            hybrid_rl.run(load_config(DEFAULT_CONFIG, overrides_of(finished, f"run.dir={half}")))
    resume(half)
    assert_same_run(finished / "run", half, 2)


def test_show_prompt_and_doctor_count_the_tokens_of_a_video(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(DEFAULT_CONFIG, overrides_of(finished))
    material = prepare(config)
    prompts = material.prompts.first(24)
    found = {finding.topic: finding for finding in examine_prompts(config, material, prompts)}
    # A package is <image>, four queries and </image>, on a line of its own; a picture has its number.
    most = max(material.format.clip(prompt.videos[0]).num_frames for prompt in prompts)
    assert found["videos"].figures["most_tokens_of_a_prompt"] == most * (4 + 2 + 1)
    assert found["images"].figures["tokens_per_image"] == 4 + 2 + 3 + 1

    monkeypatch.setattr(sys, "argv", ["hybrid-rl", "show-prompt", str(DEFAULT_CONFIG), *overrides_of(finished)])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert not exit_.value.code
    counted = r"tokens, \d+ of them for \d images?, [1-9]\d* of them for 1 video, \d+ prefilled"
    assert re.search(counted, capsys.readouterr().out)


def test_generate_answers_a_question_about_a_video(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["generate", str(finished / "run"), "Read the digits.", "--video", str(finished / "0.gif")]
    monkeypatch.setattr(sys, "argv", ["hybrid-rl", *arguments, "--mode", "short"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert not exit_.value.code and "answer: " in capsys.readouterr().out


# --- what is refused -------------------------------------------------------------------------------------------------


def refusal(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    """The one sentence with which `hybrid-rl train` ends."""
    arguments = ["train", str(DEFAULT_CONFIG), *overrides_of(folder, f"run.dir={folder / 'refused'}", *overrides)]
    monkeypatch.setattr(sys, "argv", ["hybrid-rl", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main()
    captured = capsys.readouterr()
    assert exit_.value.code == EXIT_USER_ERROR and not (folder / "refused").exists()
    (sentence,) = captured.err.splitlines()
    return sentence.removeprefix("hybrid-rl: ")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no film", "it is damaged or cut short"),
        (inline_png(Image.new("RGB", (40, 40))).data, "its format is none of a video"),
    ],
)
def test_a_file_that_is_no_video_is_named_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes, reason: str
) -> None:
    rows = write_data(tmp_path, 4)
    (tmp_path / "0.gif").write_bytes(content)
    assert rows[0]["videos"] == ["0.gif"]
    sentence = refusal(tmp_path, monkeypatch, capsys)
    assert sentence.startswith(f"{tmp_path / 'films.jsonl'}:1, video 1: {tmp_path / '0.gif'} cannot be read as a video")
    assert reason in sentence and sentence.endswith("replace or remove it")


def test_frames_of_different_sizes_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(tmp_path, 4)
    Image.new("RGB", (30, 20)).save(tmp_path / "1" / "frame_10.png")
    sentence = refusal(tmp_path, monkeypatch, capsys)
    assert re.search(r"films\.jsonl:2, video 1: frame .*frame_10\.png has 30 x 20 pixels, and the first one", sentence)


def test_a_policy_without_videos_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(tmp_path, 4)
    path = save("qwen2_5_vl", tmp_path / "qwen")
    sentence = refusal(tmp_path, monkeypatch, capsys, f"model.path={path}")
    assert re.search(
        r"films\.jsonl:\d, video 1.* is a video, and the policy's processor \(Qwen2_5_VLProcessor\) takes none; give",
        sentence,
    )
    chosen = refusal(tmp_path, monkeypatch, capsys, f"model.path={path}", "model.video={max_packages: 3}")
    assert chosen.startswith("model.video: the policy's processor (Qwen2_5_VLProcessor) takes no videos")


def test_a_video_of_more_tokens_than_a_micro_batch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(tmp_path, 4)
    write_digits(tmp_path / "0.gif", "1" * 30, duration_ms=500)
    sentence = refusal(tmp_path, monkeypatch, capsys, "train.max_tokens_per_micro_batch=200")
    assert re.search(r"prompt films/000001 of source film has \d+ tokens .*max_tokens_per_micro_batch", sentence)
    assert "model.video" in sentence


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("{fps: 3}", "no key 'model.video.fps'"),
        ("{frames_per_second: 0.0}", "model.video.frames_per_second"),
        ("{max_frames_per_package: 7}", "model.video.max_frames_per_package"),
        ("{max_packages: 0}", "model.video.max_packages"),
    ],
)
def test_impossible_choices_of_frames_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str, reason: str
) -> None:
    write_data(tmp_path, 4)
    assert reason in refusal(tmp_path, monkeypatch, capsys, f"model.video={value}")
