"""``python -m kmmlu_fast.exams``: list the exams, or check a declaration of your own.

In: flags. Out: a table of exams (licence, size, options, cached); with ``--check FILE``, a summary of its
first ten rows, one of them as it will be asked, and every fault. Exit codes: 0 fine, 1 the check found
faults, 2 an error.
"""

from __future__ import annotations

import sys
from itertools import islice

from pydantic import Field, PositiveInt

from kmmlu_fast.command.flags import Config, parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.console import terminal_width, wrap_line
from kmmlu_fast.core.errors import ConfigError, DataError

_WIDE = 116  # columns that the table with its sources takes


class ExamsConfig(Config):
    """python -m kmmlu_fast.exams: list the exams, or check a declaration or a table of your own (--check)."""

    check: str | None = Field(
        None,
        description="an exam's name, FILE.yaml, or your own table: show one row and report every fault",
    )
    dataset: str | None = Field(
        None,
        description="with --check: location of its rows (file, directory, hub id), if not the declared one",
    )
    split: str = Field("test", description="with --check: split to read")
    rows: PositiveInt = Field(10, description="with --check: rows to read")
    eval_yaml: str | None = Field(
        None,
        description=(
            "an exam's name or FILE.yaml: print the eval.yaml that makes its data set a benchmark on the hub"
        ),
    )


def run_exams_command(argv: list[str] | None = None) -> int:
    return run_main(lambda: _run_exams(argv))


def _run_exams(argv: list[str] | None) -> int:
    config = parse_config(ExamsConfig, argv, "python -m kmmlu_fast.exams")
    if config.eval_yaml is not None:
        print_eval_yaml(config)
        return 0
    if config.check is not None:
        return check_exam(config)
    print_exam_list()
    return 0


def print_eval_yaml(config: ExamsConfig) -> None:
    """Print the file's text to stdout, and what the data set needs first to stderr."""
    if config.check is not None:
        raise ConfigError("--eval-yaml and --check are two commands: give one of them")
    from kmmlu_fast.data.exam_lookup import find_exam
    from kmmlu_fast.shipping.eval_yaml import make_eval_yaml

    sys.stdout.write(make_eval_yaml(find_exam(str(config.eval_yaml))).log_and_unwrap())


def print_exam_list() -> None:
    """Print a table with one line per shipped exam; where they are from, if there is room for it."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from kmmlu_fast.data.exam_lookup import find_exam, is_exam_cached, shipped_exam_names

    width = terminal_width(120)
    with_source = width >= _WIDE
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    headings = ["name", "options", "questions", "licence", "training", "here"]
    if with_source:
        headings.append("source")
    for heading in headings:
        right = heading == "questions"
        table.add_column(heading, justify="right" if right else "left", no_wrap=heading != "licence")
    for name in shipped_exam_names():
        exam = find_exam(name)
        rows = f"{exam.rows:,}" if exam.rows else "?"
        here = ", ".join(
            word for word, holds in (("gated", exam.gated), ("cached", is_exam_cached(exam))) if holds
        )
        cells = (name, exam.options_count, rows, exam.licence, exam.training, here)
        table.add_row(*cells, *([exam.hub or ""] if with_source else []))
    console = Console(highlight=False, width=width)
    console.print(table)
    lines = [
        "Evaluate one with --exam NAME. Licences are as stated on the exams' pages; read them there.",
        "To add an exam, write a FILE.yaml of at most 15 lines, or a table with question, options (a list) or"
        " A, B, ..., and answer; check it with --check FILE.",
    ]
    if not with_source:
        lines.append(f"A terminal of {_WIDE} columns also shows where they are from.")
    print("\n" + "\n".join(wrap_line(line, min(width, 110)) for line in lines))


def check_exam(config: ExamsConfig) -> int:
    """Read the first rows; print a summary, one row as it is asked, and every fault."""
    from kmmlu_fast.data.exam_lookup import find_exam, resolve_exam_source
    from kmmlu_fast.data.exam_rows import (
        describe_oddities,
        frame_from_questions,
        questions_from_frame,
        read_questions,
    )
    from kmmlu_fast.prompting.prompt_styles import find_prompt_style
    from kmmlu_fast.prompting.prompts import format_question

    exam = find_exam(str(config.check))
    source = resolve_exam_source(exam, config.dataset)
    print(f"{exam.label}: {source}; licence {exam.licence}; training {exam.training}")
    questions, faults = [], []
    try:
        for question, fault in islice(
            read_questions(exam, config.split, config.dataset, rows=config.rows), 100 * config.rows
        ):
            if fault is not None:
                faults.append(fault)
            elif question is not None:
                questions.append(question)
    except DataError as error:
        faults.append(str(error))
    if questions:
        asked = questions_from_frame(frame_from_questions(questions))
        counts = sorted({len(question.options) for question in asked})
        subjects = sorted({question.subject for question in asked})
        span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"
        print(f"{len(asked)} rows read: {span} options, subjects {', '.join(subjects[:8])}")
        first = asked[0]
        text = format_question(first, find_prompt_style("lm-eval"))
        print(f"\n{first.question_id}, as it is asked:\n\n{text} {first.answer}\n")
    for note in describe_oddities(questions):
        print(f"note: {note}")
    for fault in faults:
        print(f"fault: {fault}")
    print("no faults" if not faults else f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(run_exams_command())
