"""The questions of each exam in a config, and the exemplars shown before them.

In: an ``EvalConfig``. Out: ``EvalQuestions``: questions in file order, exemplars by subject, notes.
ConfigError or DataError if there are none. Knows nothing of models or prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Question
from kmmlu_fast.data import dataset
from kmmlu_fast.data.exam_source import ExamSource, find_exam_sources
from kmmlu_fast.evaluation.config import EvalConfig


@dataclass(frozen=True, slots=True)
class EvalQuestions:
    """One exam's questions and exemplars."""

    source: ExamSource
    questions: list[Question]
    exemplars: dict[str, list[Question]]  # by subject
    notes: list[str]


def load_eval_questions(config: EvalConfig) -> list[EvalQuestions]:
    """One ``EvalQuestions`` per exam of the config, in order."""
    return [_questions_of_exam(config, source) for source in _config_sources(config)]


def question_source_digests(config: EvalConfig) -> list[str]:
    """Digests of all rows that questions and exemplars are chosen from.

    Faulty rows are not reported again: the evaluation did.
    """
    splits = [config.split, *(["dev"] if config.num_fewshot else [])]
    digests: list[str] = []
    for source in _config_sources(config):
        for split in splits:
            digest = source.split_digest(split, config.subjects)
            if digest is not None:  # the evaluation itself reports a missing split
                digests.append(f"{source.exam.name} {split} {digest}")
    return digests


def _config_sources(config: EvalConfig) -> list[ExamSource]:
    return find_exam_sources(config.exam, config.dataset, config.dataset_revision)


def _questions_of_exam(config: EvalConfig, source: ExamSource) -> EvalQuestions:
    available = source.read_questions(config.split, config.subjects)
    questions = dataset.select_questions(available.value, config.limit, config.limit_mode, config.seed)
    if not questions:
        subjects = ", ".join(config.subjects) or "any subject"
        raise ConfigError(
            f"nothing to evaluate: {source.label} has no {config.split} questions in {subjects}"
        )
    names = dict.fromkeys(question.subject for question in questions)
    exemplars = source.load_exemplars(names, config.num_fewshot)
    return EvalQuestions(source, questions, exemplars, list(available.notes))
