"""Bad input: one sentence that says where, what, and how to mend it; exit code 2; nothing half-written is left."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SMALL
from PIL import Image

from hybrid_rl.cli.main import main
from hybrid_rl.config import Config
from hybrid_rl.errors import RunFolderError
from hybrid_rl.images import inline_png

CONFIG = """\
run: {steps: 3, live: false}
data:
  sources:
    read: {target: "hybrid_rl.data.digits:DigitStrips", args: {task: read}}
modes:
  long_ratio: 0.5
  kinds:
    short: {template_args: {enable_thinking: false}, max_new_tokens: 8}
    long: {template_args: {enable_thinking: true}, max_new_tokens: 16}
rewards:
  accuracy: {target: "rewards.ocr_match:ocr_match"}
"""
OVERRIDES = [o for o in SMALL if not o.startswith(("warmup.", "run."))] + ["evaluation.before=false"]
FILES = "hybrid_rl.data.files:FileSource"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"__pycache__"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a config that is right."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def complain(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `hybrid-rl` in this process, expect it to refuse, and return the sentence."""

    def refuse(*arguments: str | Path, leaves: str | None = None, silently: bool = True) -> str:
        before = names(folder)
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["hybrid-rl", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capfd.readouterr()
        assert exit_.value.code == 2, captured.err
        lines = captured.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("hybrid-rl: "), captured.err
        assert "Traceback" not in captured.err
        if silently and not leaves:
            assert captured.out == "", "nothing is announced that will not happen"
        assert names(folder) == before | ({leaves} if leaves else set())
        return lines[0].removeprefix("hybrid-rl: ")

    return refuse


@pytest.fixture
def complain_of(complain: Callable[..., str]) -> Callable[..., str]:
    """Refusal of the right config with overrides."""
    return lambda *overrides, **more: complain("train", "c.yaml", *OVERRIDES, "run.dir=out", *overrides, **more)


def data(path: str, **args: object) -> str:
    return f"data.sources.read={json.dumps({'target': FILES, 'args': {'path': path, 'eval_fraction': 0.5, **args}})}"


def write_rows(folder: Path, count: int = 12) -> list[Path]:
    """`d.jsonl`, each row with an image of its own."""
    paths, lines = [], []
    for number in range(count):
        path = folder / f"{number}.png"
        path.write_bytes(inline_png(Image.new("RGB", (40, 40), (20 * number,) * 3)).data)
        paths.append(path)
        lines.append(json.dumps({"prompt": "How bright?", "images": [path.name], "gold": str(number)}) + "\n")
    (folder / "d.jsonl").write_text("".join(lines))
    return paths


def test_the_config_that_the_others_spoil_is_right(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["hybrid-rl", "train", "c.yaml", *OVERRIDES, "run.dir=out", "run.steps=1"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert not exit_.value.code, capfd.readouterr().err
    assert (folder / "out" / "report.html").is_file()


# --- the config file -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("trian: {}", ["c.yaml:12", "'trian'", "did you mean 'train'"]),
        ("train: {prompts_per_stp: 4}", ["c.yaml:12", "'train.prompts_per_stp'", "did you mean 'prompts_per_step'"]),
        ("train: {prompts_per_step: four}", ["c.yaml:12", "train.prompts_per_step", "integer", "'four'"]),
        ("train: {prompts_per_step: 4.5}", ["c.yaml:12", "train.prompts_per_step", "4.5"]),
        ("train: 7", ["c.yaml:12", "train", "7"]),
        ("run: {seed: 1}", ["c.yaml:12", "'run' is given twice", "line 1"]),
        ("train: {mini_batches: 2, mini_batches: 3}", ["c.yaml:12", "'train.mini_batches' is given twice"]),
        ("train: {clip_low: ", ["c.yaml:13", "not valid YAML"]),
        ("train: {optimizer: {learning_rate: .nan}}", ["c.yaml:12", "train.optimizer.learning_rate"]),
    ],
)
def test_a_mistake_in_the_config_file(
    folder: Path, complain: Callable[..., str], line: str, expected: list[str]
) -> None:
    (folder / "c.yaml").write_text(f"{CONFIG}{line}\n")
    sentence = complain("train", "c.yaml", "run.dir=out")
    assert all(piece in sentence for piece in expected), sentence


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"# nothing\n", "is empty"),
        (b"\x89PNG\r\n\x1a\n\xff\x00", "not text"),
        (b"- a\n", "mapping"),
    ],
)
def test_a_file_that_is_no_config(folder: Path, complain: Callable[..., str], content: bytes, expected: str) -> None:
    (folder / "c.yaml").write_bytes(content)
    sentence = complain("train", "c.yaml")
    assert "c.yaml" in sentence and expected in sentence


