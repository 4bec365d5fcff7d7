"""The tasks in lm-evaluation-harness's outputs: which subject, task group, model and settings each is of.

In: an ``LmEvalOutput``. Out: ``LmEvalTask`` records of KMMLU's tasks, and of our own exports' exams. Knows
nothing of samples and scores.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.data.subjects import SUBJECTS, Subject
from kmmlu_fast.runs.readers.lm_eval_files import LmEvalOutput
from kmmlu_fast.runs.readers.lm_eval_samples import OWN_FIELDS
from kmmlu_fast.runs.readers.lm_eval_scores import task_filters
from kmmlu_fast.runs.readers.source import RunSource

_SUBJECTS = {name.lower().replace("-", "_"): subject for name, subject in SUBJECTS.items()}
# Settings of a command that decide answers, beside those that make the run's key.
_SETTINGS = ("chat_template_sha", "chat_template", "system_instruction", "fewshot_as_multiturn")
_COMMAND_SETTINGS = ("model_args", "gen_kwargs", "limit", "num_fewshot")


def lm_eval_task_name(subject: str, direct: bool = False) -> str:
    return ("kmmlu_direct_" if direct else "kmmlu_") + subject.lower().replace("-", "_")


def split_task_name(task: str) -> tuple[str, Subject] | None:
    """``kmmlu_direct_criminal_law`` -> its group and subject; None if it ends with no subject."""
    endings = [name for name in _SUBJECTS if task.endswith(f"_{name}")]
    if not endings:
        return None
    subject = max(endings, key=len)
    return task.removesuffix(f"_{subject}"), _SUBJECTS[subject]


@dataclass(frozen=True, slots=True, kw_only=True)
class LmEvalTask:
    """One subject's task in one output."""

    output: LmEvalOutput
    name: str
    group: str
    subject: Subject

    @property
    def exam(self) -> dict[str, Any]:
        """The exam that our own export names; {} for lm-eval's files."""
        own = self.output.document.get(OWN_FIELDS)
        exam = own.get("exam") if isinstance(own, dict) else None
        return exam if isinstance(exam, dict) and isinstance(exam.get("name"), str) else {}

    @property
    def shots(self) -> int | None:
        for key in ("n-shot", "num_fewshot"):
            counts = self.output.document.get(key)
            if isinstance(counts, dict) and isinstance(counts.get(self.name), int):
                return int(counts[self.name])
        return None

    @property
    def samples(self) -> Path | None:
        return self.output.samples.get(self.name)

    @property
    def values(self) -> dict[str, Any]:
        """Its entry in the results document."""
        values = self.output.document.get("results", {}).get(self.name)
        return values if isinstance(values, dict) else {}


def iter_lm_eval_tasks(output: LmEvalOutput, source: RunSource) -> Iterator[LmEvalTask]:
    """The output's tasks of KMMLU (or of our own export), each of one subject."""
    for name in dict.fromkeys([*output.samples, *output.document.get("results", {})]):
        split = _own_task(output, name) or split_task_name(name)
        if split is None:
            continue
        task = LmEvalTask(output=output, name=name, group=split[0], subject=split[1])
        # without both it is a group's heading, or a task of another kind
        if (task.samples or task_filters(task.values)) and _is_kmmlu_group(task, source):
            yield task


def _own_task(output: LmEvalOutput, name: str) -> tuple[str, Subject] | None:
    """Group and subject of a task as our own export names them; None for lm-eval's files."""
    own = output.document.get(OWN_FIELDS)
    tasks = own.get("tasks") if isinstance(own, dict) else None
    entry = tasks.get(name) if isinstance(tasks, dict) else None
    if not isinstance(entry, dict):
        return None
    subject, group = str(entry.get("subject")), str(entry.get("supercategory"))
    return str(entry.get("group")), SUBJECTS.get(subject) or Subject(subject, group, subject)


def _is_kmmlu_group(task: LmEvalTask, source: RunSource) -> bool:
    """KMMLU's tasks by name; a copy under another name by its documents' columns, or if it is chosen."""
    if task.exam or "kmmlu" in task.group.split("_") or task.group in (source.choice or "").split(","):
        return True
    if task.samples is None:
        return False
    try:
        with task.samples.open("rb") as file:
            head = file.read(1 << 16)
    except OSError:
        return False
    columns = (b'"Human Accuracy"', b'"question"', b'"A"', b'"D"', b'"answer"')
    return all(column in head for column in columns)


def lm_eval_model_name(output: LmEvalOutput, source: RunSource) -> str:
    """The model as the results say; without them, as the folder is called."""
    if output.document.get("model_name"):
        return str(output.document["model_name"])
    config = output.document.get("config")
    arguments = config.get("model_args") if isinstance(config, dict) else None
    if isinstance(arguments, str):
        arguments = dict(part.split("=", 1) for part in arguments.split(",") if "=" in part)
    if isinstance(arguments, dict):
        for key in ("peft", "delta", "pretrained", "model", "path", "engine"):
            if arguments.get(key):
                return str(arguments[key])
    if output.folder == source.path or source.path.is_file():
        return source.path.stem
    return output.folder.name.replace("__", "/", 1)


def lm_eval_settings_key(output: LmEvalOutput, task: str) -> str:
    """What else decides the answers, as text; without a results document the folder stands for it."""
    document = output.document
    if not document:
        return str(output.folder)
    config = document.get("config")
    command = config if isinstance(config, dict) else {}
    versions = document.get("versions")
    settings = [document.get(name) for name in _SETTINGS] + [command.get(name) for name in _COMMAND_SETTINGS]
    settings.append(versions.get(task) if isinstance(versions, dict) else None)
    return json.dumps(settings, sort_keys=True, default=str, ensure_ascii=False)
