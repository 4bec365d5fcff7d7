"""``python -m kmmlu_fast.doctor [--model X] [--json]``: what this computer has and what will work on it.

Takes at most five seconds, downloads nothing, and works before anything is installed (``python3 -m
kmmlu_fast.doctor`` with Python 3.11 or newer). Exit codes: 0 something can run here, 2 nothing can (the last
line gives the reason).

``--verify MODEL`` takes minutes: do vLLM and transformers give the same letters for the model on this
computer? Exit codes: 0 yes, except for near ties, 1 no, 2 one of them cannot run.
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
from kmmlu_fast.models.default_model import DEFAULT_MODEL
from kmmlu_fast.reporting.terminal import doctor as terminal
from kmmlu_fast.training.memory_forecast import TrainingForecast, forecast_training


class _DoctorArgumentParser(argparse.ArgumentParser):
    """Reports faults in one line like every verb; ``command.flags`` needs pydantic, which may be missing."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


def run_doctor_command(argv: list[str] | None = None) -> int:
    """Entry point; see ``--help``."""
    return run_main(lambda: _run_doctor(argv))


def _run_doctor(argv: list[str] | None) -> int:
    parser = _DoctorArgumentParser(
        prog=invoked_command("python -m kmmlu_fast.doctor"),
        description="Show what this computer has and what will work on it, within five seconds.",
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help="hub id, local directory, or 'demo'")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument(
        "--verify",
        metavar="MODEL",
        help="ask 64 questions with vLLM and with transformers, and show the differences",
    )
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        raise ConfigError(f"unknown argument {unknown[0]}; allowed are --model, --json and --verify")
    if arguments.verify is not None:
        return _run_verification(arguments.verify, arguments.json)
    if not arguments.model:
        raise ConfigError("--model needs a hub id, a local directory, or 'demo'")
    diagnosis = diagnose_machine(arguments.model)
    training = _training_forecast(diagnosis)
    if arguments.json:
        document = {**diagnosis.to_json(), "training": training.to_json()}
        print(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        train = "kmmlu-fast train --data data/sft.jsonl --output-dir out/lora --model"
        command = " ".join([train, diagnosis.model_name, *training.flags]) if training.plan else ""
        terminal.print_diagnosis(diagnosis, training.line, command)
    return 2 if diagnosis.obstacles else 0


def _run_verification(model: str, as_json: bool) -> int:
    from kmmlu_fast.command.flags import parse_config
    from kmmlu_fast.evaluation.config import EvalConfig
    from kmmlu_fast.evaluation.engine_agreement import verify_engines

    flags = ["--model", model, "--dataset", "sample"]
    verification = verify_engines(parse_config(EvalConfig, flags, "python -m kmmlu_fast.doctor"))
    if as_json:
        print(json.dumps(verification.to_json(), ensure_ascii=False, indent=2))
    else:
        print("\n".join(verification.lines()))
    return 0 if verification.passed else 1


def _training_forecast(diagnosis: Diagnosis) -> TrainingForecast:
    """Training on the GPU, or on the CPU if there is none."""
    gpu = diagnosis.card
    free = gpu.free_bytes if gpu else diagnosis.machine.memory_free_bytes
    capability = gpu.capability if gpu else None
    return forecast_training(diagnosis.model, free, capability=capability, cpu_dtype=diagnosis.dtype)


if __name__ == "__main__":
    sys.exit(run_doctor_command())
