"""Packed rows teach exactly what padded ones do: same log-probabilities, same gradients, whatever the model."""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEFAULT_CONFIG, SMALL
from hypothesis import given, settings
from hypothesis import strategies as st
from other_models import save
from test_backbones import picture
from test_updates import groups_of, rollouts_of
from torch import Tensor

from hybrid_rl.algorithm.rules import loss_rules
from hybrid_rl.backbones.pack import Pack
from hybrid_rl.backbones.packing import Packing
from hybrid_rl.backbones.shared_attention import ByRuns
from hybrid_rl.backbones.vision_memory import VisionMemory
from hybrid_rl.config import Config, load_config
from hybrid_rl.errors import ConfigError
from hybrid_rl.policy import Policy, load_policy
from hybrid_rl.preflight import prepare
from hybrid_rl.records import Message, Prompt
from hybrid_rl.updates.forward import batches_of, forms_of, response_logprobs
from hybrid_rl.updates.forward_figures import ForwardFigures
from hybrid_rl.updates.grpo import UpdateFigures, accumulate_gradient
from hybrid_rl.updates.pass_memory import learning_pass
from hybrid_rl.updates.rows import Row

LENGTHS = [(5, 1, 9), (3, 3, 3, 3), (1,), (7, 2)]
"""Of the responses to each prompt: ragged, equal, alone, and one of a single token."""
SHOWN = [(0,), (1, 2), (), (0,)]
"""Pictures of each prompt: two show the same one, one shows two, one none."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def loaded(folders: Path, name: str, *overrides: str) -> Policy:
    model = [] if name == "tiny" else [f"model.path={save(name, folders / name)}"]
    config = load_config(DEFAULT_CONFIG, [*SMALL, *model, *overrides])
    return load_policy(config.model, config.modes, seed=0, search=config.search, trainable=True)


def rows_of(policy: Policy, lengths: Sequence[Sequence[int]] = LENGTHS, temperature: float = 0.8) -> list[Row]:
    """Responses of random tokens; prompts of different lengths, in two modes."""
    generator = torch.Generator().manual_seed(0)
    sees = hasattr(policy.processor, "image_processor")
    rows = []
    for u, responses in enumerate(lengths):
        prompt = Prompt(
            id=str(u),
            source="s",
            task="t",
            messages=(Message(role="user", text="What is it?"[: 4 + 2 * u]),),
            gold="",
            images=tuple(map(picture, SHOWN[u])) if sees else (),
        )
        inputs = policy.format.inputs(prompt, ("short", "long")[u % 2])
        ids = [torch.randint(30, 90, (length,), generator=generator).tolist() for length in responses]
        rows += [Row(inputs, tuple(response), temperature) for response in ids]
    return rows


def padded(policy: Policy) -> Policy:
    return replace(policy, packing=Packing(None))


def learned(policy: Policy, rows: Sequence[Row], max_tokens: int = 10_000) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probabilities of all rows end to end, and the gradient of a weighted sum, over micro-batches."""
    policy.model.zero_grad(set_to_none=True)
    found: dict[int, Tensor] = {}
    batches = batches_of(policy, rows, max_tokens)
    with learning_pass(rows, batches) as memory:
        for batch in batches:
            output = response_logprobs(policy, [rows[i] for i in batch], memory)
            weights_B1 = torch.tensor([1.0 + i for i in batch])[:, None]
            (output.logprobs_BL * weights_B1).sum().backward()
            found |= {i: output.logprobs_BL[b][output.mask_BL[b]].detach() for b, i in enumerate(batch)}
    gradient = {name: p.grad.clone() for name, p in policy.trained_parameters().items() if p.grad is not None}
    return torch.cat([found[i] for i in range(len(rows))]), gradient


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    a, b = (torch.cat([g[name].flatten().double() for name in sorted(theirs)]) for g in (ours, theirs))
    assert float((a - b).norm() / b.norm()) < 1e-5
    assert float(torch.nn.functional.cosine_similarity(a, b, dim=0)) > 0.999999


