"""The `hybrid-rl` command as a person at a terminal meets it: what it prints, what Ctrl-C does, what is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import DEFAULT_CONFIG, SMALL

from hybrid_rl.cli.main import main
from hybrid_rl.images import inline_png

COMMAND = Path(sys.executable).parent / "hybrid-rl"
STOPPING = "stopping at the next safe moment; once more to stop at once"
QUICK = ["evaluation.before=false", "evaluation.after=false", "checkpoints.every_steps=1000"]


class Terminal:
    """A `hybrid-rl` process in a session of its own, as a terminal starts it."""

    def __init__(self, *arguments: str | Path, cwd: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [COMMAND, *map(str, arguments)],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._errors: list[str] = []
        self._arrived = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.lines), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self._errors), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any, lines: list[str]) -> None:
        for line in stream:
            with self._arrived:
                lines.append(line.rstrip("\n"))
                self._arrived.notify_all()

    def wait_for(self, pattern: str, timeout: float = 120) -> None:
        """Until a line of standard output begins so."""
        with self._arrived:
            seen = self._arrived.wait_for(lambda: any(re.match(pattern, line) for line in self.lines), timeout)
        assert seen, f"no line '{pattern}'; stdout {self.lines[-5:]}, stderr {self._errors[-5:]}"

    def end(self, timeout: float = 150) -> int:
        """The exit code."""
        code = self.process.wait(timeout)
        for reader in self._readers:
            reader.join(20)
        return code

    @property
    def errors(self) -> str:
        return "\n".join(self._errors)

    def family(self) -> list[psutil.Process]:
        """All processes that this one has started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def kill(self) -> None:
        with suppress(psutil.NoSuchProcess):
            for child in [*self.family(), psutil.Process(self.process.pid)]:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        self.process.wait()


@pytest.fixture
def terminal(tmp_path: Path) -> Any:
    """Start `hybrid-rl`; whatever a failed test leaves running is killed."""
    started: list[Terminal] = []

    def start(*arguments: str | Path) -> Terminal:
        started.append(Terminal(*arguments, cwd=tmp_path))
        return started[-1]

    yield start
    for one in started:
        one.kill()


def ray_session(family: list[psutil.Process]) -> str:
    """Name of the Ray session that these processes belong to."""
    for process in family:
        with suppress(psutil.Error):
            found = re.search(r"session_\d{4}-\d\d-\d\d_[\d_-]+", " ".join(process.cmdline()))
            if found:
                return found.group()
    raise AssertionError("no Ray process was started")


