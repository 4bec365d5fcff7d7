"""KMMLU questions from the hub, from a directory in the hub's layout, or from the packaged sample.

In: a dataset name, a split and subjects. Out: a polars frame (one row per question) or ``Question`` records.
Converts the files' 1-based answers to letters. Knows nothing of prompts.

Layout (HAERAE-HUB/KMMLU): ``data/<stem>-{train,dev,test}.csv`` with columns
``question, answer, A, B, C, D, Category, Human Accuracy``.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.core.files import files_in
from kmmlu_fast.core.notes import WithNotes
from kmmlu_fast.core.reading import expand_path
from kmmlu_fast.core.schema import LETTERS, OPTION_LETTERS, Question
from kmmlu_fast.core.table_files import read_arrow, read_csv, read_parquet
from kmmlu_fast.data.kmmlu_files import TABLE_ENDINGS, find_kmmlu_files, find_whole_files
from kmmlu_fast.data.subjects import SUBJECTS, Subject, find_subject
from kmmlu_fast.machine.hub import describe_hub_failure, hub_problem

SAMPLE_DIR = Path(__file__).parent / "sample"
_TEXT_COLUMNS = ("question", *LETTERS)
_CATEGORY_NAMES = ("Category", "category", "subject", "config_name")
_COLUMNS = (*_TEXT_COLUMNS, "answer")
FRAME_COLUMNS = (
    "question_id",
    "subject",
    "supercategory",
    "split",
    "row",
    *_TEXT_COLUMNS,
    "answer",
    "human_accuracy",
)


def load_frame(
    dataset: str, split: str, subjects: list[Subject] | None = None, revision: str | None = None
) -> pl.DataFrame:
    """``read_frame`` without its notes, which only the train split has."""
    return read_frame(dataset, split, subjects, revision).value


def read_frame(
    dataset: str, split: str, subjects: list[Subject] | None = None, revision: str | None = None
) -> WithNotes[pl.DataFrame]:
    """All rows of a split, columns FRAME_COLUMNS, by subject and in file order.

    DataError, with file and row, for a dataset that cannot be found or read, wrong columns, answers outside
    1-4, empty questions or options, and two files of one subject. Missing *train* files only give a note.
    """
    if subjects is None:
        subjects = list(SUBJECTS.values())
    root = _dataset_folder(dataset, split, revision)
    if not _has_subject_files(root, split) and (paths := find_whole_files(root, split)):
        return _read_whole(dataset, paths, split, subjects)
    files = _require_subject_files(dataset, root, split, subjects)
    frames = [
        _read_subject(str(found[0]), _read_table(found), subject, split) for subject, found in files.value
    ]
    return WithNotes(pl.concat(frames), files.notes)


def split_files(dataset: str, split: str, revision: str | None = None) -> WithNotes[list[Path]]:
    """The files that ``read_frame`` reads, with its notes; DataError if any is missing."""
    root = _dataset_folder(dataset, split, revision)
    if not _has_subject_files(root, split) and (whole := find_whole_files(root, split)):
        return WithNotes(list(whole))
    files = _require_subject_files(dataset, root, split, list(SUBJECTS.values()))
    return WithNotes([path for _, paths in files.value for path in paths], files.notes)


def load_questions(
    dataset: str, split: str, subjects: list[Subject] | None = None, revision: str | None = None
) -> list[Question]:
    """The rows of ``load_frame`` as records."""
    return kmmlu_questions_from_frame(load_frame(dataset, split, subjects, revision))


def kmmlu_questions_from_frame(frame: pl.DataFrame) -> list[Question]:
    """Records from a frame with FRAME_COLUMNS."""
    rows = frame.select(FRAME_COLUMNS).iter_rows()
    return [
        Question(
            question_id=qid,
            subject=subject,
            supercategory=group,
            split=split,
            row=row,
            question=question,
            options=(a, b, c, d),
            answer=answer,
            human_accuracy=human,
        )
        for qid, subject, group, split, row, question, a, b, c, d, answer, human in rows
    ]


def select_questions(questions: list[Question], limit: int | None, mode: str, seed: int) -> list[Question]:
    """At most ``limit`` questions per subject, in file order.

    ``first`` takes each file's first; ``random`` ranks by a hash of seed and question id, so the choice is
    the same on every machine and a larger limit only adds questions.
    """
    if limit is None:
        return questions
    by_subject: dict[str, list[Question]] = {}
    for question in questions:
        by_subject.setdefault(question.subject, []).append(question)
    if mode == "first":
        return [question for group in by_subject.values() for question in group[:limit]]

    chosen: list[Question] = []
    for group in by_subject.values():
        ranked = sorted(group, key=lambda question: seeded_rank(question.question_id, seed))
        chosen += sorted(ranked[:limit], key=lambda question: question.row)
    return chosen


def seeded_rank(question_id: str, seed: int) -> bytes:
    """A question's sort key in the seeded random order: the same on every machine and in every version."""
    return hashlib.blake2b(f"{seed}:{question_id}".encode(), digest_size=8).digest()


