"""Publishes a directory with its numbers: model card with a model-index, and a text-free bundle of every run.

In: a ``PushConfig``. Out: one commit on the hub, or with ``--dry-run`` a directory that holds what it would
contain. Knows nothing of how numbers are computed.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import ConfigError, RunError
from kmmlu_fast.core.files import distinct_slugs, remove_tree, sync_folder
from kmmlu_fast.core.locks import acquire_lock, sweep_lock
from kmmlu_fast.core.reading import expand_path
from kmmlu_fast.core.untrusted_text import one_line
from kmmlu_fast.runs.run import Run
from kmmlu_fast.runs.store import load_run_directory
from kmmlu_fast.shipping.bundle import make_bundle
from kmmlu_fast.shipping.config import PushConfig
from kmmlu_fast.shipping.eval_results import make_eval_results
from kmmlu_fast.shipping.published_texts import publish_card, publish_texts

BUNDLES = "evaluation"
CARD = "README.md"
_HUB = "HAERAE-HUB/KMMLU"
# What an export or a training leaves that says where it was made, or that only continues it.
_LEFT_OUT = ("kmmlu_fast_export.json", "training.json", "checkpoint-")


@dataclass(frozen=True, slots=True)
class Push:
    """What was, or would be, published: paths in the repository, and where."""

    paths: tuple[str, ...]
    url: str | None  # of the commit; None for a dry run


def push_directory(config: PushConfig) -> Push:
    """Publish the directory with the runs' numbers. ConfigError or RunError before anything is sent."""
    folder = expand_path(config.directory[0], "directory")
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such directory; give an export's or an adapter's")
    runs = [load_run_directory(expand_path(run, "--run")) for run in config.run]
    written = _written_files(config, folder, runs)
    weights = [path for path in _published_files(folder) if str(path.relative_to(folder)) not in written]
    names = sorted({*written, *(str(path.relative_to(folder)) for path in weights)})
    if config.dry_run:
        _write_staging(config.staging, folder, weights, written)
        return Push(tuple(names), None)
    return Push(tuple(names), _create_commit(config, folder, weights, written))


def _written_files(config: PushConfig, folder: Path, runs: list[Run]) -> dict[str, bytes]:
    """The card and the bundles, by their path in the repository."""
    files = publish_texts(
        folder, [path for path in _published_files(folder) if path.name != CARD], config.base
    )
    files[CARD] = publish_card(publication_card(config, folder, runs), folder, config.base)
    for slug, run in zip(distinct_slugs(run.state for run in runs), runs, strict=True):
        for name, data in make_bundle(run).items():
            files[f"{BUNDLES}/{slug}/{name}"] = data
    if runs:
        results, sentence = make_eval_results(runs[-1], _data_set_of(runs[-1]))
        log_note(f"push: {sentence}")
        files |= results
    return files


def _data_set_of(run: Run) -> str:
    """The hub id of the exam's rows, or the exam's name."""
    return _HUB if run.exam == "kmmlu" else run.exam


def _published_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith((".", *_LEFT_OUT)) for part in parts)
        if path.is_file() and not hidden and not path.name.endswith(".lock"):
            yield path


def publication_card(config: PushConfig, folder: Path, runs: list[Run]) -> str:
    """The directory's card, or a short one, with a model-index and a table of the runs."""
    from huggingface_hub import ModelCard, ModelCardData

    old = folder / CARD
    card = ModelCard(old.read_text("utf-8", "replace") if old.is_file() else f"---\n---\n# {config.repo}\n")
    data: Any = ModelCardData(**{**card.data.to_dict(), "model_name": config.repo.partition("/")[2]})
    if config.base:
        data.base_model = config.base
    if config.licence:
        data.license = config.licence
    data.tags = sorted({*(data.tags or []), "kmmlu-fast"})
    data.eval_results = [_eval_result(run, kind) for run in runs for kind in ("micro", "macro")] or None
    card.data = data
    return str(card) + (_runs_text(runs) if runs else "")


