"""Shows a finished evaluation again without tokenizer, prompts or torch.

In: an ``EvalConfig``. Out: the complete runs that the same command left in its output directory, or None. The
key is a digest of everything a run depends on (settings, questions, model and adapter files, versions, this
package's code). If any of it changed, the normal path renders and digests the prompts themselves. Knows
nothing of engines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.digests import compute_fingerprint, hash_file
from kmmlu_fast.core.errors import KmmluError
from kmmlu_fast.core.files import read_json, write_json_atomically
from kmmlu_fast.core.reading import expand_path
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.questions import question_source_digests
from kmmlu_fast.machine import environment, gpus
from kmmlu_fast.machine.environment import code_digest
from kmmlu_fast.machine.host import best_cpu_dtype
from kmmlu_fast.models.adapter_files import ADAPTER_CARD
from kmmlu_fast.models.chat_files import CHAT_FILES
from kmmlu_fast.models.generation_defaults import read_sampling_defaults
from kmmlu_fast.models.model import Model, resolve_model
from kmmlu_fast.runs.run import Run
from kmmlu_fast.runs.store import load_run_directory

# Where a run is written, who is told and who keeps the engine, not what is in it.
_LOCATION_FLAGS = {"output_dir", "overwrite", "plan", "gpu_memory", "report_to", "warm_engine"}


def reusable_runs(config: EvalConfig) -> list[Run] | None:
    """All runs of the command, base first, if every one is complete; else None."""
    if config.overwrite or not any(config.output_dir.glob(".asked-*.json")):
        return None
    path = _reuse_record_path(config)
    if not path.exists():
        return None
    try:
        record = read_json(path)
        runs = [load_run_directory(config.output_dir / str(name)) for name in record["runs"]]
    except (KmmluError, KeyError, TypeError):
        return None  # moved, deleted or incomplete: the normal path reports what is missing
    for text in record.get("notes", []):
        log_note(f"note: {text}")
    for run in runs:
        adapter = run.config.get("adapter") or {}
        log_note(f"{adapter.get('name', 'base')}: finished before, reused from {run.path}")
    return runs


def record_finished_runs(config: EvalConfig, runs: Sequence[Run], notes: Sequence[str]) -> None:
    """Record the command's runs in their directory; skipped if it cannot be written."""
    with contextlib.suppress(OSError, KmmluError):
        names = [run.path.name for run in runs if run.path is not None]
        write_json_atomically(_reuse_record_path(config), {"runs": names, "notes": list(notes)})


def _reuse_record_path(config: EvalConfig) -> Path:
    return config.output_dir / f".asked-{compute_fingerprint(_reuse_key_parts(config), digits=16)}.json"


def _reuse_key_parts(config: EvalConfig) -> dict[str, Any]:
    """Everything that prompts, answers and run names depend on. Raises the same KmmluErrors as a new run."""
    model = resolve_model(config.model, config.revision, config.trust_remote_code)
    adapters = _load_adapters(config, model)
    libraries = ("vllm", "transformers", "tokenizers", "lm-eval")
    return {
        "config": config.model_dump(mode="json", exclude=_LOCATION_FLAGS),
        "questions": question_source_digests(config),
        "model": [model.name, model.path, model.digest, model.revision],
        "adapters": [[each.name, each.digest, each.prompt_style, each.template_digest] for each in adapters],
        "templates": _template_digests(config, adapters),
        "sampling": _model_sampling(config, model),
        "device": [*map(str, gpus.list_gpus()), best_cpu_dtype()],  # decides --dtype auto
        "versions": {name: environment.package_version(name) for name in libraries},
        "code": code_digest(),
    }


def _load_adapters(config: EvalConfig, model: Model) -> list[Adapter]:
    if not config.adapter:
        return []
    from kmmlu_fast.evaluation.adapter_mode import adapter_loading_mode
    from kmmlu_fast.models.adapters import load_adapters

    return load_adapters(config.adapter, model, adapter_loading_mode(config))


def _model_sampling(config: EvalConfig, model: Model) -> str:
    """The model's own sampling, where it may be the default."""
    return repr(read_sampling_defaults(model)) if config.output_type == "cot" else ""


def _template_digests(config: EvalConfig, adapters: Sequence[Adapter]) -> list[str]:
    """Digests of the files that say how conversations are rendered and where they stop."""
    paths = [adapter.path / name for adapter in adapters for name in (*CHAT_FILES, ADAPTER_CARD)]
    if config.chat_template:
        paths.append(expand_path(config.chat_template, "--chat-template"))
    declared = [config.protocol, *config.protocols]
    paths += [expand_path(name, "--protocol") for name in declared if name]
    return [hash_file(path) if path.is_file() else "" for path in paths]