def permute_questions(questions: Iterable[Question], seed: int) -> list[Question]:
    """All questions in the seeded random order.

    In any prefix, subjects appear in proportion to their sizes, up to chance. A subset of the questions
    keeps the order it has here.
    """
    return sorted(questions, key=lambda question: seeded_rank(question.question_id, seed))


def load_kmmlu_exemplars(
    dataset: str, subjects: list[Subject], num_fewshot: int, revision: str | None = None
) -> dict[str, list[Question]]:
    """The first ``num_fewshot`` dev questions of each subject, in file order."""
    exemplars: dict[str, list[Question]] = {subject.name: [] for subject in subjects}
    if num_fewshot == 0:
        return exemplars
    for question in load_questions(dataset, "dev", subjects, revision):
        exemplars[question.subject].append(question)
    for name, group in exemplars.items():
        if len(group) < num_fewshot:
            raise DataError(
                f"{dataset}: {name} has {len(group)} dev questions; --num-fewshot {num_fewshot} needs as"
                f" many: use at most {len(group)}"
            )
    return {name: group[:num_fewshot] for name, group in exemplars.items()}


def questions_digest(questions: Iterable[Question]) -> str:
    """sha256 (16 hex digits) over ids, texts and answers: identifies the rows of a run."""
    state = hashlib.sha256()
    for q in questions:
        state.update("\x1f".join((q.question_id, q.question, *q.options, q.answer)).encode() + b"\x1e")
    return state.hexdigest()[:16]


def frame_digest(frame: pl.DataFrame) -> str:
    """``questions_digest`` of a frame's rows in a tenth of the time, without building records."""
    state = hashlib.sha256()
    letters = [letter for letter in OPTION_LETTERS if letter in frame.columns]
    columns = ["question_id", "question", *letters, "answer"]
    texts = frame.select(pl.concat_str(columns, separator="\x1f", ignore_nulls=True) + "\x1e")
    for chunk in texts.iter_slices(50_000):
        state.update("".join(chunk.to_series()).encode())
    return state.hexdigest()[:16]


def shuffle_with_seed(questions: list[Question], seed: int) -> list[Question]:
    """A seeded shuffle that does not touch the global generator."""
    copy = list(questions)
    random.Random(seed).shuffle(copy)
    return copy


def dataset_input_files(dataset: str | None) -> list[Path]:
    """The files of a dataset directory, none of which may be overwritten."""
    if dataset in (None, "none", "sample"):
        return []
    root = expand_path(str(dataset), "--dataset")
    if not root.is_dir():
        return [root] if root.is_file() else []
    return [
        path
        for folder in (root, root / "data")
        for path in files_in(folder, "*.csv", "*.json", "*.jsonl", "*.md", "**/*.parquet", "**/*.arrow")
    ]