def test_a_config_that_is_not_there(folder: Path, complain: Callable[..., str]) -> None:
    assert "no config file missing.yaml" in complain("train", "missing.yaml")
    assert "cannot be read" in complain("train", folder)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("run.stepz=3", ["command line", "run.stepz", "did you mean 'steps'"]),
        ("run.steps=many", ["command line", "run.steps", "'many'"]),
        ("run.steps", ["command line", "section.key=value"]),
        ("modes.long_ratio=1.5", ["modes.long_ratio", "1.5"]),
        ("modes.long_ratio=-0.1", ["modes.long_ratio", "-0.1"]),
        ("train.responses_per_prompt=1", ["train.responses_per_prompt", "2", "not 1"]),
        ("modes.kinds.long.max_new_tokens=2", ["modes.kinds.long.max_new_tokens", "shortest valid response"]),
        ("modes.kinds.third={max_new_tokens: 9}", ["modes", "long_ratio needs exactly two kinds"]),
        ("train.optimizer.learning_rate_scale={visoin_tower: 0}", ["visoin_tower", "vision_tower"]),
        ("checkpoints.keep_best=reward/lang", ["checkpoints.keep_best", "did you mean 'reward/long'"]),
        ("model.path=nowhere", ["nowhere", "config.json"]),
        ("model.args={hidden_size: 100}", ["model.args", "128"]),
        ("model.args={hiden_size: 128}", ["hiden_size"]),
        ("model.device=gpu", ["model.device", "gpu"]),
        ("rewards={format: {target: 'rewards.mode_format:mode_format'}}", ["rewards", "accuracy"]),
    ],
)
def test_a_setting_that_cannot_be(complain_of: Callable[..., str], override: str, expected: list[str]) -> None:
    sentence = complain_of(override)
    assert all(piece in sentence for piece in expected), sentence


def test_no_config_and_two_of_them(folder: Path, complain: Callable[..., str]) -> None:
    assert "--resume" in complain("train")
    assert "--resume" in complain("train", "c.yaml", "--resume", folder)


# --- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", ["d.jsonl has no rows"]),
        ('{"prompt": "a", "gold": "1"}\n{"prompt": \n', ["d.jsonl:2 is not JSON"]),
        ('{"prompt": "a", "gold": "1"}\n[1]\n', ["d.jsonl:2 is not a JSON object"]),
        ('{"prompt": "a", "gold": "1"}\n{"prompt": "b"}\n', ["d.jsonl:2", "gold"]),
        ('{"prompt": "a", "gold": "1", "images": ["no.png"]}\n', ["d.jsonl:1", "no.png"]),
    ],
)
def test_a_data_file_with_a_defect(
    folder: Path, complain_of: Callable[..., str], content: str, expected: list[str]
) -> None:
    (folder / "d.jsonl").write_text(content)
    sentence = complain_of(data("d.jsonl"))
    assert all(piece in sentence for piece in expected), sentence


def test_a_data_file_that_is_not_there(complain_of: Callable[..., str]) -> None:
    assert "nowhere.jsonl" in complain_of(data("nowhere.jsonl"))


@pytest.mark.parametrize("damage", ["text", "truncated"])
def test_an_image_that_cannot_be_read(folder: Path, complain_of: Callable[..., str], damage: str) -> None:
    spoilt = write_rows(folder)[3]
    spoilt.write_bytes(b"no image" if damage == "text" else spoilt.read_bytes()[:60])
    sentence = complain_of(data("d.jsonl"))
    assert "3.png cannot be decoded" in sentence and "replace or remove it" in sentence
    assert " object at 0x" not in sentence


