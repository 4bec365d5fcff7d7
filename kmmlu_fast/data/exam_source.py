"""One exam's rows at one place: the only module that knows KMMLU has a reader of its own.

In: an ``Exam``, and the place and revision of its rows. Out: frames, ``Question`` records, exemplars,
digests. Verbs make an ``ExamSource`` once and ask it; none of them asks which exam it is. Knows nothing of
prompts or runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.core.files import make_slug
from kmmlu_fast.core.notes import WithNotes
from kmmlu_fast.core.reading import expand_path
from kmmlu_fast.core.schema import Question
from kmmlu_fast.data import dataset as kmmlu
from kmmlu_fast.data.exam import Exam
from kmmlu_fast.data.exam_lookup import dataset_for_exam, find_exams, resolve_exam_source
from kmmlu_fast.data.hub_rows import is_hub_id
from kmmlu_fast.data.subjects import SUBJECTS, find_subjects


@dataclass(frozen=True, slots=True)
class ExamSource:
    """``dataset`` is a hub id, a path or ``sample``; None: where the exam's declaration says."""

    exam: Exam
    dataset: str | None = None
    revision: str | None = None

    @property
    def place(self) -> str:
        """Where the rows are: hub id, directory, file or ``sample``."""
        if self.exam.is_kmmlu:
            return self.dataset or str(self.exam.hub)
        return resolve_exam_source(self.exam, self.dataset)

    @property
    def label(self) -> str:
        """The place if the user named one, else the exam's title."""
        return self.dataset or self.exam.label

    @property
    def slug(self) -> str:
        """The readable part of a run directory's name that says which questions were asked."""
        if not self.exam.is_kmmlu:
            return self.exam.name
        return make_slug(Path(self.dataset or self.exam.name).name.lower())

    @property
    def has_public_results(self) -> bool:
        """Whether other models' public KMMLU results are about these questions; the sample's are invented."""
        return self.exam.is_kmmlu and self.dataset != "sample"

    def read_split(self, split: str, subjects: list[str] | None = None) -> WithNotes[pl.DataFrame]:
        """The rows of a split, of those subjects or groups (default: all). ConfigError for a split or
        subject that does not exist, DataError for rows that cannot be read."""
        if self.exam.is_kmmlu:
            return kmmlu.read_frame(self.place, split, find_subjects(subjects or []), self.revision)
        from kmmlu_fast.data import exam_rows

        table = exam_rows.read_exam_frame(self.exam, split, self.dataset, self.revision)
        return WithNotes(exam_rows.choose_subjects(self.exam, table.value, subjects or []), table.notes)

    def read_questions(self, split: str, subjects: list[str] | None = None) -> WithNotes[list[Question]]:
        """``read_split`` as records, in file order."""
        table = self.read_split(split, subjects)
        return WithNotes(self.make_questions(table.value), table.notes)

    def make_questions(self, frame: pl.DataFrame) -> list[Question]:
        """Records from rows of this source."""
        if self.exam.is_kmmlu:
            return kmmlu.kmmlu_questions_from_frame(frame)
        from kmmlu_fast.data import exam_rows

        return exam_rows.questions_from_frame(frame)

    def load_exemplars(self, subjects: Iterable[str], num_fewshot: int) -> dict[str, list[Question]]:
        """The first ``num_fewshot`` dev questions per subject, in file order. ConfigError if the exam has no
        dev split, DataError if a subject has too few."""
        names = list(subjects)
        if self.exam.is_kmmlu:
            present = [subject for name, subject in SUBJECTS.items() if name in names]
            return kmmlu.load_kmmlu_exemplars(self.place, present, num_fewshot, self.revision)
        from kmmlu_fast.data import exam_rows

        exemplars: dict[str, list[Question]] = {name: [] for name in names}
        if num_fewshot == 0:
            return exemplars
        if "dev" not in self.exam.splits:
            raise ConfigError(
                f"--num-fewshot {num_fewshot}: {self.exam.label} has no dev split to take examples from; use"
                " --num-fewshot 0"
            )
        dev = exam_rows.load_exam(self.exam, "dev", self.dataset, self.revision)
        for question in exam_rows.questions_from_frame(dev):
            if question.subject in exemplars:
                exemplars[question.subject].append(question)
        for name, group in exemplars.items():
            if len(group) < num_fewshot:
                raise DataError(
                    f"{self.exam.label}: {name} has only {len(group)} dev questions, too few for"
                    f" --num-fewshot {num_fewshot}; use at most {len(group)}"
                )
        return {name: group[:num_fewshot] for name, group in exemplars.items()}

    def split_digest(self, split: str, subjects: list[str] | None = None) -> str | None:
        """Digest of the rows that questions are chosen from; None for a split that is not declared. Ten times
        faster than making records."""
        if self.exam.is_kmmlu:
            frame = self.read_split(split, subjects).value
        elif split in self.exam.splits:
            from kmmlu_fast.data import exam_rows

            frame = exam_rows.load_exam(self.exam, split, self.dataset, self.revision)
        else:
            return None
        return kmmlu.frame_digest(frame)

    def input_files(self) -> list[Path]:
        """The files that rows are read from, which must not be overwritten."""
        if self.exam.is_kmmlu:
            return kmmlu.dataset_input_files(self.place)
        file = expand_path(self.place, "--dataset")
        if file.is_file():
            return [file]
        return [] if is_hub_id(self.place) else kmmlu.dataset_input_files(self.place)

    def subject_groups(self, frame: pl.DataFrame, subjects: list[str] | None = None) -> dict[str, str]:
        """Supercategory by subject: KMMLU's table, so that subjects without rows are counted too; else the
        frame's subjects."""
        if self.exam.is_kmmlu:
            return {subject.name: subject.supercategory for subject in find_subjects(subjects or [])}
        return dict(frame.select("subject", "supercategory").unique("subject").sort("subject").iter_rows())

    def resolve_subjects(self, names: list[str], groups: dict[str, str]) -> list[str]:
        """The subjects of ``names``, which may be subjects or supercategories; ``groups``: supercategory by
        subject."""
        if self.exam.is_kmmlu:
            return [subject.name for subject in find_subjects(names)]
        from kmmlu_fast.data import exam_rows

        subjects = pl.DataFrame({"subject": list(groups), "supercategory": list(groups.values())})
        return exam_rows.choose_subjects(self.exam, subjects, names)["subject"].to_list()


def find_exam_sources(exams: list[str], dataset: str, revision: str | None = None) -> list[ExamSource]:
    """One ``ExamSource`` per value of ``--exam``, in order, with its part of ``--dataset``."""
    declared = find_exams(exams)
    return [ExamSource(exam, dataset_for_exam(dataset, exam, declared), revision) for exam in declared]
