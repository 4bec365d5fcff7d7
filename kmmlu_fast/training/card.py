"""The adapter directory: PEFT's files, ``kmmlu_fast.json``, a model card and the loss plot.

In: the trained adapter, its settings and measurements. Out: a directory that vLLM, PEFT and Unsloth load, and
from which evaluation reads prompt style and template digest. ``adapter_config.json`` is written last: a
directory that has it is finished. Knows nothing of training.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

from kmmlu_fast.core.digests import compute_fingerprint
from kmmlu_fast.core.errors import AdapterError
from kmmlu_fast.core.files import read_json, remove_partials, write_bytes_atomically, write_json_atomically
from kmmlu_fast.data.hub_rows import parse_hub_source
from kmmlu_fast.data.mixture import MixtureShare
from kmmlu_fast.machine.device_memory import GIB
from kmmlu_fast.models.adapters import ADAPTER_CARD as CARD
from kmmlu_fast.models.adapters import PLOT
from kmmlu_fast.models.model import Model
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.encoding import TrainSet, count_answer_letters
from kmmlu_fast.training.held_out import format_change
from kmmlu_fast.training.inputs import TrainingInputs
from kmmlu_fast.training.memory import MemoryPlan
from kmmlu_fast.training.result import TrainResult


def build_card(
    config: TrainConfig,
    model: Model,
    inputs: TrainingInputs,
    data: TrainSet,
    identity: dict[str, Any],
    plan: MemoryPlan,
    result: TrainResult,
    tokens: dict[str, Any],
) -> dict[str, Any]:
    """The contents of ``kmmlu_fast.json``. Evaluation reads ``prompt_style`` and ``template_digest``; both
    are None if no row is a question.
    """
    questions = inputs.questions
    metrics = {"held_out_rows": len(data.held_out), **result.to_json()}
    for name in ("warnings", "peak_bytes", "loaded_bytes"):
        del metrics[name]
    return {
        "format": 1,
        "base_model": {
            "name": model.name,
            "path": model.path,
            "revision": None if Path(model.path).is_dir() else model.revision,
            "digest": model.digest,
        },
        "prompt_style": config.prompt_style if questions else None,
        "template_digest": identity["template_digest"] if questions else None,
        "output_type": "cot" if any(row.response for row in questions) else "multiple_choice",
        "num_fewshot": 0,
        "fingerprint": compute_fingerprint(identity, 16),
        "data": {
            "file": ", ".join(Path(share.source).name for share in inputs.shares),
            "digest": identity["data_digest"],
            "rows_trained": len(inputs.rows),
            "rows_held_out": len(data.held_out),
            "answers": count_answer_letters([data.rows[i] for i in data.order]),
            "too_long": data.too_long,
            "leakage": inputs.leaks,
            "tokens": tokens,
            "mixture": [_mixture_entry(share) for share in inputs.shares],
            "asked": inputs.asked_of,
        },
        "hyperparameters": config.result_settings(),
        "metrics": metrics,
        "memory": {
            "planned_bytes": plan.total_bytes,
            "peak_bytes": result.peak_bytes,
            "loaded_bytes": result.loaded_bytes,
            "plan": plan.to_json(),
        },
        "warnings": result.warnings,
        "versions": identity["versions"],
    }


def _mixture_entry(share: MixtureShare) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "source": share.source if parse_hub_source(share.source) else Path(share.source).name,
        "weight": share.weight,
        "rows": share.rows,
        "taken": share.taken,
        "forms": dict(share.forms),
        "duplicates": share.duplicates,
    }
    optional = {"unread": dict(share.unread), "left_out": dict(share.left_out), "revision": share.revision}
    return entry | {name: value for name, value in optional.items() if value}


def write_adapter(trained: Path, target: Path, card: dict[str, Any], log: list[dict[str, Any]]) -> None:
    """Write PEFT's files, the card, the model card and the plot into ``target``.

    ``adapter_config.json`` comes last: after a kill at any moment, a half-written directory is not taken for
    an adapter.
    """
    weights = trained / "adapter_model.safetensors"
    if not weights.exists():
        raise AdapterError(
            f"{trained}: training wrote no adapter_model.safetensors; look for an earlier message"
        )
    config = read_json(trained / "adapter_config.json", AdapterError)
    config["base_model_name_or_path"] = card["base_model"]["path"]
    config["revision"] = card["base_model"]["revision"]
    data = weights.read_bytes()
    remove_partials(target)
    write_bytes_atomically(target / "adapter_model.safetensors", data)
    write_loss_plot(log, target / PLOT)
    write_bytes_atomically(target / "README.md", model_card(card).encode("utf-8", "backslashreplace"))
    write_json_atomically(target / CARD, {**card, "adapter_digest": hashlib.sha256(data).hexdigest()})
    write_json_atomically(target / "adapter_config.json", config)


def model_card(card: dict[str, Any]) -> str:
    """README.md: the hub's metadata block, then the most important facts."""
    base, data, metrics, settings = card["base_model"], card["data"], card["metrics"], card["hyperparameters"]
    memory = card["memory"]
    warnings = "".join(f"- **Warning:** {warning}\n" for warning in card["warnings"]) or "- No warnings.\n"
    rows = "".join(f"| {name} | {value} |\n" for name, value in settings.items())
    libraries = "".join(f"| {name} | {version} |\n" for name, version in card["versions"].items())
    leaks, too_long = data["leakage"], data["too_long"]
    allowed = " and trained on anyway (--allow-leakage)" if leaks["rows_flagged"] else ""
    speed = round(metrics["tokens_per_sec"])
    share = metrics["trainable_parameters"] / metrics["total_parameters"]
    kind = f"`{data['file']}`"
    style = "The rows are not questions in a prompt style: evaluation uses the style of its own settings."
    if card["prompt_style"]:
        kind = "KMMLU-style questions"
        style = (
            f"Prompt style `{card['prompt_style']}` (template digest `{card['template_digest']}`); evaluation"
            f" reads it from `{CARD}`."
        )
    return f"""---
base_model: {base["name"]}
library_name: peft
pipeline_tag: text-generation
language: ko
tags: [lora, qlora, unsloth, kmmlu, kmmlu_fast]
---
# LoRA adapter for {base["name"]}, trained on {kind}

Trained by `python -m kmmlu_fast.train` (run `{card["fingerprint"]}`). Evaluate it with the same prompts:

    python -m kmmlu_fast.eval --model {base["name"]} --adapter PATH

{style}

## Measured on {metrics["held_out_rows"]} held-out rows
{_held_out_table(card)}
{warnings}
These rows only steer training; they are too few to support a claim. Compare base and adapter
with `kmmlu_fast.eval` and `kmmlu_fast.compare`.

![loss]({PLOT})

## Data
- {data["rows_trained"]} rows from `{data["file"]}` (sha256 `{data["digest"][:16]}`), {data["rows_held_out"]} more held out
- answers as trained: {_format_shares(data["answers"])}
- rows over {too_long["max_seq_length"]} tokens: {_describe_long_rows(too_long)}
- leakage check against {leaks["against"]}: {leaks["rows_flagged"]} rows flagged{allowed}
- the training data keeps its own licence; KMMLU is CC-BY-ND-4.0. The base model's licence applies to the adapter.

## Training
- {metrics["steps"]} optimiser steps, {metrics["tokens"]:,} tokens in {metrics["train_sec"]:.0f} s on {metrics["device"]} ({speed} tokens/s)
- {metrics["trainable_parameters"]:,} of {metrics["total_parameters"]:,} parameters trained ({share:.2%})
- peak memory {memory["peak_bytes"] / GIB:.2f} GiB, planned {memory["planned_bytes"] / GIB:.2f} GiB
- base in {"4 bit (nf4)" if metrics["four_bit"] else "16 bit"}, computed in {metrics["dtype"]}

| setting | value |
|---|---|
{rows}
| library | version |
|---|---|
{libraries}"""  # noqa: E501


