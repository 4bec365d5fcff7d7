"""python -m kmmlu_fast.train: training rows -> a LoRA adapter that evaluation loads.

In: flags. Out: the adapter directory, a summary on stdout, exit code. Parses and wires; the work is in ``train_data``,
``memory_plan``, ``trainer`` and ``adapter_card``.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from kmmlu_fast import config as configuration
from kmmlu_fast import leakage, sft, train_data
from kmmlu_fast.adapter_card import LOG, build_card, versions, write_adapter
from kmmlu_fast.errors import TrainError, run_main
from kmmlu_fast.models import ADAPTER_CARD as CARD
from kmmlu_fast.sft import SftRow
from kmmlu_fast.store import read_json, write_json_atomically
from kmmlu_fast.train_config import TrainConfig
from kmmlu_fast.train_data import Encoded, TrainSet
from kmmlu_fast.train_monitor import read_log, say

_SMALL_PARAMETERS = 2_000_000_000  # 270 M was seen to suffer, 7 B is what QLoRA was made for; the line between is a guess
STATE = "training.json"  # what is being trained here, written before the first step: --resume must agree with it


def main(argv: list[str] | None = None) -> int:
    return run_main(lambda: _run(configuration.parse(TrainConfig, argv, prog="python -m kmmlu_fast.train")))


def _run(config: TrainConfig) -> int:
    if _finished(config):
        return 0
    rows, held_rows = _read(config)
    leaks = _check_leakage(config)
    say("loading Unsloth")
    import unsloth  # noqa: F401  before transformers: it patches it

    from kmmlu_fast import memory_plan, models, prompts, trainer

    trainer.quiet_libraries()
    model = models.resolve_model(config.model, config.revision)
    tokenizer = models.load_tokenizer(model)
    data = _encode(config, rows, held_rows, tokenizer)
    shape = memory_plan.describe_model(model.path, config.r, config.target_modules, model.revision)
    available_bytes, device, cpu = memory_plan.available_memory(config.max_memory_gib)
    longest = max(len(row.input_ids) for row in data.rows)
    micro_batch = _planned_micro_batch(config) or config.micro_batch
    plan = memory_plan.plan(
        shape, longest, config.effective_batch, available_bytes,
        micro_batch=micro_batch, four_bit=config.load_in_4bit, cpu=cpu, device=device,
    )  # fmt: skip
    say(str(plan))
    say(f"trainable: {shape.lora:,} of {shape.total:,} parameters ({shape.trainable_share:.2%})")
    mismatch = _precision_warning(config, shape.total)
    identity = {
        "settings": config.deciding(), "model_digest": model.digest, "data_digest": _digest(config.data),
        "held_out_digest": _digest(config.held_out_data) if config.held_out_data else None,
        "template_digest": prompts.template_digest(config.prompt_style, tokenizer), "versions": versions(),
    }  # fmt: skip
    _claim(config, identity, plan.micro_batch)
    result = trainer.train(config, model.path, model.revision, tokenizer, data, plan, config.output_dir / "checkpoints")
    result = replace(result, warnings=[*mismatch, *result.warnings])
    card = build_card(config, model, rows, data, leaks, identity, plan, result)
    write_adapter(config.output_dir / "checkpoints" / "adapter", config.output_dir, card, read_log(config.output_dir / LOG))
    if not config.keep_checkpoints:
        shutil.rmtree(config.output_dir / "checkpoints")
    _report(config, card)
    return 0


def _finished(config: TrainConfig) -> bool:
    """True if --resume finds the work done. TrainError if the directory is in the way: adapters are never overwritten."""
    folder = config.output_dir
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not folder.is_dir():
        raise TrainError(f"--output-dir {folder}: is a file; give a directory")
    if (folder / CARD).exists():
        if config.resume and (folder / STATE).exists():
            _refuse_other(folder, {"settings": config.deciding(), "data_digest": _digest(config.data)})
            say(f"{folder}: already trained; nothing to resume")
            return True
        raise TrainError(f"--output-dir {folder}: holds a finished adapter, which is never overwritten; give another directory")
    if (folder / STATE).exists():
        if config.resume:
            return False
        raise TrainError(f"--output-dir {folder}: holds an unfinished training; give --resume to continue it, or another directory")
    raise TrainError(f"--output-dir {folder}: is not empty and holds no training of this tool; give a new directory")


def _read(config: TrainConfig) -> tuple[list[SftRow], list[SftRow]]:
    rows = sft.read_rows(config.data)
    if config.held_out_data:
        held = sft.read_rows(config.held_out_data)
        known = {row.question.question_id for row in rows}
        shared = [row.question.question_id for row in held if row.question.question_id in known]
        if shared:
            raise TrainError(
                f"--held-out-data {config.held_out_data}: {len(shared)} rows are in --data too, such as {shared[0]}; take them out"
            )
        return rows, held
    train, held = train_data.split_held_out(rows, config.held_out, config.seed)
    if config.held_out and not held:
        raise TrainError(f"--data {config.data}: {len(rows)} rows are too few to hold any out; give more rows, or --held-out 0 --keep last")
    return train, held


def _check_leakage(config: TrainConfig) -> dict[str, Any]:
    """What the leakage guard says of the data; TrainError if it flags rows and nobody allowed it."""
    against = f"{config.dataset} test"
    pairs = leakage.check_file(config.data, config.dataset, "test", config.dataset_revision)
    flagged = sorted(set(pairs["train_id"]))
    if flagged and not config.allow_leakage:
        kinds = ", ".join(f"{kind} {count}" for kind, count in leakage.counts(pairs).items())
        raise TrainError(
            f"--data {config.data}: {len(flagged)} rows overlap {against} ({kinds}; first: {flagged[0]}): evaluation would measure memory. "
            f"Draw the rows by python -m kmmlu_fast.sample, or give --allow-leakage, which the adapter's card records"
        )
    if flagged:
        say(f"warning: {len(flagged)} rows overlap {against}; going on (--allow-leakage)")
    return {"against": against, "rows_flagged": len(flagged), "allowed": bool(flagged), "kinds": leakage.counts(pairs)}


def _encode(config: TrainConfig, rows: list[SftRow], held_rows: list[SftRow], tokenizer: Any) -> TrainSet:
    """Rows as tokens, the order of all epochs, what was too long, and the held-out rows."""
    one_epoch = train_data.encode_rows(rows, tokenizer, config.prompt_style)
    fitting, too_long = train_data.fit_length(one_epoch, config.max_seq_length, config.too_long, tokenizer.bos_token_id)
    if too_long["rows_too_long"]:
        done = "cut at the beginning" if config.too_long == "truncate" else "left out"
        say(
            f"warning: {too_long['rows_too_long']} of {len(rows)} rows are over {config.max_seq_length} tokens and were {done}: "
            + ", ".join(too_long["question_ids"][:5])
        )
    if not fitting:
        raise TrainError(f"--data {config.data}: no row is within --max-seq-length {config.max_seq_length}; raise it")
    count = len(fitting)
    lengths = [len(row.input_ids) for row in fitting] * config.num_train_epochs
    order = [i % count for i in train_data.order_rows(lengths, count, config.effective_batch, config.seed)]
    if config.max_steps:
        order = order[: config.max_steps * config.effective_batch]
    if config.rotate_options:
        kept = {row.question_id for row in fitting}
        fitting, order = _turned([row for row in rows if row.question.question_id in kept], order, config, tokenizer)
    train_data.check_trainable(fitting)
    return TrainSet(fitting, order, *_encode_held_out(config, held_rows, tokenizer), too_long)


def _encode_held_out(config: TrainConfig, rows: list[SftRow], tokenizer: Any) -> tuple[list[Encoded], list[Encoded], list[list[int]]]:
    """The held-out rows as they would be trained on, the same answered by the letter alone, and the letters' tokens."""
    if not rows:
        return [], [], []
    letters = [replace(row, response=None) for row in rows]
    encoded = [
        train_data.fit_length(train_data.encode_rows(some, tokenizer, config.prompt_style), config.max_seq_length, "drop", None)[0]
        for some in ([rows] if rows == letters else [rows, letters])
    ]
    if not encoded[0]:
        raise TrainError(f"no held-out row is within --max-seq-length {config.max_seq_length}; raise it")
    return encoded[0], encoded[-1], train_data.letter_ids(letters, tokenizer, config.prompt_style)