def _eval_result(run: Run, kind: str) -> Any:
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type="multiple-choice",
        task_name="multiple choice",
        dataset_type=_data_set_of(run),
        dataset_name=run.exam_title,
        dataset_split=str((run.config.get("config") or {}).get("split", "test")),
        dataset_args={
            "num_fewshot": run.facts.get("num_fewshot"),
            "prompt_style": run.facts.get("prompt_style"),
        },
        metric_type="accuracy",
        metric_name=f"{kind} accuracy, {run.state}",
        metric_value=round(run.micro if kind == "micro" else run.macro, 6),
    )


def _runs_text(runs: list[Run]) -> str:
    head = ["", "## Evaluation", "", "| model state | questions | accuracy, % | 95 % interval | macro, % |"]
    rows = []
    for run in runs:
        micro = run.metrics.micro
        interval = "-"
        if micro is not None and micro.ci_low is not None and micro.ci_high is not None:
            interval = f"{100 * micro.ci_low:.2f} to {100 * micro.ci_high:.2f}"
        values = (run.state, f"{run.total:,}", f"{100 * run.micro:.2f}", interval, f"{100 * run.macro:.2f}")
        rows.append("| " + " | ".join(values) + " |")
    facts = runs[-1].facts
    how = (
        f"{runs[-1].exam_title}, {facts.get('num_fewshot')}-shot, {facts.get('prompt_style')} prompts,"
        f" {facts.get('output_type')}; measured with kmmlu_fast. The answers, without the questions' texts,"
        " are in"
        f" `{BUNDLES}/`: `kmmlu-fast verify` checks them. Licence of the exam: {runs[-1].licence}."
    )
    return "\n".join([*head, "|---|---|---|---|---|", *rows, "", how, ""])


def _write_staging(target: Path, folder: Path, weights: list[Path], written: dict[str, bytes]) -> None:
    """Write the repository's contents into a new directory: all of it or nothing."""
    lock = target.parent / f".{target.name}.lock"
    if target.exists() or target.is_symlink():
        sweep_lock(lock)
        raise ConfigError(f"--staging {target}: exists; give a directory that does not")
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        in_use = ConfigError(f"--staging {target}: another push is writing it; wait for it")
        with acquire_lock(lock, in_use):
            remove_tree(partial)
            try:
                for name, data in written.items():
                    (partial / name).parent.mkdir(parents=True, exist_ok=True)
                    (partial / name).write_bytes(data)
                for path in weights:
                    place = partial / path.relative_to(folder)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, place)
                partial.rename(target)
                sync_folder(target.parent)
            finally:
                with contextlib.suppress(OSError):
                    remove_tree(partial)
    except OSError as error:
        raise ConfigError(
            f"--staging {target}: cannot be written ({error.strerror or error}); nothing was left"
        ) from error


def _create_commit(config: PushConfig, folder: Path, weights: list[Path], written: dict[str, bytes]) -> str:
    """One commit with everything. RunError in one line if the hub refuses."""
    from huggingface_hub import CommitOperationAdd, HfApi

    operations = [CommitOperationAdd(name, io.BytesIO(data)) for name, data in written.items()]
    operations += [CommitOperationAdd(str(path.relative_to(folder)), str(path)) for path in weights]
    api = HfApi()
    try:
        api.create_repo(config.repo, private=config.private or None, exist_ok=True)
        commit = api.create_commit(
            config.repo, operations, commit_message="Weights, card and evaluation (kmmlu_fast)"
        )
    except Exception as error:  # the hub client raises a dozen kinds; all mean that nothing was committed
        raise RunError(
            f"--repo {config.repo}: the hub refused ({one_line(f'{type(error).__name__}: {error}', 200)});"
            " log in"
            " with: hf auth login; nothing was committed"
        ) from error
    return str(commit.commit_url)