CASES = {
    "text": ("qwen3",),
    "text, a head of its own": ("llama",),
    "recomputed": ("qwen3", "model.gradient_checkpointing=true"),
    "adapter": ("qwen3", "model.lora={rank: 2}"),
    "adapter on the head": (
        "llama",
        "model.lora={rank: 2, parts: [all]}",
        "model.parts={all: [model., lm_head.]}",
    ),
    "pictures": ("tiny",),
    "pictures, recomputed": ("tiny", "model.gradient_checkpointing=true"),
    "positions in three axes": ("qwen2_5_vl",),
    "features for several layers": ("qwen3_vl",),
}


@pytest.mark.parametrize("case", CASES)
def test_packed_and_shared_is_padded_and_unshared(case: str, folders: Path) -> None:
    policy = loaded(folders, *CASES[case])
    for parameter in policy.trained_parameters().values():  # a fresh adapter's B is zero, and so would be A's gradient
        if policy.lora is not None:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    policy.model.train()
    rows = rows_of(policy)
    assert policy.packing.backbone is not None
    logprobs, gradient = learned(policy, rows, max_tokens=60)
    expected, wanted = learned(padded(policy), rows)
    assert policy.packing.notices == [] and all(policy.packing.trusted.values())
    torch.testing.assert_close(logprobs, expected, atol=2e-5, rtol=1e-5)
    assert gradient.keys() == wanted.keys()
    assert_same(gradient, wanted)


def test_a_frozen_tower_learns_nothing_and_the_rest_the_same(folders: Path) -> None:
    policy = loaded(folders, "tiny")
    frozen = [p for name, p in policy.model.named_parameters() if name.startswith(("vpm.", "resampler."))]
    for parameter in frozen:
        parameter.requires_grad_(False)
    rows = rows_of(policy)
    _, gradient = learned(policy, rows, max_tokens=60)
    _, wanted = learned(padded(policy), rows)
    assert all(p.grad is None for p in frozen)
    assert_same(gradient, wanted)


@pytest.mark.parametrize("name", ["tiny", "qwen3_vl"])
def test_each_picture_goes_through_the_tower_once_an_update(name: str, folders: Path) -> None:
    """Four prompts in several micro-batches show three pictures, one of them in two groups and modes."""
    policy = loaded(folders, name)
    rows = rows_of(policy)
    learned(policy, rows)  # the first batch of its kind is also compared with padded rows
    tower = policy.model.vpm if name == "tiny" else policy.model.model.visual
    encoded: list[int] = []
    # The tiny model's tower takes a list of pictures, the other's one picture a call.
    tower.register_forward_pre_hook(lambda _, args: encoded.append(len(args[0]) if name == "tiny" else 1))
    batches = batches_of(policy, rows, 80)
    assert len(batches) > 2
    with learning_pass(rows, batches) as memory:
        for batch in batches:
            response_logprobs(policy, [rows[i] for i in batch], memory).logprobs_BL.sum().backward()
    assert sum(encoded) == memory.vision.encodes == memory.vision.num_unique == 3


@pytest.mark.parametrize("name", ["tiny", "qwen3_vl"])
def test_a_group_over_the_budget_forwards_its_prompt_once_and_lets_go_of_it(name: str, folders: Path) -> None:
    """Two groups of four responses, each in several packs. Forwards, and backwards as often."""
    policy = loaded(folders, name)
    rows = rows_of(policy, [(9, 9, 8, 7), (9, 8, 8, 8)])
    budget = max(row.length for row in rows)
    expected, wanted = learned(padded(policy), rows)
    learned(policy, rows, budget)  # and compared with padded rows
    forwarded, backwards = list[int](), list[int]()
    layer = policy.model.get_decoder().layers[-1]
    layer.register_forward_hook(lambda _, __, output: forwarded.append(output.shape[1]))
    layer.register_full_backward_hook(lambda _, __, grads: backwards.append(grads[0].shape[1]))
    found, gradient = learned(policy, rows, budget)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    assert_same(gradient, wanted)
    prompts = [len(rows[i].inputs.ids) for i in (0, 4)]
    packs = [[sum(len(rows[i].response) for i in batch), *sorted(batch)] for batch in batches_of(policy, rows, budget)]
    first, second = ([size for size, *members in packs if members[0] in of] for of in (range(4), range(4, 8)))
    assert len(first) > 1 and len(second) > 1
    # A prompt before its responses forwards, behind them backwards; then comes the next one.
    assert forwarded == [prompts[0], *first, prompts[1], *second]
    assert backwards == [*first, prompts[0], *second, prompts[1]]


