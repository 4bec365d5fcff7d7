"""Reads lm-evaluation-harness's outputs: all of its KMMLU tasks, one run per model, task group and shots.

In: a directory, a results file or a file of samples; perhaps a choice (model, group, "5-shot", filter, time).
Out: ``Run`` records, the oldest first; log-probabilities are natural, A first. Of one thing measured more
than once the latest counts, by the time in the names. Knows nothing of how questions are asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.core.errors import DataError, RunError
from kmmlu_fast.data.exam_lookup import find_exam, shipped_exam_names
from kmmlu_fast.data.subjects import SUBJECTS, Subject
from kmmlu_fast.runs.readers.lm_eval_files import LmEvalOutput, find_lm_eval_outputs, is_lm_eval_path
from kmmlu_fast.runs.readers.lm_eval_samples import OWN_FIELDS, SampleTask, read_samples, samples_frame
from kmmlu_fast.runs.readers.lm_eval_scores import task_filters, task_score
from kmmlu_fast.runs.readers.source import RunReader, RunSource
from kmmlu_fast.runs.run import SCORE_SCHEMA, Run, count_subject_scores

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
class _Task:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """The tasks of one run: one model, group, number of shots and way of asking."""

    model: str
    group: str
    shots: int | None
    stamp: str  # of its latest output
    tasks: tuple[_Task, ...]
    name: str = ""
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> dict[str, str]:
        """What it can be chosen by."""
        return {
            "model": self.model,
            "group": self.group,
            "shots": "" if self.shots is None else f"{self.shots}-shot",
            "stamp": self.stamp,
        }

    def is_called(self, word: str) -> bool:
        short = self.model.rsplit("/", 1)[-1]
        return word in (self.name, short, *self.labels.values())


def read_lm_eval_runs(source: RunSource) -> list[Run]:
    """Every run that the files hold, or those that the choice names."""
    outputs = find_lm_eval_outputs(source.path)
    candidates = _name_candidates(_find_candidates(outputs, source))
    if not candidates:
        raise DataError(_no_task_message(outputs, source))
    chosen, filters = _choose(candidates, source)
    return [_build_run(candidate, filters, source) for candidate in chosen]


def _find_candidates(outputs: list[LmEvalOutput], source: RunSource) -> list[_Candidate]:
    grouped: dict[tuple[Any, ...], list[_Task]] = {}
    for output in outputs:
        for name in dict.fromkeys([*output.samples, *output.document.get("results", {})]):
            split = _own_task(output, name) or split_task_name(name)
            if split is None:
                continue
            task = _Task(output=output, name=name, group=split[0], subject=split[1])
            if not task.samples and not task_filters(task.values):
                continue  # a group's heading, or a task of another kind
            if not _is_kmmlu_group(task, source):
                continue
            key = (_model_name(output, source), task.group, task.shots, _settings_key(output, name))
            grouped.setdefault(key, []).append(task)
    candidates = []
    for (model, group, shots, _), tasks in grouped.items():
        for kept, notes in _latest_tasks(tasks, f"{model} {group}", source):
            stamp = max(task.output.stamp for task in kept)
            candidates.append(
                _Candidate(model=model, group=group, shots=shots, stamp=stamp, tasks=tuple(kept), notes=notes)
            )
    return sorted(candidates, key=lambda candidate: (candidate.stamp, candidate.model, candidate.group))


def _own_task(output: LmEvalOutput, name: str) -> tuple[str, Subject] | None:
    """Group and subject of a task as our own export names them; None for lm-eval's files."""
    own = output.document.get(OWN_FIELDS)
    tasks = own.get("tasks") if isinstance(own, dict) else None
    entry = tasks.get(name) if isinstance(tasks, dict) else None
    if not isinstance(entry, dict):
        return None
    subject, group = str(entry.get("subject")), str(entry.get("supercategory"))
    return str(entry.get("group")), SUBJECTS.get(subject) or Subject(subject, group, subject)


def _is_kmmlu_group(task: _Task, source: RunSource) -> bool:
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


def _model_name(output: LmEvalOutput, source: RunSource) -> str:
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


def _settings_key(output: LmEvalOutput, task: str) -> str:
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


