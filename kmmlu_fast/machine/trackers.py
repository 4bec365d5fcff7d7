"""Experiment trackers: their names, whether they are installed, and sending the numbers of a result.

In: names as transformers has them; a result's name, numbers and settings. Out: nothing; the trackers have it.
Training is logged by transformers itself; a result is one row, sent by each tracker's own client. A tracker
that fails is named in a note, and never costs a result. Knows nothing of runs.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import InstallError
from kmmlu_fast.core.known_names import check_known_name, is_module_installed, offer_names
from kmmlu_fast.core.untrusted_text import one_line

PROJECT = "kmmlu-fast"  # WANDB_PROJECT, TRACKIO_PROJECT and MLFLOW_EXPERIMENT_NAME override it
_PARAMETER_LENGTH = 250  # characters; mlflow takes 6000, older servers 250

# The modules that a tracker needs; of several in one entry, one is enough.
TRACKERS: dict[str, tuple[str, ...]] = {
    "tensorboard": ("tensorboard|tensorboardX",),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "comet_ml": ("comet_ml",),
    "clearml": ("clearml",),
    "swanlab": ("swanlab",),
    "neptune": ("neptune",),
    "dvclive": ("dvclive",),
    "dagshub": ("dagshub", "mlflow"),
    "codecarbon": ("codecarbon",),
    "azure_ml": ("azureml",),
    "flyte": ("flytekit",),
    "kubeflow": (),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedResult:
    """One row for a tracker."""

    name: str
    numbers: Mapping[str, float]
    settings: Mapping[str, Any]


def check_tracker_names(names: Sequence[str]) -> list[str]:
    """The names without "none"; ValueError for one that transformers does not report to."""
    for name in names:
        check_known_name(name, (*TRACKERS, "all", "none"), {})
    alone = {"all", "none"} & {*names}
    if alone and len(names) > 1:
        raise ValueError(f"{sorted(alone)[0]} stands alone; give it, or names of trackers")
    return [name for name in names if name != "none"]


def require_trackers(names: Sequence[str]) -> None:
    """InstallError for a tracker that is not installed, before anything is loaded."""
    for name in names:
        absent = [
            module.split("|")[0] for module in TRACKERS.get(name, ()) if not is_module_installed(module)
        ]
        if absent:
            raise InstallError(
                f"--report-to {name}: needs {', '.join(absent)}, which is not installed: pip install"
                f" {' '.join(absent)}, or leave it out (extra trackers: pip install 'kmmlu-fast[trackers]')"
            )


def check_result_tracker_names(names: Sequence[str]) -> list[str]:
    """The names without "none"; ValueError for one that results cannot be sent to."""
    checked = check_tracker_names(names)
    for name in checked:
        if name not in (*SENDERS, "all"):
            raise ValueError(f"{name} follows trainings only; {offer_names(SENDERS)}")
    return checked


def send_results(names: Sequence[str], results: Sequence[TrackedResult]) -> None:
    """Send each result to each tracker, and say where it is. "all": those that are installed."""
    if "all" in names:
        names = [name for name in SENDERS if all(map(is_module_installed, TRACKERS[name]))]
        if not names:
            log_note(f"--report-to all: none of {', '.join(SENDERS)} is installed")
    for name in names:
        try:
            # stdout is for results; some clients greet there.
            with contextlib.redirect_stdout(sys.stderr):
                places = [SENDERS[name](result) for result in results]
        except Exception as error:  # whatever a client raises: the results are on disk
            why = one_line(f"{type(error).__name__}: {error}", 200)
            log_note(f"--report-to {name}: not sent ({why}); the results themselves are complete")
        else:
            log_note(f"sent to {name}: {', '.join(places)}")


def _send_to_tensorboard(result: TrackedResult) -> str:
    folder = Path(os.environ.get("TENSORBOARD_LOGGING_DIR", "tensorboard")) / result.name
    writer: Any
    if is_module_installed("tensorboard"):
        writer = importlib.import_module("tensorboard.summary").Writer(str(folder))
    else:
        writer = importlib.import_module("tensorboardX").SummaryWriter(str(folder))
    for tag, number in result.numbers.items():
        writer.add_scalar(tag, number, 0)
    writer.close()
    return str(folder)


def _send_to_client(module: str) -> Callable[[TrackedResult], str]:
    """wandb and trackio, whose client has the same functions."""

    def send(result: TrackedResult) -> str:
        client = importlib.import_module(module)
        project = os.environ.get(f"{module.upper()}_PROJECT", PROJECT)
        client.init(project=project, name=result.name, config=dict(result.settings))
        client.log(dict(result.numbers))
        client.finish()
        return f"{project}/{result.name}"

    return send


def _send_to_mlflow(result: TrackedResult) -> str:
    client = importlib.import_module("mlflow")
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    client.set_experiment(experiment)
    with client.start_run(run_name=result.name):
        client.log_params({name: str(value)[:_PARAMETER_LENGTH] for name, value in result.settings.items()})
        client.log_metrics(dict(result.numbers))
    return f"{experiment}/{result.name}"


SENDERS: dict[str, Callable[[TrackedResult], str]] = {
    "tensorboard": _send_to_tensorboard,
    "trackio": _send_to_client("trackio"),
    "wandb": _send_to_client("wandb"),
    "mlflow": _send_to_mlflow,
}