def test_frames_of_a_video_are_shared_and_learned_from_as_pictures_are(folders: Path) -> None:
    """A package of two frames in the place of a picture: the processor of the tiny model knows time."""
    policy = loaded(folders, "tiny")
    first = rows_of(policy)[0].inputs
    slices, sizes = list(first.media["pixel_values"]), list(first.media["tgt_sizes"])
    media = {
        **first.media,
        "pixel_values": [slices[0], slices[0].flip(-1)],
        "tgt_sizes": [sizes[0], sizes[0]],
        "temporal_ids": [[1, 4]],
    }
    moving = replace(first, media=media)
    rows = [Row(moving, (40, 41, 42)), Row(moving, (50, 51)), Row(first, (60,)), Row(first, (61, 62))]
    logprobs, gradient = learned(policy, rows, max_tokens=len(first.ids) + 5)
    expected, wanted = learned(padded(policy), rows)
    torch.testing.assert_close(logprobs, expected, atol=2e-5, rtol=1e-5)
    assert_same(gradient, wanted)


@settings(max_examples=8)
@given(
    lengths=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), min_size=1, max_size=3),
    max_tokens=st.integers(40, 120),
)
def test_any_lengths_and_any_budget_teach_the_same(lengths: list[list[int]], max_tokens: int) -> None:
    policy = text_policy()
    rows = rows_of(policy, lengths)
    logprobs, gradient = learned(policy, rows, max_tokens)
    expected, wanted = learned(padded(policy), rows)
    torch.testing.assert_close(logprobs, expected, atol=2e-5, rtol=1e-5)
    assert_same(gradient, wanted)


@functools.cache
def text_policy() -> Policy:
    with tempfile.TemporaryDirectory() as folder:
        return loaded(Path(folder), "qwen3")


def test_half_precision_packs_too(folders: Path) -> None:
    policy = loaded(folders, "qwen3", "model.dtype=bfloat16")
    assert policy.compute_dtype is torch.bfloat16 and policy.model.dtype is torch.float32
    rows = rows_of(policy)
    logprobs, gradient = learned(policy, rows)
    expected, wanted = learned(padded(policy), rows)
    assert policy.packing.trusted == {(False, True): True}
    torch.testing.assert_close(logprobs, expected, atol=0.3, rtol=0.1)
    a, b = (torch.cat([g[name].flatten() for name in sorted(wanted)]) for g in (gradient, wanted))
    assert float(torch.nn.functional.cosine_similarity(a, b, dim=0)) > 0.99


@pytest.mark.parametrize(
    ("name", "reason"),
    [("sliding", "sliding window"), ("qwen3_5_text", "linear attention"), ("capped", "sliding attention|soft cap")],
)
def test_models_with_other_attention_are_padded_with_one_notice(name: str, reason: str, folders: Path) -> None:
    policy = loaded(folders, name)
    rows = rows_of(policy)
    logprobs, gradient = learned(policy, rows)
    expected, wanted = learned(padded(policy), rows)
    assert torch.equal(logprobs, expected)
    (notice,) = policy.packing.take_notices()
    assert re.search(f"padded, not packed.*({reason})", notice)
    assert policy.packing.take_notices() == []
    assert_same(gradient, wanted)


def test_asked_never_to_pack_it_does_not_without_a_word(folders: Path) -> None:
    policy = loaded(folders, "qwen3", "model.packing=never")
    assert policy.packing.backbone is None and policy.packing.take_notices() == []