def _turned(rows: list[SftRow], order: list[int], config: TrainConfig, tokenizer: Any) -> tuple[list[Encoded], list[int]]:
    """The rows under every letter that --rotate-options gives them, and the order in terms of these."""
    places = list(zip(order, train_data.balanced_letters(order, config.effective_batch, config.seed), strict=True))
    variants = {place: number for number, place in enumerate(dict.fromkeys(places))}
    encoded = train_data.encode_rows([train_data.rotate(rows[i], letter) for i, letter in variants], tokenizer, config.prompt_style)
    fitting, _ = train_data.fit_length(encoded, config.max_seq_length, "truncate", tokenizer.bos_token_id)
    return fitting, [variants[place] for place in places]


def _precision_warning(config: TrainConfig, parameters: int) -> list[str]:
    """Evaluation runs on 16-bit weights; nf4 moves a small model's letters so far that what is learnt on it does not carry over."""
    if not config.load_in_4bit or parameters >= _SMALL_PARAMETERS:
        return []
    warning = (
        f"the base has {parameters / 1e9:.2f} B parameters and is trained in 4 bit, but evaluated in 16 bit: at this size that can "
        "turn the predicted letters around, and the held-out rows do not show it; give --no-load-in-4bit"
    )
    say(f"warning: {warning}")
    return [warning]