def _latest_tasks(
    tasks: list[_Task], label: str, source: RunSource
) -> list[tuple[list[_Task], tuple[str, ...]]]:
    """One measured more than once counts as it was measured last. Outputs over different subjects belong
    together; those that share some of their subjects are ambiguous unless one is chosen.
    """
    by_time: dict[tuple[str, Path], list[_Task]] = {}
    for task in tasks:
        by_time.setdefault((task.output.stamp, task.output.folder), []).append(task)
    times = sorted(by_time, key=lambda place: (place[0], str(place[1])), reverse=True)
    words = (source.choice or "").split(",")
    named = [place for place in times if place[0] and place[0] in words]
    if named:
        times = named
    kept = list(by_time[times[0]])
    replaced, joined = [], [times[0][0]]
    for place in times[1:]:
        known = {task.subject.name for task in kept}
        own = {task.subject.name for task in by_time[place]}
        if place[0] != times[0][0] and own <= known:
            replaced.append(place[0])
        elif not own & known:
            kept += by_time[place]
            joined.append(place[0])
        else:
            choices = " or ".join(f"{source.path}:{stamp}" for stamp, _ in times[:5] if stamp)
            raise RunError(
                f"{source.argument}: holds {len(times)} outputs of {label} that share some of their subjects,"
                f" but not all ({', '.join(f'{p[0]} in {p[1]}' for p in times[:5])}); name one"
                f"{f', as {choices}' if choices else ': give its results file'}"
            )
    notes = []
    if replaced:
        notes.append(
            f"{source.argument}: {label} was measured {len(replaced) + 1} times; the latest is taken"
            f" ({joined[0]}), not {', '.join(replaced)}"
        )
    if len(joined) > 1:
        notes.append(
            f"{source.argument}: {label} is put together from {len(joined)} outputs over different subjects"
            f" ({', '.join(reversed(joined))})"
        )
    return [(kept, tuple(notes))]


def _name_candidates(candidates: list[_Candidate]) -> list[_Candidate]:
    """Each called by its model, and by whatever sets it apart from others of the same model."""
    named = []
    for candidate in candidates:
        same = [other for other in candidates if other.model == candidate.model]
        words = [candidate.model]
        for label in ("group", "shots", "stamp"):
            varies = len({other.labels[label] for other in same}) > 1
            apart = len({tuple(other.labels[name] for name in ("group", "shots")) for other in same})
            if varies and (label != "stamp" or apart < len(same)):
                words.append(candidate.labels[label])
        named.append(replace(candidate, name=" ".join(word for word in words if word)))
    return named


def _choose(candidates: list[_Candidate], source: RunSource) -> tuple[list[_Candidate], list[str]]:
    """The candidates that the choice names, and words of it that must be filters."""
    if not source.choice:
        return candidates, []
    whole = [candidate for candidate in candidates if candidate.is_called(source.choice)]
    if whole:
        return whole, []
    filters, chosen = [], candidates
    for word in source.choice.split(","):
        called = [candidate for candidate in chosen if candidate.is_called(word.strip())]
        if called:
            chosen = called
        elif any(candidate.is_called(word.strip()) for candidate in candidates):
            raise RunError(f"{source.argument}: no run has all of {source.choice}; {_listing(candidates)}")
        else:
            filters.append(word.strip())
    return chosen, filters


def _listing(candidates: Iterable[_Candidate]) -> str:
    names = [f"{candidate.name} ({len(candidate.tasks)} subjects)" for candidate in candidates]
    return f"it holds {', '.join(names[:10])}"


def _no_task_message(outputs: list[LmEvalOutput], source: RunSource) -> str:
    names = [name for output in outputs for name in [*output.samples, *output.document.get("results", {})]]
    shown = ", ".join(dict.fromkeys(names)) or "none"
    return (
        f"{source.argument}: has no kmmlu_<subject> task (its tasks: {shown[:200]}); give an lm-eval output"
        " of one of the kmmlu groups, or name the group of a copy of it, as PATH:GROUP"
    )


def _build_run(candidate: _Candidate, filters: list[str], source: RunSource) -> Run:
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


def _prompt_style(candidate: _Candidate) -> str | None:
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
    tasks: list[_Task], candidate: _Candidate, exam: str, filters: list[str], source: RunSource
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


def _refuse_cut_samples(task: _Task, read: int) -> None:
    counts = task.output.document.get("n-samples")
    sizes = counts.get(task.name) if isinstance(counts, dict) else None
    expected = sizes.get("effective") if isinstance(sizes, dict) else None
    if isinstance(expected, int) and read < expected:
        raise DataError(
            f"{task.samples}: holds {read} of the {expected} samples that its results file counts; it was"
            " cut, or is still being written: give lm-eval's whole output"
        )


def _read_scores(
    candidate: _Candidate, filters: list[str], source: RunSource
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
