"""The ``eval.yaml`` of a data set on the hub, which makes it a benchmark: an exam's tasks for inspect-ai.

In: an ``Exam``. Out: the file's text, with notes about what the data set itself must have first; ConfigError
for exams that such a file cannot describe. Knows nothing of rows, and writes nothing.
"""

from __future__ import annotations

from typing import Any

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.notes import WithNotes
from kmmlu_fast.data.exam import Exam
from kmmlu_fast.data.subjects import SUBJECTS

LETTER_COLUMN = "answer_letter"


def make_eval_yaml(exam: Exam) -> WithNotes[str]:
    """The text of ``eval.yaml``. Its readers take a number as a letter counted from 0, so other answers need
    a column of letters.
    """
    import yaml

    if exam.hub is None:
        raise ConfigError(
            f"--eval-yaml {exam.name}: is not a data set of the hub, which eval.yaml belongs to"
        )
    notes: tuple[str, ...] = ()
    target, options = str(exam.answer), exam.options
    if exam.question is None or "{" in exam.question or exam.context or not isinstance(options, (str, list)):
        raise ConfigError(
            f"--eval-yaml {exam.name}: its questions are put together from several columns, which eval.yaml"
            " cannot say; store them in one column first"
        )
    if exam.coding not in ("letter", "from 0"):
        notes = (
            f"{exam.hub}: its answers are coded {exam.coding!r}, and readers of eval.yaml count from 0; give"
            f" the data set a text column {LETTER_COLUMN} (A, B, ...), which the file names",
        )
        target = LETTER_COLUMN
    fields = {"input": exam.question, "target": target, "choices": options}
    tasks = [
        {
            "id": config.lower().replace("-", "_"),
            "config": config,
            "split": exam.splits["test"],
            "field_spec": fields,
            "solvers": [{"name": "multiple_choice"}],
            "scorers": [{"name": "choice"}],
        }
        for config in _config_names(exam)
    ]
    document: dict[str, Any] = {
        "name": exam.title or exam.name,
        "description": f"Licence: {exam.licence}",
        "evaluation_framework": "inspect-ai",
        "tasks": tasks,
    }
    dumper = type("NoAliases", (yaml.SafeDumper,), {"ignore_aliases": lambda self, data: True})
    return WithNotes(yaml.dump(document, Dumper=dumper, allow_unicode=True, sort_keys=False), notes)


def _config_names(exam: Exam) -> list[str]:
    """The data set's configs; KMMLU's are its subjects."""
    if exam.subjects == "kmmlu" and list(exam.configs) in ([], ["*"]):
        return list(SUBJECTS)
    names = list(exam.configs) or ["default"]
    patterns = [name for name in names if "*" in name or "?" in name]
    if patterns:
        raise ConfigError(
            f"--eval-yaml {exam.name}: eval.yaml names each config, and {patterns[0]!r} is a pattern; write"
            " their names into the declaration"
        )
    return names
