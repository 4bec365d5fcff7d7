"""``python -m kmmlu_fast.doctor [--model X] [--json]``: what this computer has, and what will work on it.

Within five seconds, without a download, and also before anything is installed (``python3 -m
kmmlu_fast.doctor`` with any Python 3.11 or newer). Exit codes: 0 something can run here, 2 nothing can
(the reason is the last line).

``--verify MODEL`` is another question, of minutes: do vLLM and transformers give the model's letters alike
here? Exit codes: 0 they do but for near ties, 1 they do not, 2 one of them cannot run.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import NoReturn

from kmmlu_fast.command.help_text import invoked_command
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.machine.diagnosis import Diagnosis, diagnose_machine
from kmmlu_fast.reporting.terminal import doctor as shown
from kmmlu_fast.training.memory_forecast import TrainingForecast, forecast_training

DEFAULT_MODEL = (  # models.model's, which is too heavy to import here; a test holds them together
    "skt/A.X-4.0-Light"
)


class _DoctorArgumentParser(argparse.ArgumentParser):
    """Faults as one line, as every verb's are; ``core.flags`` needs pydantic, which may not be here yet."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


def run_doctor_command(argv: list[str] | None = None) -> int:
    """Entry point; see ``--help``."""
    return run_main(lambda: _run_doctor(argv))


def _run_doctor(argv: list[str] | None) -> int:
    parser = _DoctorArgumentParser(
        prog=invoked_command("python -m kmmlu_fast.doctor"),
        description="What this computer has, and what will work on it; within five seconds.",
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help="hub id, local directory, or 'demo'")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument(
        "--verify", metavar="MODEL", help="ask 64 questions by vLLM and by transformers, show the difference"
    )
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        raise ConfigError(f"unknown argument {unknown[0]}; allowed are --model, --json and --verify")
    if arguments.verify is not None:
        return _run_verification(arguments.verify, arguments.json)
    if not arguments.model:
        raise ConfigError("--model needs a hub id, a local directory, or 'demo'")
    found = diagnose_machine(arguments.model)
    training = _training_forecast(found)
    command = " ".join(
        [
            "kmmlu-fast train --data data/sft.jsonl --output-dir out/lora --model",
            found.model_name,
            *training.flags,
        ]
    )
    if arguments.json:
        document = {**found.to_json(), "training": training.to_json()}
        print(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        shown.print_diagnosis(found, training.line, command if training.plan else "")
    return 2 if found.obstacles else 0


def _run_verification(model: str, as_json: bool) -> int:
    from kmmlu_fast.command.flags import parse_config
    from kmmlu_fast.evaluation.config import EvalConfig
    from kmmlu_fast.evaluation.engine_agreement import verify_engines

    found = verify_engines(
        parse_config(EvalConfig, ["--model", model, "--dataset", "sample"], "python -m kmmlu_fast.doctor")
    )
    print(json.dumps(found.to_json(), ensure_ascii=False, indent=2) if as_json else "\n".join(found.lines()))
    return 0 if found.passed else 1


def _training_forecast(found: Diagnosis) -> TrainingForecast:
    """On the card, else on the CPU."""
    free = found.card.free_bytes if found.card else found.machine.memory_free_bytes
    capability = found.card.capability if found.card else None
    return forecast_training(found.model, free, capability=capability, cpu_dtype=found.dtype)


if __name__ == "__main__":
    sys.exit(run_doctor_command())
