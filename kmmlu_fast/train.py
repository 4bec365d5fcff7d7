"""``python -m kmmlu_fast.train``: training rows -> a LoRA adapter that evaluation loads.

In: flags. Out: the adapter directory, a summary on stdout. The work is in ``training.job``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import run_main
from kmmlu_fast.core.foreign import clean
from kmmlu_fast.core.guard import guarded


def main(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> None:
        # Imported here, in the watched process: nothing native may be loaded before it is made.
        from kmmlu_fast.core.flags import parse
        from kmmlu_fast.training.config import TrainConfig
        from kmmlu_fast.training.job import run_job

        trained = run_job(parse(TrainConfig, argv, prog="python -m kmmlu_fast.train"))
        _report(trained.path, trained.card)

    return run_main(body)


def _report(path: Path, card: dict[str, Any]) -> None:
    metrics, memory = card["metrics"], card["memory"]
    print(
        f"adapter: {clean(str(path))}  ({metrics['steps']} steps, {metrics['tokens']:,} tokens, {metrics['train_sec']:.0f} s, "
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
    sys.exit(guarded(main))