def test_a_prompt_longer_than_the_context(folder: Path, complain_of: Callable[..., str]) -> None:
    rows = [{"prompt": "word " * length, "gold": "1"} for length in (1, 1, 1, 3000)]
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sentence = complain_of(data("d.jsonl"))
    assert "d/000004" in sentence and "context" in sentence and "shorten" in sentence


def test_a_source_that_refuses_its_arguments(complain_of: Callable[..., str]) -> None:
    assert "'reed'" in complain_of("data.sources.read.args={task: reed}")
    assert "colour" in complain_of("data.sources.read.args={task: read, colour: red}")


# --- plug-ins --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "target", "expected"),
    [
        ("import nothing_of_this_name\n", "mine.py:f", ["mine.py:f", "does not import", "nothing_of_this_name"]),
        ("def f(answer: return 1\n", "mine.py:f", ["does not import", "SyntaxError"]),
        ("def g(answer, gold): return 1\n", "mine.py:f", ["has no 'f'", "it has g"]),
        ("def f(anwser, gold): return 1\n", "mine.py:f", ["rewards.accuracy", "asks for 'anwser'", "answer"]),
        ("def f(answer, /): return 1\n", "mine.py:f", ["by position"]),
        ("f = 3\n", "mine.py:f", ["not callable"]),
        ("", "nowhere.py:f", ["nowhere.py", "no file"]),
        ("", "no_such_package:f", ["no_such_package", "does not import"]),
        ("", "rewards.ocr_match", ["module:name"]),
    ],
)
def test_a_reward_that_does_not_fit(
    folder: Path, complain_of: Callable[..., str], code: str, target: str, expected: list[str]
) -> None:
    (folder / "mine.py").write_text(code)
    sentence = complain_of(f"rewards.accuracy={{target: '{target}'}}")
    assert all(piece in sentence for piece in expected), sentence


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.sources.read={target: 'mine.py:Source'}", ["mine.py:Source", "split"]),
        ("rollout.engine='mine.py:Source'", ["rollout.engine", "generate"]),
        ("rollout.engine='rollouts.torch_engin:TorchEngine'", ["rollouts.torch_engin"]),
        ("rollout.args={speed: 9}", ["speed"]),
        ("model.builder='mine.py:Source'", ["mine.py:Source", "seed"]),
    ],
)
def test_other_plugins_that_do_not_fit(
    folder: Path, complain_of: Callable[..., str], override: str, expected: list[str]
) -> None:
    (folder / "mine.py").write_text("class Source:\n    def __init__(self, name): pass\n")
    sentence = complain_of("model.args={}" if "builder" in override else "run.seed=0", override)
    assert all(piece in sentence for piece in expected), sentence


# --- run folders -----------------------------------------------------------------------------------------------------


def test_a_run_folder_that_exists(folder: Path, complain_of: Callable[..., str]) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "precious.txt").write_text("mine")
    sentence = complain_of()
    assert "run folder out exists already" in sentence and "run.dir" in sentence
    assert [path.name for path in (folder / "out").iterdir()] == ["precious.txt"]


def test_a_run_folder_that_cannot_be_made(folder: Path, complain_of: Callable[..., str]) -> None:
    assert "c.yaml is not a folder" in complain_of("run.dir=c.yaml/run")
    assert "/proc" in complain_of("run.dir=/proc/hybrid/run", silently=False)


def test_a_run_folder_without_a_checkpoint(folder: Path, complain: Callable[..., str]) -> None:
    (folder / "run").mkdir()
    for command in (("train", "--resume", "run"), ("eval", "run"), ("generate", "run", "hello")):
        assert "run" in complain(*command)
    (folder / "run" / "config.yaml").write_text(CONFIG)
    for command in (("train", "--resume", "run"), ("eval", "run"), ("generate", "run", "hello")):
        assert "has no checkpoint" in complain(*command)
    assert "nowhere" in complain("eval", "nowhere")
    assert "nowhere" in complain("train", "--resume", "nowhere")


