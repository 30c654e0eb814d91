"""The terminal views: plain lines without control characters, and the live panel."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from hybrid_rl.insight.clock import StepClock
from hybrid_rl.insight.live import LiveView, PlainView, View, before_after_table, make_view

MODES = ("short", "long")
HOSTILE = "\x1b[31mred\x1b[0m [bold]x[/bold] [/] \x07\r\nnext \ud800 \u202e"


def metrics(step: int, modes: tuple[str, ...] = MODES) -> dict[str, float]:
    row: dict[str, float] = {"step": step, "tokens_per_s": 1234.4, "wall_s/generate": 0.1}
    for mode in modes:
        row |= {
            f"reward/{mode}": 0.5 + step / 100,
            f"accuracy/{mode}": 0.47,
            f"tokens/{mode}": 6.1,
            f"leaked/{mode}": 0.125,
        }
        row |= {f"task/sum/reward/{mode}": 0.9, f"part/format/{mode}": 0.9}
    return row


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that moves by this much each time it is read."""
    state = [0.0]

    def now() -> float:
        state[0] += seconds
        return state[0]

    return now


def drive(view: View, steps: int = 12) -> None:
    with view:
        view.note(HOSTILE)
        view.stage(f"warm-up {HOSTILE}", 100)
        for done in range(1, 101):
            view.advance(done, {"loss": 1 / done, "what": HOSTILE})
        view.stage("training", 200)
        for step in range(1, steps + 1):
            view.phase("generate")
            view.step(metrics(step, (*MODES, "[red]odd")), 200)


def test_plain_lines_hold_no_control_characters() -> None:
    stream = io.StringIO()
    drive(PlainView(stream))
    text = stream.getvalue()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", text)
    assert text.startswith("␛[31mred␛[0m [bold]x[/bold] [/] ␇ next � ⟨U+202E⟩\nwarm-up ")
    assert len([line for line in text.splitlines() if line.startswith("warm-up") and "/100" in line]) == 10


def test_plain_step_line() -> None:
    stream = io.StringIO()
    view = PlainView(stream, now=lambda: 0.0)
    view.step(metrics(12), 200)
    assert stream.getvalue() == (
        "step   12/200  short reward 0.62 acc 0.47 tokens 6.10 | long reward 0.62 acc 0.47 tokens 6.10"
        "  1,234 tok/s  left 0:00\n"
    )


def printed_steps(now: Callable[[], float], total: int) -> list[int]:
    stream = io.StringIO()
    view = PlainView(stream, now=now)
    for step in range(1, total + 1):
        view.step(metrics(step), total)
    return [int(number) for number in re.findall(r"^step +(\d+)/", stream.getvalue(), flags=re.MULTILINE)]


def test_plain_view_is_quiet_for_fast_steps() -> None:
    assert printed_steps(lambda: 0.0, 35) == [1, 10, 20, 30, 35]


def test_plain_view_prints_every_slow_step() -> None:
    assert printed_steps(ticking(3.0), 5) == [1, 2, 3, 4, 5]


def test_plain_view_survives_an_ascii_log() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    view = PlainView(stream)
    view.note("naïve – 数")
    view.step(metrics(1), 1)
    stream.flush()
    assert raw.getvalue().startswith(b"na?ve ? ?\n")


def live(width: int = 100) -> tuple[LiveView, io.StringIO]:
    stream = io.StringIO()
    return LiveView(Console(file=stream, force_terminal=True, width=width, color_system="truecolor")), stream


def shown(stream: io.StringIO) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


def test_live_view_shows_the_modes() -> None:
    view, stream = live()
    drive(view)
    panel = shown(stream).split("hybrid-rl")[-1]
    for expected in (
        "training  12/200",
        "6 %",
        "short",
        "long",
        "[red]odd",
        "47.0 %",
        "12.5 %",
        "1,234 tok/s",
        "elapsed",
    ):
        assert expected in panel, expected
    # Steps 8..12 against 1..5: the reward rose by 7 hundredths.
    assert panel.count("0.62 +0.07") == 3


@pytest.mark.parametrize("live_view", [False, True])
def test_modes_keep_their_places(live_view: bool) -> None:
    view, stream = live() if live_view else (lambda s: (PlainView(s, now=ticking(3.0)), s))(io.StringIO())
    for step, modes in ((1, ("a-mode", "b-mode")), (2, ("b-mode", "a-mode")), (3, ("b-mode",))):
        view.step(metrics(step, modes), 4)
    view.step(metrics(4, ("b-mode", "a-mode")), 4)
    view.close()
    last = shown(stream).split("hybrid-rl" if live_view else "\nstep")[-1]
    assert 0 < last.index("a-mode") < last.index("b-mode")


def test_live_view_neutralises_foreign_text() -> None:
    view, stream = live()
    drive(view)
    assert "\x1b[31mred" not in stream.getvalue() and "\x07" not in stream.getvalue()
    assert "␛[31mred␛[0m [bold]x[/bold] [/]" in shown(stream)


def test_live_view_restores_the_terminal_after_an_error() -> None:
    view, stream = live(width=40)
    with pytest.raises(RuntimeError), view:
        view.step(metrics(1), 3)
        raise RuntimeError("broken")
    assert stream.getvalue().rfind("\x1b[?25h") > stream.getvalue().rfind("\x1b[?25l") >= 0
    view.close()


def test_live_view_without_anything() -> None:
    view, stream = live()
    view.stage("evaluation before", 0)
    view.step({}, 0)
    view.close()
    assert "hybrid-rl" in shown(stream)


def test_make_view(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(make_view(None), PlainView)
    view = make_view(True)
    view.close()
    assert isinstance(view, LiveView)


def test_clock_leaves_out_the_warm_up_and_averages() -> None:
    times = iter([0.0, 100.0, 102.0, 106.0, 106.0])
    clock = StepClock(lambda: next(times))
    assert clock.left(10) is None
    clock.start_steps()
    clock.step()
    clock.step()
    assert clock.left(10) == pytest.approx(30.0)
    assert clock.elapsed == 106.0


def evaluation(accuracy: float) -> dict[str, object]:
    task = {"accuracy": accuracy / 2, "mean_tokens": 4.0, "n": 50}
    return {
        m: {"accuracy": accuracy, "mean_tokens": 6.0, "n": 100, "tasks": {f"sum [b]{HOSTILE}": task}} for m in MODES
    }


@pytest.mark.parametrize("terminal", [False, True])
def test_before_after_table(terminal: bool) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=200, color_system="truecolor" if terminal else None)
    before_after_table({"before": evaluation(0.2), "after": evaluation(0.735)}, console)
    text = shown(stream)
    for expected in ("short", "long", "20.0 %", "73.5 %", "+53.5", "36.8 %", "sum [b]␛[31mred"):
        assert expected in text, expected
    if not terminal:
        assert "\x1b" not in stream.getvalue()
        assert len({len(line) for line in text.splitlines()}) == 1


@pytest.mark.parametrize("table", [{}, {"before": evaluation(0.2)}, {"after": {"short": None}}, {"before": 3}])
def test_before_after_table_of_a_half_run(table: dict[str, object]) -> None:
    before_after_table(table, Console(file=io.StringIO()))
