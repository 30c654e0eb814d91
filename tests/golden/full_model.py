"""Whole-model scenarios: from pictures and prompts to logits, gradients and greedy answers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from golden.golden_set import GoldenSet, Tensors
from golden.ledger import Ledger
from golden.pictures import PIXEL, decoded
from golden.vision import VISION
from model import MiniCPMVForConditionalGeneration

FULL = 1e-4
GRADIENT, GRADIENT_FLOOR = 1e-4, 1e-4
IGNORED = -100


def check_scenario(golden: GoldenSet, ledger: Ledger, file: str) -> None:
    """One scenario: what the processor makes of it, then what the model makes of the recorded inputs."""
    scenario, tensors = golden.index["files"][file]["scenario"], golden.tensors(file)
    for part, answers in (("prompt", None), ("full", scenario["answers"])):
        with ledger.at(file, scenario["name"]):
            _check_inputs(golden, ledger, scenario, tensors, part, answers)
    with ledger.at(file, scenario["name"]):
        _check_teacher_forced(golden.model, ledger, scenario, tensors)
    with ledger.at(file, scenario["name"]):
        _check_greedy(golden, ledger, scenario, tensors)


def recorded_batch(tensors: Tensors, scenario: dict[str, Any], part: str) -> dict[str, Any]:
    """Model inputs as recorded."""
    counts = scenario["n_pixel_tensors"]
    return {
        "input_ids": tensors[f"{part}.input_ids"].long(),
        "attention_mask": tensors[f"{part}.attention_mask"].long(),
        "pixel_values": [[decoded(tensors[f"pixel_u8.{b}.{i}"]) for i in range(n)] for b, n in enumerate(counts)],
        "tgt_sizes": [tensors[f"tgt_sizes.{b}"] if n else torch.empty(0, 2) for b, n in enumerate(counts)],
        "image_bound": [tensors[f"{part}.image_bound.{b}"] for b in range(len(counts))],
        "temporal_ids": scenario["temporal_ids"],
    }


def _check_inputs(
    golden: GoldenSet, ledger: Ledger, scenario: dict[str, Any], tensors: Tensors, part: str, answers: list[str] | None
) -> None:
    """The processor on the recorded pictures and prompts, with the answers appended for the teacher-forced pass."""
    processor, texts = golden.tiny_processor, scenario["prompts"]
    end = processor.tokenizer.eos_token + "\n"
    if answers is not None:
        texts = [text + answer + end for text, answer in zip(texts, answers, strict=True)]
    pictures = [_numbered(tensors, f"image.{b}.") for b in range(len(texts))]
    options = {key: value for key, value in scenario["processor_kwargs"].items() if value is not None}
    images = [[picture.numpy() for picture in sample] for sample in pictures]
    out = processor(text=texts, images=images, return_tensors="pt", **options)
    ids, mask = out["input_ids"], out["attention_mask"]
    ledger.same(f"{part} ids", ids * mask, tensors[f"{part}.input_ids"])
    ledger.same(f"{part} mask", mask * ids != 0, tensors[f"{part}.attention_mask"])
    for b, bounds in enumerate(out["image_bound"]):
        ledger.same(f"{part} spans of sample {b}", bounds, tensors[f"{part}.image_bound.{b}"])
    unk = "<unk>" * golden.model.config.query_num
    got = [processor.tokenizer.decode(row[seen.bool()]) for row, seen in zip(ids, mask, strict=True)]
    ledger.same(f"{part} text", got, [text.replace("{U}", unk) for text in scenario[f"{part}_final_text"]])
    if answers is not None:
        ledger.same("position ids", (mask.cumsum(-1) - 1).clamp(min=0), tensors["full.position_ids"])
        labels = torch.full_like(ids, IGNORED)
        for b, answer in enumerate(answers):
            # The newline after the end of the turn is no answer any more.
            count = len(processor.tokenizer.encode(answer + end, add_special_tokens=False))
            labels[b, -count:-1] = ids[b, -count:-1]
        ledger.same("labels", labels, tensors["full.labels"])
        return
    ledger.same("number of slices", [len(sample) for sample in out["pixel_values"]], scenario["n_pixel_tensors"])
    ledger.same("temporal ids", out["temporal_ids"], scenario["temporal_ids"])
    for b, strips in enumerate(out["pixel_values"]):
        if strips:
            ledger.same(f"patch sizes of sample {b}", out["tgt_sizes"][b], tensors[f"tgt_sizes.{b}"])
            recorded = torch.cat([decoded(levels) for levels in _numbered(tensors, f"pixel_u8.{b}.")], dim=-1)
            ledger.close(f"pixels of sample {b}", torch.cat(strips, dim=-1), recorded, PIXEL)


def _check_teacher_forced(
    model: MiniCPMVForConditionalGeneration, ledger: Ledger, scenario: dict[str, Any], tensors: Tensors
) -> None:
    """Features, logits, log-probabilities, loss and gradients of the recorded inputs."""
    inputs = recorded_batch(tensors, scenario, "full")
    media = [inputs[name] for name in ("pixel_values", "tgt_sizes", "temporal_ids")]
    with torch.no_grad():
        features = model.get_image_features(*media)
        still = model(**inputs, position_ids=tensors["full.position_ids"].long()).logits
    for b, rows in enumerate(features):
        if len(rows):
            ledger.close(f"image features of sample {b}", rows, tensors[f"vision_hidden_states.{b}"], VISION)
    model.zero_grad()
    model.train()  # there is no dropout; text alone must still reach the vision parameters
    try:
        labels = tensors["full.labels"].long()
        out = model(**inputs, position_ids=tensors["full.position_ids"].long(), labels=labels)
        out.loss.backward()
    finally:
        model.eval()
    b, t = tensors["full.logits_positions"].long().T
    ledger.close("logits", out.logits[b, t], tensors["full.logits"], FULL)
    shift = (out.logits - still).abs().max()
    ledger.close("training minus evaluation", shift, scenario["train_vs_eval_logits_maxabs"], FULL)
    ledger.close("loss", out.loss.reshape(1), tensors["loss"], FULL)
    ledger.close("loss in the index", out.loss, scenario["loss"], FULL)
    logprobs = out.logits.detach().log_softmax(-1)
    seen = inputs["attention_mask"].bool()
    following = logprobs[:, :-1].gather(-1, inputs["input_ids"][:, 1:, None])[..., 0]
    following = torch.nn.functional.pad(following, (0, 1)) * seen
    ledger.close("log-probabilities", following, tensors["full.next_token_logprob"], FULL)
    entropy = -(logprobs.exp() * logprobs).sum(-1) * seen
    ledger.close("entropy", entropy, tensors["full.entropy"], FULL)
    _check_gradients(model, ledger, scenario, tensors)


def _check_gradients(
    model: MiniCPMVForConditionalGeneration, ledger: Ledger, scenario: dict[str, Any], tensors: Tensors
) -> None:
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for name in tensors:
        if name.startswith("grad."):
            got = gradients[name.removeprefix("grad.")]
            ledger.relative(f"gradient of {name.removeprefix('grad.')}", got, tensors[name], GRADIENT, GRADIENT_FLOOR)
    norms = {name: gradient.double().norm().item() for name, gradient in gradients.items()}
    recorded = scenario["grad_norm_per_parameter"]
    ledger.same("parameters with a gradient", sorted(norms), sorted(recorded))
    for name, norm in recorded.items():
        ledger.relative(f"gradient norm of {name}", norms[name], norm, GRADIENT, GRADIENT_FLOOR)
    for module, norm in scenario["grad_norm_per_module"].items():
        parts = torch.tensor([value for name, value in norms.items() if name.startswith(f"{module}.")])
        ledger.relative(f"gradient norm of all {module}", parts.norm(), norm, GRADIENT, GRADIENT_FLOOR)


@torch.no_grad()
def _check_greedy(golden: GoldenSet, ledger: Ledger, scenario: dict[str, Any], tensors: Tensors) -> None:
    """Greedy answers, and how sure each step was: a tie that rounding decides would prove nothing."""
    tokenizer, inputs = golden.tiny_processor.tokenizer, recorded_batch(tensors, scenario, "prompt")
    expected = tensors["greedy.tokens"].long()
    model: Any = golden.model
    out = model.generate(
        **inputs,
        max_new_tokens=expected.shape[1],
        do_sample=False,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    tokens = out.sequences[:, inputs["input_ids"].shape[1] :]
    ledger.same("greedy tokens", tokens, expected)
    ledger.same("greedy tokens in the index", tokens, scenario["greedy_tokens"])
    gaps = torch.stack([_gap(logits) for logits in out.logits], dim=1)
    ledger.close("gap to the second choice", gaps, tensors["greedy.top1_top2_gap"], FULL)
    ledger.close("smallest gap", gaps.min(), scenario["greedy_min_gap"], FULL)


def check_video_first(golden: GoldenSet, ledger: Ledger, file: str) -> None:
    """A video before other samples, where released code hands features to the wrong ones: order must not matter."""
    scenario = golden.index["files"][file]["scenario"]
    with ledger.at(file, "upstream_video_first_in_batch"), torch.no_grad():
        inputs = recorded_batch(golden.tensors(file), scenario, "full")
        names = ("pixel_values", "tgt_sizes", "temporal_ids")
        features = golden.model.get_image_features(*(inputs[name] for name in names))
        reverse = golden.model.get_image_features(*(inputs[name][::-1] for name in names))
        spans = golden.index["upstream_video_first_in_batch"]["spans_per_sample"]
        ledger.same("features of each sample", [len(rows) for rows in reverse], spans)
        for b, (rows, other) in enumerate(zip(features, reverse[::-1], strict=True)):
            ledger.close(f"image features of sample {b}", other, rows, VISION)


def _numbered(tensors: Tensors, prefix: str) -> list[Tensor]:
    """Tensors prefix0, prefix1, ..."""
    found: list[Tensor] = []
    while (name := f"{prefix}{len(found)}") in tensors:
        found.append(tensors[name])
    return found


def _gap(logits: Tensor) -> Tensor:
    best, second = logits.topk(2).values.T
    return best - second