def _describe_long_rows(too_long: dict[str, Any]) -> str:
    """How many rows were too long, and what was done with them; older cards do not say how many were left
    out."""
    out = too_long.get("rows_left_out")
    left = f", {out} left out" if out else ""
    held_out = too_long.get("held_out", {}).get("rows_left_out")
    held = f"; {held_out} held-out rows left out" if held_out else ""
    return f"{too_long['rows_too_long']} ({too_long['policy']}{left}{held})"


def write_loss_plot(log: list[dict[str, Any]], path: Path) -> None:
    """An SVG: training and held-out loss, and below them held-out accuracy, the largest letter share and the
    mass on the letters.
    """
    import altair as alt

    losses: list[dict[str, Any]] = []
    shares: list[dict[str, Any]] = []
    for record in log:
        step, measured = record["step"], record["kind"] == "held_out"
        line = "held-out loss" if measured else "training loss"
        losses.append({"step": step, "value": record["loss"], "line": line})
        if measured:
            largest = max(record["letter_share"].values())
            shares += [
                {"step": step, "value": record["accuracy"], "line": "accuracy"},
                {"step": step, "value": record["balanced_accuracy"], "line": "balanced accuracy"},
                {"step": step, "value": largest, "line": "largest letter share"},
            ]
            if record.get("letter_mass") is not None:  # not in old logs
                shares.append({"step": step, "value": record["letter_mass"], "line": "mass on the letters"})
    colours, legend = alt.Scale(scheme="tableau10"), alt.Legend(orient="top")

    def chart(rows: list[dict[str, Any]], title: str, scale: Any) -> Any:
        return (
            alt.Chart(alt.Data(values=rows), width=560, height=200)
            .mark_line(point=len(rows) < 120)
            .encode(
                alt.X("step:Q", title="optimiser step"),
                alt.Y("value:Q", title=title, scale=scale),
                alt.Color("line:N", title=None, scale=colours, legend=legend),
            )
        )

    charts = [chart(losses, "loss, nats per response token", alt.Scale(zero=True))]
    if shares:
        charts.append(chart(shares, "held-out rows", alt.Scale(domain=[0, 1])))
    svg = io.StringIO()
    alt.vconcat(*charts).resolve_scale(color="independent").save(svg, format="svg")
    write_bytes_atomically(path, svg.getvalue().encode())


def _held_out_table(card: dict[str, Any]) -> str:
    base, kept = card["metrics"]["base"], card["metrics"]["kept"]
    if not base or not kept:
        return "Nothing was held out."
    head = (
        "| | loss | accuracy | change since the base | balanced accuracy | predicted letters | mass on the"
        " letters |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    return head + "".join(
        f"| {name} | {m['loss']:.4f} | {m['accuracy']:.3f} | {format_change(m)} |"
        f" {m['balanced_accuracy']:.3f} |"
        f" {_format_shares(m['letter_share'])} | {_format_mass(m.get('letter_mass'))} |\n"
        for name, m in (("base", base), (f"adapter (step {kept['step']})", kept))
    )


def _format_mass(mass: float | None) -> str:
    return "not known" if mass is None else f"{mass:.0%}"


def _format_shares(shares: dict[str, float]) -> str:
    total = sum(shares.values()) or 1
    return ", ".join(f"{letter} {share / total:.0%}" for letter, share in shares.items())