def _abbreviate_names(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _subject_of_category(name: str, path: Path, column: str) -> str:
    try:
        return find_subject(name).name
    except ConfigError as error:
        raise DataError(f"{path}: column {column}: {error}") from error


def _has_subject_files(root: Path, split: str) -> bool:
    return root.is_dir() and bool(find_kmmlu_files(root, split, list(SUBJECTS.values())))


def _require_subject_files(
    dataset: str, root: Path, split: str, wanted: list[Subject]
) -> WithNotes[list[tuple[Subject, tuple[Path, ...]]]]:
    present = find_kmmlu_files(root, split, wanted) if root.is_dir() else {}
    if not present and not _has_subject_files(root, split):
        where = f"no *-{split}.csv in {root}, nor {split} files in folders called like subjects"
        if root.is_file():
            where = f"one table of another split than {split}"
        raise DataError(
            f"{dataset}: {where}; give a directory in the HAERAE-HUB/KMMLU layout, the hub id, or 'sample'"
        )
    files = [(subject, present[subject.name]) for subject in wanted if subject.name in present]
    missing = [subject.name for subject in wanted if subject.name not in present]
    wanted_layout = f"expected data/<Subject>-{split}.csv as in the HAERAE-HUB/KMMLU layout"
    problem = f"{dataset}: no {split} file for {_abbreviate_names(missing)}"
    return WithNotes(files, _missing_notes(missing, bool(files), split, problem, wanted_layout))


def _missing_notes(
    missing: list[str], some_present: bool, split: str, problem: str, advice: str
) -> tuple[str, ...]:
    """A note if subjects of the train split are missing; DataError for those of another split."""
    if not missing:
        return ()
    if split != "train" or not some_present:
        raise DataError(f"{problem}; {advice}")
    return (f"{problem}; continuing without",)


def _read_whole(
    dataset: str, paths: tuple[Path, ...], split: str, wanted: list[Subject]
) -> WithNotes[pl.DataFrame]:
    """The wanted subjects of a table that holds them all, each numbered in the table's order."""
    table = _read_table(paths)
    column = next((name for name in _CATEGORY_NAMES if name in table.columns), None)
    if column is None:
        raise DataError(
            f"{paths[0]}: holds all subjects in one table, but no column {_CATEGORY_NAMES[0]} that tells them"
            f" apart (has {', '.join(table.columns)}); add it, or give one file per subject"
        )
    if table[column].null_count():
        row = table[column].is_null().arg_max()
        raise DataError(f"{paths[0]} row {row}: {column} is empty; every question needs its subject")
    spellings: dict[str, list[str]] = {}
    for name in table[column].unique(maintain_order=True):
        spellings.setdefault(_subject_of_category(name, paths[0], column), []).append(name)
    frames = [
        _read_subject(
            f"{paths[0]} ({subject.name})",
            table.filter(pl.col(column).is_in(spellings[subject.name])),
            subject,
            split,
        )
        for subject in wanted
        if subject.name in spellings
    ]
    missing = [subject.name for subject in wanted if subject.name not in spellings]
    problem = f"{dataset}: {paths[0].name} has no questions of {_abbreviate_names(missing)}"
    return WithNotes(
        pl.concat(frames) if frames else pl.DataFrame(),
        _missing_notes(missing, bool(frames), split, problem, "name the others with --subjects"),
    )


def _dataset_folder(dataset: str, split: str, revision: str | None) -> Path:
    if dataset == "sample":
        return SAMPLE_DIR
    path = expand_path(dataset, "--dataset")
    if path.is_dir() or (path.is_file() and path.suffix.lower() in TABLE_ENDINGS):
        return path
    if path.is_file():
        raise DataError(
            f"dataset {dataset!r}: is one file, and no table ({', '.join(sorted(TABLE_ENDINGS))}); give"
            f" KMMLU's directory or table, or an exam of your own by --exam {dataset}"
        )
    if path.exists() or dataset.startswith((".", "/", "~")) or dataset.count("/") != 1:
        raise DataError(
            f"dataset {dataset!r}: no such directory; give a directory in the hub's layout, a hub id such as"
            " HAERAE-HUB/KMMLU, or 'sample'"
        )
    return _download_split(dataset, split, revision)


def _download_split(dataset: str, split: str, revision: str | None) -> Path:
    why = hub_problem()
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            dataset, repo_type="dataset", revision=revision, allow_patterns=[f"data/*-{split}.csv"]
        )
    # The hub client raises a dozen kinds, httpx's among them; all mean the same to a user.
    except Exception as error:
        raise DataError(
            f"dataset {dataset!r}: {describe_hub_failure(why, error)}; check the name and the network, or"
            " give --dataset a directory in the hub's layout, or 'sample'"
        ) from error
    return Path(folder)


