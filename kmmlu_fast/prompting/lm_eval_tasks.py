"""Wordings that hold an exam's own texts, read from the task files of an installed lm-eval.

In: a directory of task files ("kmmlu/cot_hard"), a question. Out: its prompt after the task's worked
exemplars, as lm-eval renders it; ConfigError if lm-eval is not installed or the subject has no task. Such
exemplars are KMMLU's questions (CC-BY-ND) with rationales, so this package does not carry them. Knows nothing
of models.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import re
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.reading import read_yaml
from kmmlu_fast.core.schema import Question

_FIELD = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_TARGET_DELIMITER, _EXEMPLAR_DELIMITER = " ", "\n\n"  # lm-eval's defaults
_REMEDY = "install the version that this project is checked with (pip install lm-eval==0.4.13)"


def render_task_prompt(tasks: str, question: Question) -> str:
    """The question after the exemplars of its subject's task."""
    template, exemplars = read_subject_task(tasks, question.subject)
    options = dict(zip(question.letters, question.options, strict=True))
    return exemplars + _fill_fields(template, {"question": question.question, **options})


@functools.cache
def read_subject_task(tasks: str, subject: str) -> tuple[str, str]:
    """A subject's prompt template, and its exemplars as one text."""
    name = subject.lower().replace("-", "_")
    folder = find_task_folder(tasks)
    content: dict[str, Any] = {}
    for path in sorted(folder.glob(f"*_{name}.yaml")):  # law's too among criminal_law's
        read = read_yaml(path, str(path))
        if read.get("dataset_name") == name:
            content = read
    if not content:
        raise ConfigError(
            f"lm-eval's tasks/{tasks} has no task for the subject {subject!r}: this protocol is for KMMLU and"
            " KMMLU-HARD"
        )
    template, samples = content.get("doc_to_text"), (content.get("fewshot_config") or {}).get("samples")
    if not isinstance(template, str) or not isinstance(samples, list) or not samples:
        raise ConfigError(f"{folder}: is not laid out as lm-eval 0.4.13 has it; {_REMEDY}")
    shots = [
        _fill_fields(template, sample) + _TARGET_DELIMITER + str(sample["target"]) + _EXEMPLAR_DELIMITER
        for sample in samples
    ]
    return template, "".join(shots)


def digest_tasks(tasks: str) -> str:
    """sha256 of every byte of the task files."""
    state = hashlib.sha256()
    for path in sorted(find_task_folder(tasks).iterdir()):
        if path.is_file():
            state.update(f"{path.name}\x1f".encode() + path.read_bytes())
    return state.hexdigest()


def find_task_folder(tasks: str) -> Path:
    """Where lm-eval's task files lie; it is not imported."""
    found = importlib.util.find_spec("lm_eval")
    for location in (found and found.submodule_search_locations) or ():
        folder = Path(location) / "tasks" / tasks
        if folder.is_dir():
            return folder
    raise ConfigError(
        f"this protocol's exemplars are KMMLU's own texts, which are read from lm-eval's tasks/{tasks};"
        f" {_REMEDY}"
    )


def _fill_fields(template: str, values: dict[str, str]) -> str:
    """The template with {{name}} replaced, all at once."""
    return _FIELD.sub(lambda match: str(values[match[1]]) if match[1] in values else match[0], template)
