"""``python -m kmmlu_fast.doctor [--model X] [--gpu-memory GIB] [--json]``: what this computer has, or a card
that is not here, and what will work on it.

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

from kmmlu_fast.command.help_language import choose_help_language, translate_help
from kmmlu_fast.command.help_text import format_help_row, invoked_command
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.console import terminal_width
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.machine.diagnosis import Diagnosis, diagnose_machine
from kmmlu_fast.models.default_model import DEFAULT_MODEL
from kmmlu_fast.reporting.terminal import doctor as terminal
from kmmlu_fast.training.memory_forecast import TrainingForecast, forecast_training

SUMMARY = "Show what this computer has and what will work on it, within five seconds."
FLAGS = {  # as typed -> what it does
    "--model TEXT": "hub id, local directory, or 'demo'",
    "--gpu-memory X": "answer for a GPU with this many GiB, which need not be in this machine",
    "--json": "print JSON instead of text",
    "--verify MODEL": "ask 64 questions with vLLM and with transformers, and show the differences",
}


class _DoctorArgumentParser(argparse.ArgumentParser):
    """Reports faults in one line like every verb; ``command.flags`` needs pydantic, which may be missing."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


def run_doctor_command(argv: list[str] | None = None) -> int:
    """Entry point; see ``--help``."""
    return run_main(lambda: _run_doctor(argv))


def _run_doctor(argv: list[str] | None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if "-h" in words or "--help" in words:
        print(_format_doctor_help(choose_help_language(words)))
        return 0
    parser = _DoctorArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--gpu-memory")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--verify")
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        allowed = "--model, --gpu-memory, --json and --verify"
        raise ConfigError(f"unknown argument {unknown[0]}; allowed are {allowed}")
    gpu_memory = _read_gpu_memory(arguments.gpu_memory)
    if arguments.verify is not None:
        if gpu_memory is not None:
            raise ConfigError(
                "--gpu-memory does not go with --verify, which asks the engines of this machine"
            )
        return _run_verification(arguments.verify, arguments.json)
    if not arguments.model:
        raise ConfigError("--model needs a hub id, a local directory, or 'demo'")
    diagnosis = diagnose_machine(arguments.model, gpu_memory_gib=gpu_memory)
    training = _training_forecast(diagnosis)
    if arguments.json:
        document = {**diagnosis.to_json(), "training": training.to_json()}
        print(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        train = "kmmlu-fast train --data data/sft.jsonl --output-dir out/lora --model"
        command = " ".join([train, diagnosis.model_name, *training.flags]) if training.plan else ""
        terminal.print_diagnosis(diagnosis, training.line, command)
    return 2 if diagnosis.obstacles else 0


def _format_doctor_help(lang: str) -> str:
    prog = invoked_command("python -m kmmlu_fast.doctor")
    usage = translate_help("usage: {command} [flags]", lang).format(command=prog)
    lines = [usage, "", translate_help(SUMMARY, lang), "", translate_help("settings", lang) + ":"]
    width = min(100, max(60, terminal_width()))
    for flag, about in FLAGS.items():
        default = f" ({translate_help('default', lang)}: {DEFAULT_MODEL})" if flag == "--model TEXT" else ""
        lines += format_help_row(flag, translate_help(about, lang) + default, width)
    return "\n".join(lines)


def _read_gpu_memory(text: str | None) -> float | None:
    """``--gpu-memory`` in GiB. ConfigError if it is not a size that a card can have."""
    if text is None:
        return None
    try:
        gib = float(text)
    except ValueError:
        gib = 0.0
    if not 0 < gib <= 10_000:
        raise ConfigError(f"--gpu-memory {text!r}: must be a number of GiB above 0, such as 24")
    return gib


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