def _read_table(paths: tuple[Path, ...]) -> pl.DataFrame:
    """A subject's table, every column a text."""
    tables = []
    for path in paths:
        if path.suffix == ".csv":
            tables.append(read_csv(path, DataError))
            continue
        read = read_parquet if path.suffix == ".parquet" else read_arrow
        frame = read(path, DataError)
        plain = [name for name, dtype in frame.schema.items() if not dtype.is_nested()]
        tables.append(frame.select(pl.col(plain).cast(pl.String)))
    if any(table.columns != tables[0].columns for table in tables):
        raise DataError(
            f"{paths[-1]}: has other columns than {paths[0].name}; give one version of the data set"
        )
    return pl.concat(tables)


def _read_subject(path: str, raw: pl.DataFrame, subject: Subject, split: str) -> pl.DataFrame:
    if raw.is_empty():
        raise DataError(f"{path}: has column names but no questions; give the complete file, or remove it")
    raw = raw.with_columns(pl.col(name).fill_null("") for name in raw.columns)
    absent = [name for name in _COLUMNS if name not in raw.columns]
    if absent:
        raise DataError(
            f"{path}: lacks column {', '.join(absent)}; expected question, answer, A, B, C, D (has"
            f" {', '.join(raw.columns)})"
        )
    human = pl.col("Human Accuracy") if "Human Accuracy" in raw.columns else pl.lit(None, dtype=pl.String)
    frame = raw.with_row_index("row").select(
        pl.format("{}/{}/{}", pl.lit(subject.name), pl.lit(split), "row").alias("question_id"),
        pl.lit(subject.name).alias("subject"),
        pl.lit(subject.supercategory).alias("supercategory"),
        pl.lit(split).alias("split"),
        pl.col("row").cast(pl.Int32),
        *_TEXT_COLUMNS,
        pl.col("answer")
        .str.strip_chars()
        .str.replace(r"\.0+$", "")  # as pandas writes whole numbers
        .replace_strict(["1", "2", "3", "4"], LETTERS, default=None, return_dtype=pl.String),
        human.cast(pl.Float64, strict=False).fill_nan(None).alias("human_accuracy"),
    )
    _refuse_bad_rows(path, raw, frame)
    return frame


def _refuse_bad_rows(path: str, raw: pl.DataFrame, frame: pl.DataFrame) -> None:
    bad = frame.filter(pl.col("answer").is_null())
    if len(bad):
        row = bad["row"][0]
        raise DataError(
            f"{path} row {row}: answer {raw['answer'][row]!r} is not allowed; it must be 1, 2, 3 or 4 (1 = A)"
        )
    human = frame.filter(~pl.col("human_accuracy").is_between(0, 1))
    if len(human):
        raise DataError(
            f"{path} row {human['row'][0]}: Human Accuracy {human['human_accuracy'][0]} is not a share from"
            " 0 to 1"
        )
    for name in _TEXT_COLUMNS:
        empty = frame.filter(pl.col(name).str.strip_chars() == "")
        if len(empty):
            raise DataError(
                f"{path} row {empty['row'][0]}: {name} is empty; every question needs a text and four options"
            )
