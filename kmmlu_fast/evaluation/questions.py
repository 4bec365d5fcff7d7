"""The questions of one exam, and the examples shown before them, as a config asks for them.

In: an ``EvalConfig`` and one of its exams. Out: ``Material``: questions in file order, exemplars by subject,
notes. ConfigError or DataError where there are none. Knows nothing of models or prompts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.core.notes import Noted
from kmmlu_fast.core.schema import Question
from kmmlu_fast.data import dataset
from kmmlu_fast.data.exam import Exam
from kmmlu_fast.data.exam_lookup import dataset_for, find_exams
from kmmlu_fast.data.exam_rows import choose_subjects, load_exam, read_exam_frame, to_questions
from kmmlu_fast.data.subjects import find_subjects
from kmmlu_fast.evaluation.config import EvalConfig


@dataclass(frozen=True, slots=True)
class Material:
    """What is asked of one exam."""

    exam: Exam
    source: str | None  # where its rows are, if not where its declaration says
    questions: list[Question]
    exemplars: dict[str, list[Question]]  # by subject
    notes: list[str]


def read_material(config: EvalConfig) -> list[Material]:
    """One ``Material`` for each of the config's exams, in their order."""
    exams = find_exams(config.exam)
    return [_of_exam(config, exam, dataset_for(config.dataset, exam, exams)) for exam in exams]


def source_digests(config: EvalConfig) -> list[str]:
    """Digests of all rows that the exams' questions and examples are chosen from, without
    making records of them: a tenth of the time.
    """
    exams = find_exams(config.exam)  # faulty rows were reported by the evaluation
    found = ((exam, dataset_for(config.dataset, exam, exams)) for exam in exams)
    return [digest for exam, source in found for digest in _digests(config, exam, source)]


def _digests(config: EvalConfig, exam: Exam, source: str | None) -> Iterator[str]:
    for split in [config.split, *(["dev"] if config.num_fewshot else [])]:
        if exam.is_kmmlu:
            frame = dataset.load_frame(
                source or str(exam.hub), split, find_subjects(config.subjects), config.dataset_revision
            )
        elif split in exam.splits:
            frame = load_exam(exam, split, source, config.dataset_revision)
        else:
            continue  # the ordinary way says that there is none
        yield f"{exam.name} {split} {dataset.frame_digest(frame)}"


def _of_exam(config: EvalConfig, exam: Exam, source: str | None) -> Material:
    available = _available(config, exam, source)
    questions = dataset.select(available.value, config.limit, config.limit_mode, config.seed)
    if not questions:
        where = source or exam.label
        subjects = ", ".join(config.subjects) or "any subject"
        raise ConfigError(f"nothing to evaluate: {where} has no {config.split} questions in {subjects}")
    return Material(
        exam, source, questions, _exemplars(config, exam, source, questions), list(available.notes)
    )


def _available(config: EvalConfig, exam: Exam, source: str | None) -> Noted[list[Question]]:
    if exam.is_kmmlu:
        subjects = find_subjects(config.subjects)
        kmmlu = dataset.read_frame(source or str(exam.hub), config.split, subjects, config.dataset_revision)
        return Noted(dataset.to_questions(kmmlu.value), kmmlu.notes)
    found = read_exam_frame(exam, config.split, source, config.dataset_revision)
    return Noted(to_questions(choose_subjects(exam, found.value, config.subjects)), found.notes)


def _exemplars(
    config: EvalConfig, exam: Exam, source: str | None, questions: list[Question]
) -> dict[str, list[Question]]:
    names = list(dict.fromkeys(question.subject for question in questions))
    if exam.is_kmmlu:
        present = [subject for subject in find_subjects(config.subjects) if subject.name in names]
        return dataset.exemplars(
            source or str(exam.hub), present, config.num_fewshot, config.dataset_revision
        )
    if config.num_fewshot == 0:
        return {name: [] for name in names}
    if "dev" not in exam.splits:
        raise ConfigError(
            f"--num-fewshot {config.num_fewshot}: {exam.label} has no dev split to take examples from; use"
            " --num-fewshot 0"
        )
    found: dict[str, list[Question]] = {name: [] for name in names}
    for question in to_questions(load_exam(exam, "dev", source, config.dataset_revision)):
        if question.subject in found:
            found[question.subject].append(question)
    for name, group in found.items():
        if len(group) < config.num_fewshot:
            raise DataError(
                f"{exam.label}: {name} has {len(group)} dev questions; --num-fewshot {config.num_fewshot} "
                "needs as many: "
                f"use at most {len(group)}"
            )
    return {name: group[: config.num_fewshot] for name, group in found.items()}
