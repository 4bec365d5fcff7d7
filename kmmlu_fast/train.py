"""``python -m kmmlu_fast.train``: train a LoRA adapter that evaluation can load.

In: flags. Out: the adapter directory and a summary on stdout. The work is in ``training.job``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from kmmlu_fast.command.crash_guard import run_with_crash_guard
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.console import terminal_width, wrap_line
from kmmlu_fast.core.untrusted_text import strip_control_characters


def run_train_command(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> None:
        # Imported in the watched process: no native library may be loaded before it is forked.
        from kmmlu_fast.command.flags import parse_config
        from kmmlu_fast.training.config import TrainConfig

        config = parse_config(TrainConfig, argv, prog="python -m kmmlu_fast.train")
        if config.show_rows:
            from kmmlu_fast.training.row_preview import show_training_rows

            show_training_rows(config)
            if not config.plan:
                return
        if config.plan:
            from kmmlu_fast.training.preview import preview_training

            width = terminal_width() if sys.stdout.isatty() else 1_000
            print("\n".join(wrap_line(line, width) for line in preview_training(config)))
            return
        from kmmlu_fast.training.job import run_training_job
        from kmmlu_fast.training.result import PausedTraining

        trained = run_training_job(config)
        if isinstance(trained, PausedTraining):
            print(
                f"paused after step {trained.step} of {trained.planned_steps}: {trained.checkpoint}; the same"
                " command with --resume and without --stop-after continues"
            )
            return
        _print_training_summary(trained.path, trained.card)

    return run_main(body)


def _print_training_summary(path: Path, card: dict[str, Any]) -> None:
    """Print the card's numbers. AdapterError if --resume found a card that no training wrote."""
    from kmmlu_fast.core.errors import AdapterError

    try:
        lines = _training_summary_lines(path, card)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AdapterError(
            f"{path}: its card was not written by a training ({type(error).__name__}: {error}); train into a"
            " new directory"
        ) from error
    print("\n".join(map(strip_control_characters, lines)))


def _training_summary_lines(path: Path, card: dict[str, Any]) -> list[str]:
    from kmmlu_fast.training.held_out import format_change, format_letters

    metrics, memory = card["metrics"], card["memory"]
    over = memory["peak_bytes"] / memory["planned_bytes"] - 1 if memory["planned_bytes"] else 0.0
    excess = ""
    if over > 0:
        excess = (
            f" ({over:.0%} above plan: if the GPU is full, give --max-memory-gib or a smaller --micro-batch)"
        )
    lines = [
        f"adapter: {path}  ({metrics['steps']} steps, {metrics['tokens']:,} tokens,"
        f" {metrics['train_sec']:.0f} s, {metrics['tokens_per_sec']:.0f} tokens/s, final loss"
        f" {metrics['final_loss']:.4f}, kept step {metrics['kept_step']})",
        f"memory: peak {memory['peak_bytes'] / 2**30:.2f} GiB, planned {memory['planned_bytes'] / 2**30:.2f}"
        f" GiB{excess}",
    ]
    for name, held_out in (("base", metrics["base"]), ("adapter", metrics["kept"])):
        if held_out:
            accuracies = f"accuracy {held_out['accuracy']:.3f}  balanced {held_out['balanced_accuracy']:.3f}"
            if change := format_change(held_out):
                accuracies += f"  change {change}"
            lines.append(
                f"held-out {name}: loss {held_out['loss']:.4f}  {accuracies}  {format_letters(held_out)}"
            )
    return [*lines, *(f"warning: {warning}" for warning in card["warnings"])]


if __name__ == "__main__":
    sys.exit(run_with_crash_guard(run_train_command))