def assert_nothing_is_left(family: list[psutil.Process], session: str, patience: float = 15) -> None:
    """No process of the family and none of the Ray session is alive."""
    end = time.monotonic() + patience
    while True:
        alive = [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if session in " ".join(process.cmdline()):
                    alive.append(process)
        if not alive:
            return
        assert time.monotonic() < end, f"still alive: {alive}"
        time.sleep(0.3)


def summary(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return found


def steps_done(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


# --- a run and what is done with it ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Terminal]:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        process = Terminal("train", DEFAULT_CONFIG, *SMALL, "run.live=null", "run.steps=2", cwd=folder)
    assert process.end() == 0, process.errors
    (run,) = (folder / "runs" / "grpo_mixed").iterdir()
    return run, process


def test_train_tells_first_what_it_will_do(trained: tuple[Path, Terminal]) -> None:
    run, process = trained
    plan = "\n".join(process.lines[: next(i for i, line in enumerate(process.lines) if line.startswith("warm-up"))])
    assert "4 prompts x 4 responses = 16 responses" in plan
    assert re.search(r"mode short +2 prompts a step", plan) and re.search(r"mode long +2 prompts a step", plan)
    assert "1 actor, 1 rollout, 1 reference, 1 reward" in plan
    assert f"runs/grpo_mixed/{run.name}" in plan


def test_train_ends_with_the_table_and_the_report(trained: tuple[Path, Terminal]) -> None:
    run, process = trained
    table = process.lines[process.lines.index("evaluation after 16/16") + 1 :]
    assert table[-1] == f"report: runs/grpo_mixed/{run.name}/report.html"
    assert (run / "report.html").is_file()
    assert table[0].startswith("mode / task") and "before" in table[0] and "after" in table[0]
    assert [line.split()[0] for line in table[1:-1]] == ["short", "read", "sum", "long", "read", "sum"]


def test_train_prints_plain_lines_where_there_is_no_terminal(trained: tuple[Path, Terminal]) -> None:
    _, process = trained
    assert any(line.startswith("step  1/2") for line in process.lines)
    assert "\x1b" not in "".join(process.lines)
    assert process.errors == ""


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Run `hybrid-rl` in this process, where everything is imported already; returns the lines that it prints."""

    def run(*arguments: str | Path) -> list[str]:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["hybrid-rl", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capfd.readouterr()
        assert not exit_.value.code, captured.err
        return captured.out.splitlines()

    return run


def test_eval_prints_one_json_object(trained: tuple[Path, Terminal], terminal: Callable[..., Terminal]) -> None:
    run, _ = trained
    process = terminal("eval", run, "--json")
    assert process.end() == 0, process.errors
    assert len(process.lines) == 1
    assert json.loads(process.lines[0]) == summary(run)["eval"]["after"]


def test_eval_prints_a_table_of_a_checkpoint(trained: tuple[Path, Terminal], say: Callable[..., list[str]]) -> None:
    run, _ = trained
    lines = say("eval", run / "checkpoints" / "step_000002", "--n", "4")
    short = next(line.split() for line in lines if line.startswith("short"))
    assert short[1] == "4"


def test_generate_answers_a_question(
    trained: tuple[Path, Terminal], say: Callable[..., list[str]], tmp_path: Path
) -> None:
    from hybrid_rl.data.digits import DigitStrips
    from hybrid_rl.images import open_image

    prompt = DigitStrips("read", "eval", 0, task="read")[0]
    (tmp_path / "strip.png").write_bytes(inline_png(open_image(prompt.images[0])).data)
    lines = say("generate", trained[0], "--image", tmp_path / "strip.png", "--mode", "long", "Add the digits.")
    assert re.match("(thought|answer): ", lines[0])
    assert lines[-1].startswith("answer:")


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------


def test_ctrl_c_under_ray_saves_says_how_to_go_on_and_leaves_no_process(
    terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    overrides = [*SMALL, *QUICK, "cluster.executor=ray", "run.steps=8", f"run.dir={run}"]
    process = terminal("train", DEFAULT_CONFIG, *overrides)
    process.wait_for(r"step +1/8")
    family = process.family()
    session = ray_session(family)
    os.killpg(process.process.pid, signal.SIGINT)  # a terminal sends it to all, Ray's processes included
    assert process.end() == 130, process.errors
    done = steps_done(run)[-1]
    assert 1 <= done < 8
    assert process.errors.splitlines() == [
        STOPPING,
        f"hybrid-rl: stopped after step {done}; go on with `hybrid-rl train --resume {run}`",
    ]
    assert (summary(run)["status"], summary(run)["steps"]) == ("interrupted", done)
    assert (run / "checkpoints" / f"step_{done:06d}" / "model.safetensors").is_file()
    assert_nothing_is_left(family, session)

    again = terminal("train", "--resume", run)
    assert again.end() == 0, again.errors
    assert f"step_{done:06d}" in again.lines[0]
    assert steps_done(run) == list(range(1, 9))
    assert summary(run)["status"] == "completed"


def test_ctrl_c_while_ray_starts_leaves_nothing(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = terminal("train", DEFAULT_CONFIG, *SMALL, *QUICK, "cluster.executor=ray", f"run.dir={run}")
    process.wait_for("saved")
    end = time.monotonic() + 60
    while not any("raylet" in p.name() for p in process.family()):
        assert time.monotonic() < end
        time.sleep(0.1)
    family = process.family()
    session = ray_session(family)
    process.process.send_signal(signal.SIGINT)
    assert process.end() == 130, process.errors
    assert process.errors.splitlines() == [STOPPING, "hybrid-rl: interrupted"]
    assert not run.exists()
    assert_nothing_is_left(family, session)


def test_ctrl_c_in_the_warm_up_saves_and_the_run_goes_on(
    terminal: Callable[..., Terminal], say: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = tmp_path / "run"
    process = terminal("train", DEFAULT_CONFIG, *SMALL, *QUICK, "warmup.steps=80", "run.steps=1", f"run.dir={run}")
    process.wait_for(r"warm-up +20/80")
    os.killpg(process.process.pid, signal.SIGINT)
    assert process.end() == 130, process.errors
    stopping, last = process.errors.splitlines()
    assert stopping == STOPPING
    found = re.fullmatch(
        rf"hybrid-rl: stopped after warm-up step (\d+); go on with `hybrid-rl train --resume {run}`", last
    )
    assert found and 20 <= int(found[1]) < 80
    say("train", "--resume", run)
    assert summary(run)["status"] == "completed"


# --- a worker dies ---------------------------------------------------------------------------------------------------


def test_a_killed_worker_ends_the_run_and_the_checkpoint_before_is_usable(
    terminal: Callable[..., Terminal], say: Callable[..., list[str]], tmp_path: Path
) -> None:
    """Two rollout workers, so that the samples of a step are also seen not to depend on their number."""
    run, alone = tmp_path / "run", tmp_path / "alone"
    overrides = [*SMALL, *QUICK, "checkpoints.every_steps=1", "run.steps=500"]
    two = ["cluster.executor=ray", "cluster.rollout_workers=2", f"run.dir={run}"]
    process = terminal("train", DEFAULT_CONFIG, *overrides, *two)
    process.wait_for(r"step +(?!1/)\d+/500")
    family = process.family()
    session = ray_session(family)
    workers = [p for p in family if p.is_running() and "RolloutWorker" in " ".join(p.cmdline())]
    assert len(workers) == 2
    workers[0].kill()
    assert process.end(60) == 1
    assert "\n" not in process.errors, process.errors
    assert "a RolloutWorker has died" in process.errors and f"hybrid-rl train --resume {run}" in process.errors
    assert summary(run)["status"] == "failed"
    assert_nothing_is_left(family, session)
    assert json.loads(say("eval", run, "--n", "2", "--json")[0])["long"]["n"] == 2
    say("train", DEFAULT_CONFIG, *SMALL, *QUICK, "run.steps=1", f"run.dir={alone}")
    sampled = [
        [(row["group"], row["index"], row["ids"]) for row in map(json.loads, path.read_text().splitlines())]
        for path in (folder / "rollouts" / "step_000001.jsonl" for folder in (run, alone))
    ]
    assert sampled[0] == sampled[1]
