"""`hybrid-rl show-prompt`: what it shows is what the model reads."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest
from conftest import DEFAULT_CONFIG, SMALL

from hybrid_rl.cli.main import main
from hybrid_rl.config import Config, load_config
from hybrid_rl.errors import ConfigError, DataError
from hybrid_rl.insight.prompt_view import PromptView, view_prompts
from hybrid_rl.policy import Policy


def views(*overrides: str, mode: str | None = None, index: int = 0) -> list[PromptView]:
    return view_prompts(load_config(DEFAULT_CONFIG, [*SMALL, *overrides]), mode, index, "train")


def test_the_ids_are_those_that_the_engine_prefills(tiny_policy: Policy) -> None:
    for view in views():
        assert view.ids == tiny_policy.format.inputs(view.prompt, view.mode).ids


def test_pieces_cover_the_prompt_token_by_token_but_for_the_image() -> None:
    (view,) = views(mode="long")
    assert [p.id for piece in view.pieces for p in [piece] * piece.count] == list(view.ids)
    assert [piece.place for piece in view.pieces] == [
        sum(p.count for p in view.pieces[:i]) for i in range(len(view.pieces))
    ]
    (features,) = [piece for piece in view.pieces if piece.count > 1]
    assert features.part == "image" and features.count == 4  # SMALL has four queries a picture


@pytest.mark.parametrize(
    ("mode", "prefilled"), [("short", ["<think>", "\n\n", "</think>", "\n\n"]), ("long", ["<think>", "\n"])]
)
def test_what_the_mode_puts_in_the_models_mouth_is_marked(mode: str, prefilled: list[str]) -> None:
    (view,) = views(mode=mode)
    assert [piece.text for piece in view.pieces if piece.part == "prefilled"] == prefilled
    assert view.pieces[-1].part == "prefilled"


def test_a_prefill_of_the_config_is_marked_too() -> None:
    (view,) = views('modes.kinds.long.prefill="So: "', mode="long")
    text = "".join(piece.text for piece in view.pieces if piece.part == "prefilled")
    assert text == "<think>\nSo: "


def test_a_mode_without_prefilled_tokens_marks_none() -> None:
    (view,) = views("modes.kinds.long.template_args={}", mode="long")
    assert not [piece for piece in view.pieces if piece.part == "prefilled"]
    assert view.pieces[-2].text == "assistant"


def test_modes_are_shown_in_their_order_and_indices_count_prompts() -> None:
    assert [view.mode for view in views()] == ["short", "long"]
    assert views(mode="long", index=0)[0].prompt.id != views(mode="long", index=1)[0].prompt.id


def test_bad_requests() -> None:
    with pytest.raises(ConfigError, match=r"no mode 'medium'; modes.kinds has short, long"):
        views(mode="medium")
    with pytest.raises(DataError, match="no prompt 99999999"):
        views(index=99_999_999)


def test_the_command_prints_harmless_text_and_json(
    small_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def say(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["hybrid-rl", "show-prompt", str(DEFAULT_CONFIG), *SMALL, *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        assert not exit_.value.code, captured.err
        return captured.out

    shown = say("--mode", "long")
    assert shown.startswith("mode long: prompt ")
    assert '"<think>"' in shown and "prefilled" in shown and "x 4" in shown and "mode short" not in shown
    found = json.loads(say("--json"))
    assert list(found) == ["short", "long"]
    assert found["long"]["ids"] == list(views(mode="long")[0].ids)
