"""The questions of each exam in a config, and the exemplars shown before them.

In: an ``EvalConfig``. Out: ``EvalQuestions``: questions in file order, exemplars by subject, notes.
ConfigError or DataError if there are none. Knows nothing of models or prompts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.core.notes import WithNotes
from kmmlu_fast.core.schema import Question
from kmmlu_fast.data import dataset
from kmmlu_fast.data.exam import Exam
from kmmlu_fast.data.exam_lookup import dataset_for_exam, find_exams
from kmmlu_fast.data.exam_rows import choose_subjects, load_exam, questions_from_frame, read_exam_frame
from kmmlu_fast.data.subjects import find_subjects
from kmmlu_fast.evaluation.config import EvalConfig


@dataclass(frozen=True, slots=True)
class EvalQuestions:
    """One exam's questions and exemplars."""

    exam: Exam
    source: str | None  # location of its rows, if not the declared one
    questions: list[Question]
    exemplars: dict[str, list[Question]]  # by subject
    notes: list[str]


def load_eval_questions(config: EvalConfig) -> list[EvalQuestions]:
    """One ``EvalQuestions`` per exam of the config, in order."""
    exams = find_exams(config.exam)
    return [_questions_of_exam(config, exam, dataset_for_exam(config.dataset, exam, exams)) for exam in exams]


def question_source_digests(config: EvalConfig) -> list[str]:
    """Digests of all rows that questions and exemplars are chosen from, ten times faster than making records.

    Faulty rows are not reported again: the evaluation did.
    """
    exams = find_exams(config.exam)
    digests: list[str] = []
    for exam in exams:
        digests += _exam_row_digests(config, exam, dataset_for_exam(config.dataset, exam, exams))
    return digests


def _exam_row_digests(config: EvalConfig, exam: Exam, source: str | None) -> Iterator[str]:
    for split in [config.split, *(["dev"] if config.num_fewshot else [])]:
        if exam.is_kmmlu:
            subjects = find_subjects(config.subjects)
            frame = dataset.load_frame(source or str(exam.hub), split, subjects, config.dataset_revision)
        elif split in exam.splits:
            frame = load_exam(exam, split, source, config.dataset_revision)
        else:
            continue  # the evaluation itself reports the missing split
        yield f"{exam.name} {split} {dataset.frame_digest(frame)}"


def _questions_of_exam(config: EvalConfig, exam: Exam, source: str | None) -> EvalQuestions:
    available = _available_questions(config, exam, source)
    questions = dataset.select_questions(available.value, config.limit, config.limit_mode, config.seed)
    if not questions:
        place = source or exam.label
        subjects = ", ".join(config.subjects) or "any subject"
        raise ConfigError(f"nothing to evaluate: {place} has no {config.split} questions in {subjects}")
    exemplars = _exemplars_by_subject(config, exam, source, questions)
    return EvalQuestions(exam, source, questions, exemplars, list(available.notes))


def _available_questions(config: EvalConfig, exam: Exam, source: str | None) -> WithNotes[list[Question]]:
    if exam.is_kmmlu:
        subjects = find_subjects(config.subjects)
        kmmlu = dataset.read_frame(source or str(exam.hub), config.split, subjects, config.dataset_revision)
        return WithNotes(dataset.kmmlu_questions_from_frame(kmmlu.value), kmmlu.notes)
    table = read_exam_frame(exam, config.split, source, config.dataset_revision)
    return WithNotes(questions_from_frame(choose_subjects(exam, table.value, config.subjects)), table.notes)


def _exemplars_by_subject(
    config: EvalConfig, exam: Exam, source: str | None, questions: list[Question]
) -> dict[str, list[Question]]:
    names = list(dict.fromkeys(question.subject for question in questions))
    if exam.is_kmmlu:
        present = [subject for subject in find_subjects(config.subjects) if subject.name in names]
        return dataset.load_kmmlu_exemplars(
            source or str(exam.hub), present, config.num_fewshot, config.dataset_revision
        )
    if config.num_fewshot == 0:
        return {name: [] for name in names}
    if "dev" not in exam.splits:
        raise ConfigError(
            f"--num-fewshot {config.num_fewshot}: {exam.label} has no dev split to take examples from; use"
            " --num-fewshot 0"
        )
    exemplars: dict[str, list[Question]] = {name: [] for name in names}
    for question in questions_from_frame(load_exam(exam, "dev", source, config.dataset_revision)):
        if question.subject in exemplars:
            exemplars[question.subject].append(question)
    for name, group in exemplars.items():
        if len(group) < config.num_fewshot:
            raise DataError(
                f"{exam.label}: {name} has only {len(group)} dev questions, too few for --num-fewshot"
                f" {config.num_fewshot}; use at most {len(group)}"
            )
    return {name: group[: config.num_fewshot] for name, group in exemplars.items()}