def _planned_micro_batch(config: TrainConfig) -> int | None:
    """A resumed run keeps its micro-batch: free memory may be different now."""
    state = config.output_dir / STATE
    return int(read_json(state)["micro_batch"]) if config.resume and state.exists() else None


def _claim(config: TrainConfig, identity: dict[str, Any], micro_batch: int) -> None:
    """Mark the directory as this training's. A resumed one must be the same in all that decides the result."""
    state = config.output_dir / STATE
    if state.exists():
        _refuse_other(config.output_dir, identity)
        return
    if config.resume:
        say(f"--resume: {config.output_dir} holds no training yet; starting from the beginning")
    try:
        (config.output_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
        write_json_atomically(state, {**identity, "micro_batch": micro_batch})
    except OSError as error:
        raise TrainError(f"--output-dir {config.output_dir}: cannot be written ({error.strerror}); give another directory") from error


def _refuse_other(folder: Path, identity: dict[str, Any]) -> None:
    found = read_json(folder / STATE)
    differing = []
    for part, here in identity.items():
        there = found.get(part)
        if isinstance(here, dict) and isinstance(there, dict):
            differing += [
                f"{key} ({there.get(key)!r} there, {here.get(key)!r} here)"
                for key in sorted({*here, *there})
                if here.get(key) != there.get(key)
            ]
        elif here != there:
            differing.append(f"{part} ({there!r} there, {here!r} here)")
    if differing:
        raise TrainError(
            f"--resume: {folder} was trained with other settings: {', '.join(differing)}; use the same, or another --output-dir"
        )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _report(config: TrainConfig, card: dict[str, Any]) -> None:
    metrics, memory = card["metrics"], card["memory"]
    print(
        f"adapter: {config.output_dir}  ({metrics['steps']} steps, {metrics['tokens']:,} tokens, {metrics['train_sec']:.0f} s, "
        f"{metrics['tokens_per_sec']:.0f} tokens/s, final loss {metrics['final_loss']:.4f}, kept step {metrics['kept_step']})"
    )
    print(f"memory: peak {memory['peak_bytes'] / 2**30:.2f} GiB, planned {memory['planned_bytes'] / 2**30:.2f} GiB")
    for name, held in (("base", metrics["base"]), ("adapter", metrics["kept"])):
        if held:
            shares = " ".join(f"{letter} {share:.0%}" for letter, share in held["letter_share"].items())
            accuracies = f"accuracy {held['accuracy']:.3f}  balanced {held['balanced_accuracy']:.3f}"
            print(f"held-out {name}: loss {held['loss']:.4f}  {accuracies}  predicted {shares}")
    for warning in card["warnings"]:
        print(f"warning: {warning}")


if __name__ == "__main__":
    sys.exit(main())
