"""Reads lm-evaluation-harness's outputs: all of its KMMLU tasks, one run per model, task group and shots.

In: a directory, a results file or a file of samples; perhaps a choice (model, group, "5-shot", filter, time).
Out: ``Run`` records, the oldest first; log-probabilities are natural, A first. Of one thing measured more
than once the latest counts, by the time in the names. Knows nothing of how questions are asked.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from kmmlu_fast.core.errors import DataError, RunError
from kmmlu_fast.data.exam_lookup import find_exam, shipped_exam_names
from kmmlu_fast.runs.readers.lm_eval_candidates import (
    LmEvalCandidate,
    choose_lm_eval_candidates,
    find_lm_eval_candidates,
)
from kmmlu_fast.runs.readers.lm_eval_files import LmEvalOutput, find_lm_eval_outputs, is_lm_eval_path
from kmmlu_fast.runs.readers.lm_eval_samples import SampleTask, read_samples, samples_frame
from kmmlu_fast.runs.readers.lm_eval_scores import task_filters, task_score
from kmmlu_fast.runs.readers.lm_eval_tasks import LmEvalTask
from kmmlu_fast.runs.readers.source import RunReader, RunSource
from kmmlu_fast.runs.run import SCORE_SCHEMA, Run, count_subject_scores


def read_lm_eval_runs(source: RunSource) -> list[Run]:
    """Every run that the files hold, or those that the choice names."""
    outputs = find_lm_eval_outputs(source.path)
    candidates = find_lm_eval_candidates(outputs, source)
    if not candidates:
        raise DataError(_no_task_message(outputs, source))
    chosen, filters = choose_lm_eval_candidates(candidates, source)
    return [_build_run(candidate, filters, source) for candidate in chosen]


def _no_task_message(outputs: list[LmEvalOutput], source: RunSource) -> str:
    names = [name for output in outputs for name in [*output.samples, *output.document.get("results", {})]]
    shown = ", ".join(dict.fromkeys(names)) or "none"
    return (
        f"{source.argument}: has no kmmlu_<subject> task (its tasks: {shown[:200]}); give an lm-eval output"
        " of one of the kmmlu groups, or name the group of a copy of it, as PATH:GROUP"
    )


def _build_run(candidate: LmEvalCandidate, filters: list[str], source: RunSource) -> Run:
    with_samples = [task for task in candidate.tasks if task.samples is not None]
    notes = list(candidate.notes)
    own_exam = candidate.tasks[0].exam
    exam = own_exam.get("name") or _exam_of_group(candidate.group)
    predictions, scores = None, None
    if with_samples:
        missing = sorted(task.subject.name for task in candidate.tasks if task.samples is None)
        if missing:
            notes.append(
                f"{source.argument}: {candidate.name}: {len(missing)} subjects have scores and no samples"
                f" ({', '.join(missing[:5])}); they are left out"
            )
        predictions = _read_predictions(with_samples, candidate, exam, filters, source)
        scores = count_subject_scores(predictions)
        by_letters = predictions["logprob_A"].null_count() == 0
    else:
        rows = _read_scores(candidate, filters, source)
        scores = pl.DataFrame(rows, schema=SCORE_SCHEMA, orient="row").sort("subject")
        by_letters = any(metric.startswith("acc") for task in candidate.tasks for metric in task.values)
    facts = {
        "model": candidate.model if any(task.output.document for task in candidate.tasks) else None,
        "num_fewshot": candidate.shots,
        "prompt_style": _prompt_style(candidate),
        "output_type": _output_type(candidate.group, by_letters),
        "exam": exam if exam != "kmmlu" else None,
    }
    return Run(
        name=candidate.name,
        kind="lm-eval",
        source=source.argument,
        predictions=predictions,
        scores=scores,
        facts={name: value for name, value in facts.items() if value is not None},
        config=_exam_config(exam, own_exam),
        notes=tuple(notes),
    )


def _prompt_style(candidate: LmEvalCandidate) -> str | None:
    documents = [task.output.document for task in candidate.tasks if task.output.document]
    if not documents:
        return None
    return "chat" if documents[-1].get("chat_template") else "lm-eval"


def _output_type(group: str, by_letters: bool) -> str:
    if by_letters:
        return "multiple_choice"
    return "cot" if "cot" in group.split("_") else "generate_until"


def _exam_of_group(group: str) -> str:
    """The shipped exam whose name's words all stand in the group's: kmmlu_direct_hard is kmmlu-hard."""
    words = set(group.split("_"))
    names = [name for name in shipped_exam_names() if set(name.split("-")) <= words]
    return max(names, key=lambda name: name.count("-"), default="kmmlu")


def _exam_config(exam: str, own_exam: dict[str, Any]) -> dict[str, Any]:
    if exam == "kmmlu":
        return {}
    if own_exam:
        return {"exam": own_exam}
    declared = find_exam(exam)
    return {"exam": {"name": exam, "title": declared.label, "licence": declared.licence}}


def _read_predictions(
    tasks: list[LmEvalTask], candidate: LmEvalCandidate, exam: str, filters: list[str], source: RunSource
) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for task in sorted(tasks, key=lambda task: task.subject.name):
        assert task.samples is not None
        folder = (
            task.subject.name if exam == "kmmlu" else f"{exam}/{task.name.removeprefix(task.group + '_')}"
        )
        by_filter = read_samples(
            task.samples,
            SampleTask(subject=task.subject, id_prefix=f"{folder}/{source.split}", split=source.split),
        )
        name = _choose_filter(list(by_filter), filters, task.name, source)
        read = by_filter.get(name, [])
        _refuse_cut_samples(task, len(read))
        rows += read
    return samples_frame(rows, source.path)


def _choose_filter(names: list[str], wanted: list[str], task: str, source: RunSource) -> str:
    """The filter whose reading of the answers counts; RunError if there are several and none is named."""
    named = [name for name in names if name in wanted]
    if len(named) == 1:
        return named[0]
    if wanted:
        filters = ", ".join(names)
        raise RunError(
            f"{source.argument}: has no model, group, time or filter {', '.join(wanted)} (the filters of"
            f" {task}: {filters}); without a choice everything is read"
        )
    if len(names) > 1:
        raise RunError(
            f"{source.argument}: {task} was read by {len(names)} filters ({', '.join(names)}); name one, as"
            f" {source.path}:{names[0]}"
        )
    return names[0] if names else "none"


def _refuse_cut_samples(task: LmEvalTask, read: int) -> None:
    counts = task.output.document.get("n-samples")
    sizes = counts.get(task.name) if isinstance(counts, dict) else None
    expected = sizes.get("effective") if isinstance(sizes, dict) else None
    if isinstance(expected, int) and read < expected:
        raise DataError(
            f"{task.samples}: holds {read} of the {expected} samples that its results file counts; it was"
            " cut, or is still being written: give lm-eval's whole output"
        )


def _read_scores(
    candidate: LmEvalCandidate, filters: list[str], source: RunSource
) -> list[tuple[str, str, int, int]]:
    rows = []
    for task in candidate.tasks:
        name = _choose_filter(task_filters(task.values), filters, task.name, source)
        rows.append(task_score(task.output.document, task.name, name, task.subject, source.path))
    return rows


def _detect_lm_eval(source: RunSource) -> bool:
    if source.path.is_file() and source.suffix not in (".json", ".jsonl"):
        return False
    return is_lm_eval_path(source.path)


READER = RunReader(program="lm-eval", detect=_detect_lm_eval, read=read_lm_eval_runs)