# --- what shows only later -------------------------------------------------------------------------------------------


def test_an_image_that_becomes_unreadable_stops_the_run_with_a_checkpoint(
    folder: Path, complain_of: Callable[..., str], complain: Callable[..., str]
) -> None:
    images = write_rows(folder)
    kept = {path: path.read_bytes() for path in images}
    (folder / "mine.py").write_text(
        "from pathlib import Path\n"
        "calls = 0\n"
        "def spoil(answer, text, gold):\n"
        "    global calls\n"
        "    calls += 1\n"
        "    if calls == 2 * 4 * 4:  # the last response of the second step\n"
        "        for path in Path(__file__).parent.glob('*.png'): path.write_bytes(b'spoilt')\n"
        "    return 0.5\n"
    )
    reward = "rewards.accuracy={target: 'mine.py:spoil', runs_in: inline}"  # it counts its calls
    last = ["evaluation.after=false", "checkpoints.every_steps=50"]
    sentence = complain_of(data("d.jsonl"), reward, *last, "run.steps=4", leaves="out")
    assert ".png cannot be decoded" in sentence and "replace or remove it" in sentence
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("failed", 1)
    assert (folder / "out" / "checkpoints" / "step_000001" / "model.safetensors").is_file()

    assert "cannot be decoded" in complain("train", "--resume", "out", silently=False), "still unreadable"
    for path, content in kept.items():
        path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["hybrid-rl", "train", "--resume", "out"])
        with pytest.raises(SystemExit) as exit_:
            main()
    assert not exit_.value.code
    assert json.loads((folder / "out" / "summary.json").read_text())["steps"] == 4


def test_questions_that_a_run_cannot_answer(
    folder: Path, complain: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*OVERRIDES, "evaluation.after=false", "run.dir=out", "run.steps=1"]
    monkeypatch.setattr(sys, "argv", ["hybrid-rl", "train", "c.yaml", *overrides])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert not exit_.value.code
    (folder / "broken.png").write_bytes(b"nothing")
    weights = folder / "out" / "checkpoints" / "step_000001" / "model.safetensors"

    def refuse(*more: str) -> str:
        return complain("generate", "out", *more)

    assert "no mode 'lang'; the run has short, long" in refuse("--mode", "lang", "hello")
    assert "missing.png" in refuse("--image", "missing.png", "hello")
    assert "broken.png cannot be decoded" in refuse("--image", "broken.png", "hello")
    assert "context" in refuse("word " * 3000)
    weights.write_bytes(weights.read_bytes()[:3000])
    assert "the weights cannot be loaded" in refuse("hello")


# --- as a process ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "c.yaml", "run.stesp=1"], "did you mean 'steps'"),
        (["train", "c.yaml", "cluster.executor=ray", "data.sources.read.args={task: reed}"], "did you mean 'read'"),
        (["eval", "nowhere", "--json"], "nowhere is neither a run folder nor a checkpoint"),
    ],
)
def test_the_installed_command_refuses_in_one_sentence(folder: Path, arguments: list[str], expected: str) -> None:
    command = Path(sys.executable).parent / "hybrid-rl"
    found = subprocess.run([command, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr.count("\n") == 1 and expected in found.stderr
    assert [path.name for path in folder.iterdir()] == ["c.yaml"]


def test_a_damaged_state_of_the_actor_is_named(small_config: Callable[..., Config], tmp_path: Path) -> None:
    from hybrid_rl.workers.actor import ActorWorker
    from hybrid_rl.workers.setup import WorkerSetup

    config = small_config("warmup=null")
    ActorWorker(WorkerSetup(config=config, checkpoint=None)).save(str(tmp_path / "kept"))
    (tmp_path / "kept" / "actor.json").write_text('{"version": ')
    with pytest.raises(RunFolderError, match=r"actor\.json is damaged"):
        ActorWorker(WorkerSetup(config=config, checkpoint=str(tmp_path / "kept")))