def test_a_pack_that_differs_is_found_out_and_not_used(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Responses that do not see their prompt: the first batch notices, says so once, and the padded rows are taken."""
    policy = loaded(folders, "llama")
    rows = rows_of(policy)
    expected, _ = learned(padded(policy), rows)
    of = Pack.of.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(Pack, "of", classmethod(lambda cls, *args: replace(of(cls, *args), prefixes=())))
    found, _ = learned(policy, rows)
    assert torch.equal(found, expected)
    (notice,) = policy.packing.take_notices()
    assert re.search(r"of text are padded, not packed.*differ by \d", notice)


@pytest.mark.parametrize("differing", [(), (False,), (True,), (False, True)])
def test_nothing_over_the_budget_goes_through_the_decoder(differing: tuple[bool, ...], folders: Path) -> None:
    """Neither in the comparison nor where text is packed and pictures are padded, or the other way about.

    The budget holds the longest row and no more. Rows are learned from as if all were padded.
    """
    policy = loaded(folders, "tiny")
    rows = rows_of(policy, [(5, 1, 9), (3, 3, 3, 3), (4, 4, 2), (7, 2)])
    assert {bool(row.inputs.media) for row in rows} == {False, True}
    expected, wanted = learned(padded(policy), rows)
    policy.packing.trusted |= {(with_pictures, True): False for with_pictures in differing}
    budget, forwarded = max(row.length for row in rows), list[int]()
    layer = policy.model.get_decoder().layers[0]
    layer.register_forward_pre_hook(lambda _, args: forwarded.append(args[0].shape[0] * args[0].shape[1]))
    learned(policy, rows, budget)  # the comparison is over with it
    assert max(forwarded) <= budget
    forwarded.clear()
    found, gradient = learned(policy, rows, budget)
    assert max(forwarded) <= budget
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert_same(gradient, wanted)
    batches = batches_of(policy, rows, budget)
    forms = forms_of(policy, rows, batches)
    assert set(forms) == {with_pictures not in differing for with_pictures in (False, True)}
    figures = ForwardFigures()
    figures.add(rows, batches, VisionMemory(), packed=forms)
    assert figures.tokens + figures.padded_tokens == sum(forwarded)


def test_gradients_are_compared_though_the_policy_was_only_looked_at_before(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with an adapter, whose reference is the policy itself: log-probabilities agree, gradients of keys do not."""
    policy = loaded(folders, "llama")
    rows = rows_of(policy)
    backward = ByRuns.backward

    def wrong(self: ByRuns, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = backward(self, *args)
        return q, -k, v

    monkeypatch.setattr(ByRuns, "backward", wrong)
    with torch.inference_mode():
        response_logprobs(policy, rows)
    assert policy.packing.trusted == {(False, False): True}
    _, wanted = learned(padded(policy), rows)
    _, gradient = learned(policy, rows)
    assert_same(gradient, wanted)
    (notice,) = policy.packing.take_notices()
    assert "of text are padded, not packed" in notice


def test_a_budget_below_the_longest_prompt_and_response_is_refused_before_the_run(
    small_config: Callable[..., Config],
) -> None:
    with pytest.raises(ConfigError, match=r"mode long may add 64, more than train.max_tokens_per_micro_batch \(70\)"):
        prepare(small_config("train.max_tokens_per_micro_batch=70"))


def test_what_an_update_did_is_counted_and_told(folders: Path) -> None:
    """An optimizer step on two groups with a picture each. What there is to tell is told."""
    policy = loaded(folders, "tiny", "modes.kinds.short.max_new_tokens=5", "modes.kinds.long.max_new_tokens=5")
    config = load_config(DEFAULT_CONFIG, SMALL)
    groups = groups_of(rollouts_of(policy, num_prompts=2, num_responses=3))
    for chosen, told in ((policy, []), (replace(policy, packing=Packing(None, notices=["padded"])), ["padded"])):
        figures = UpdateFigures()
        accumulate_gradient(chosen, groups, None, config.train, loss_rules(config), figures, on_policy=True)
        assert figures.notices == told
        assert figures.forward.vision_encodes == figures.forward.unique_images == 2
    rows = [sample.rollout.generation.ids for group in groups for sample in group.samples]
    assert figures.ratio_deviation < 1e-4 and sum(figures.tokens.values()) == sum(map(len, rows))
