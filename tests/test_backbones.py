"""Models that this project did not write, as policies: they sample what they are trained on, and remember by row."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEFAULT_CONFIG, SMALL, hand_over
from other_models import MODELS, WITH_IMAGES, save
from PIL import Image, ImageDraw
from test_lora import groups_of, setup_of

import hybrid_rl
from hybrid_rl.algorithm.modes import make_requests
from hybrid_rl.backbones.layout import Layout
from hybrid_rl.config import Config, load_config
from hybrid_rl.images import inline_png
from hybrid_rl.policy import Policy, load_policy
from hybrid_rl.records import Generation, Message, Prompt, Request
from hybrid_rl.saved import evaluate_saved, open_saved
from hybrid_rl.updates.forward import response_logprobs
from hybrid_rl.updates.rows import Row
from hybrid_rl.workers.actor import ActorWorker
from hybrid_rl.workers.rollout import RolloutWorker
from rollouts.torch_engine import TorchEngine

MODES = ["modes.kinds.short.max_new_tokens=7", "modes.kinds.long.max_new_tokens=12"]
QUESTIONS = ("What is it?", "Say what you can see in it.", "And this?", "Once more, but in a rather long question?")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def config_of(name: str, folders: Path, *overrides: str) -> Config:
    path = save(name, folders / name)
    return load_config(DEFAULT_CONFIG, [*SMALL, *MODES, f"model.path={path}", *overrides])


@pytest.fixture(scope="module", params=MODELS)
def policy(request: pytest.FixtureRequest, folders: Path) -> Policy:
    config = config_of(request.param, folders)
    return load_policy(config.model, config.modes, seed=0, search=config.search)


def picture(number: int) -> Any:
    """Pictures of different content and width."""
    image = Image.new("RGB", (60 + 50 * number, 60), (20 * number, 40, 90))
    ImageDraw.Draw(image).ellipse((5, 5, 30 + 9 * number, 50), fill=(250, 200, 30 * number))
    return inline_png(image)


def requests_of(policy: Policy, num_responses: int = 3) -> list[Request]:
    """Prompts of different lengths. With images: two show the same one, one shows two, and one shows none."""
    shown: Sequence[tuple[int, ...]] = [(0,), (0,), (1, 2), ()]
    sees = hasattr(policy.processor, "image_processor")
    prompts = [
        Prompt(
            id=str(i),
            source="s",
            task="t",
            messages=(Message(role="user", text=question),),
            gold="",
            images=tuple(picture(n) for n in numbers) if sees else (),
        )
        for i, (question, numbers) in enumerate(zip(QUESTIONS, shown, strict=True))
    ]
    modes = load_config(DEFAULT_CONFIG, [*SMALL, *MODES]).modes
    return make_requests(prompts, ["short", "long"] * 2, modes, step=1, num_responses=num_responses, seed=0)


def trainer_logprobs(policy: Policy, requests: Sequence[Request], generations: Sequence[Generation]) -> list[Any]:
    inputs = {r.group: policy.format.inputs(r.prompt, r.mode) for r in requests}
    rows = [Row(inputs[r.group], g.ids) for r, g in zip(requests, generations, strict=True)]
    with torch.no_grad():
        found = response_logprobs(policy, rows).logprobs_BL
    return [row[: len(g.ids)] for row, g in zip(found, generations, strict=True)]


def test_sampler_and_trainer_agree(policy: Policy) -> None:
    requests = requests_of(policy)
    generations = TorchEngine(policy).generate(requests)
    assert len({g.ids for g in generations}) > len(generations) / 2
    for found, generation in zip(trainer_logprobs(policy, requests, generations), generations, strict=True):
        torch.testing.assert_close(found, torch.tensor(generation.logprobs), atol=1e-4, rtol=0)


def test_both_agree_with_the_model_called_plainly(policy: Policy) -> None:
    """One row, no padding, no cache, the processor's own output: positions and images are where they belong."""
    requests = requests_of(policy, num_responses=1)
    generations = TorchEngine(policy).generate(requests)
    for request, generation in zip(requests, generations, strict=True):
        inputs = policy.format.inputs(request.prompt, request.mode)
        ids = torch.tensor([[*inputs.ids, *generation.ids]])
        media = {k: v for k, v in inputs.media.items() if k != "mm_token_type_ids"}
        if "mm_token_type_ids" in inputs.media:
            types = inputs.media["mm_token_type_ids"]
            media["mm_token_type_ids"] = torch.nn.functional.pad(types, (0, ids.shape[1] - types.shape[1]))
        with torch.no_grad():
            logits = policy.model(input_ids=ids, **media).logits[0, len(inputs.ids) - 1 : -1]
        logits[:, list(policy.forbidden_ids)] = float("-inf")
        expected = logits.log_softmax(-1).gather(-1, torch.tensor(generation.ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(generation.logprobs), expected, atol=1e-4, rtol=0)


def test_padding_and_company_leave_no_trace(policy: Policy) -> None:
    """Also not in the state of a linear-attention layer, in which padding would be remembered."""
    requests = requests_of(policy)
    together = TorchEngine(policy).generate(requests)
    for request, generation in zip(requests[::3], together[::3], strict=True):
        (alone,) = TorchEngine(policy).generate([request])
        assert alone.ids == generation.ids
        torch.testing.assert_close(torch.tensor(alone.logprobs), torch.tensor(generation.logprobs), atol=1e-4, rtol=0)


def test_responses_of_a_prompt_have_memories_of_their_own(policy: Policy) -> None:
    """One prompt, forked: what one row reads must not change what the other says next."""
    request = requests_of(policy, num_responses=1)[0]
    inputs = policy.format.inputs(request.prompt, request.mode)
    with torch.inference_mode():
        alone = []
        for token in (40, 50):
            _, decoding = policy.prefill([inputs])
            alone += [policy.decode(torch.tensor([t]), decoding) for t in (token, token + 1)][1:]
        _, decoding = policy.prefill([inputs])
        decoding.select(torch.tensor([0, 0]))
        policy.decode(torch.tensor([40, 50]), decoding)
        forked = policy.decode(torch.tensor([41, 51]), decoding)
    torch.testing.assert_close(forked, torch.cat(alone), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(forked[0], forked[1], atol=1e-2)


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_equal_images_are_encoded_once(name: str, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(name, folders)
    policy = load_policy(config.model, config.modes, seed=0, search=config.search)
    counted: Counter[str] = Counter()
    tower = getattr(policy.model.model, "visual", None) or policy.model.model.vision_tower
    forward = tower.forward

    def count(*args: Any, **kwargs: Any) -> Any:
        counted["calls"] += 1
        return forward(*args, **kwargs)

    monkeypatch.setattr(tower, "forward", count)
    requests = requests_of(policy)
    engine = TorchEngine(policy)
    generations = engine.generate(requests)
    # Twelve responses to four prompts; two show the same image, one shows two others, which this processor does not
    # tell apart, and one shows none.
    unique = 2 if name == "minicpmv4_6" else 3
    assert counted["calls"] == unique
    assert (engine.figures.vision_encodes, engine.figures.unique_images) == (unique, unique)
    trainer_logprobs(policy, requests, generations)  # for the first time: compares packed rows with padded ones
    counted.clear()
    trainer_logprobs(policy, requests, generations)
    assert counted["calls"] == unique


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_the_image_matters_and_the_vision_tower_learns(name: str, folders: Path) -> None:
    config = config_of(name, folders)
    policy = load_policy(config.model, config.modes, seed=0, search=config.search, trainable=True)
    (first, *_), second = requests_of(policy), picture(5)
    other = Prompt(**{**{f: getattr(first.prompt, f) for f in Prompt.__slots__}, "images": (second,)})
    rows = [Row(policy.format.inputs(p, first.mode), (40, 41)) for p in (first.prompt, other)]
    logprobs = response_logprobs(policy, rows).logprobs_BL
    assert not torch.allclose(logprobs[0], logprobs[1], atol=1e-3)
    logprobs.sum().backward()
    tower = getattr(policy.model.model, "visual", None) or policy.model.model.vision_tower
    assert any(float(p.grad.abs().max()) > 0 for p in tower.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", MODELS)
def test_two_steps_of_training_and_what_is_saved_loads(name: str, folders: Path, tmp_path: Path) -> None:
    (tmp_path / "varied.py").write_text("def varied(ids): return sum(ids) % 5 / 4\n")
    overrides = [f"run.dir={tmp_path / 'run'}", "run.steps=2", "train.optimizer.learning_rate=1e-3"]
    overrides += [f"rewards.format={{target: '{tmp_path / 'varied.py'}:varied'}}"]
    if name not in WITH_IMAGES:
        rows = [{"prompt": f"{i} + 1?", "gold": str(i + 1), "task": "sum"} for i in range(40)]
        (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
        source = '{target: "hybrid_rl.data.files:FileSource", args: {path: %s}}' % (tmp_path / "sums.jsonl")
        overrides += [f"data.sources={{sum: {source}}}", "evaluation.before=false"]
    summary = hybrid_rl.run(config_of(name, folders, *overrides))
    assert (summary["status"], summary["steps"]) == ("completed", 2)
    told = [warning["text"] for warning in summary["warnings"]]
    for what in ("own copy of its prompt's memory", "padded, not packed"):  # of linear attention, each once
        assert sum(what in text for text in told) == (name in ("minicpmv4_6", "qwen3_5_text"))
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["ratio_deviation"] < 1e-4 and first["grad_norm"] > 0
    assert evaluate_saved(open_saved(tmp_path / "run"), None) == summary["eval"]["after"]


@pytest.mark.parametrize("name", ["minicpmv4_6", "qwen3_vl"])
def test_an_adapter_on_another_model(name: str, folders: Path) -> None:
    """Its decoder is found without naming its parts."""
    config = config_of(name, folders, "model.lora={rank: 2}", "train.optimizer.learning_rate=0.01")
    actor, worker = ActorWorker(setup_of(config)), RolloutWorker(setup_of(config))
    groups = groups_of(config, worker)
    assert actor.update(groups, None)[1].ratio_deviation < 1e-4
    actor.update(groups, None)
    assert all("language_model" in parameter for parameter in actor._policy.trained_parameters())
    hand_over(actor, worker)
    moved = groups_of(config, worker)
    sampled = [s.rollout.generation.logprobs for group in moved for s in group.samples]
    reference = [row for group in actor.reference_logprobs(moved) for row in group]
    assert max(abs(a - b) for x, y in zip(sampled, reference, strict=True) for a, b in zip(x, y, strict=True)) > 1e-3


def test_a_layout_by_hand() -> None:
    """Two prompts of 2 and 1 tokens; rows: the second with 1 token, the first with 2."""
    layout = Layout.of([2, 1], [1, 0], [1, 2])
    # The strip: blank 0, first prompt 1-2, second prompt 3, responses 4 and 5-6.
    assert layout.index_BT.tolist() == [[0, 3, 4, 0], [1, 2, 5, 6]]
    assert layout.positions_BT.tolist() == [[0, 0, 1, 1], [0, 1, 2, 3]]
    assert layout.mask_BL.tolist() == [[True, False], [True, True]]
