"""The table that eval leaves on the terminal.

In: finished runs. Out: Rich tables on stdout. Knows nothing of how the numbers came about.
"""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from kmmlu_fast.reasoning import comparison_lines
from kmmlu_fast.schema import LETTERS
from kmmlu_fast.store import Run
from kmmlu_fast.subjects import SUBJECTS, SUPERCATEGORIES, SUPERCATEGORY_KO

_WIDTH = 120  # of a file or a pipe

_KO = {
    "model state": "모델 상태", "micro": "micro(문항 평균)", "95 % interval": "95 % 신뢰구간", "macro": "macro(과목 평균)",
    "unparsed": "미판독", "letter": "글자", "key": "정답 비율", "predicted": "예측 비율", "recall": "재현율",
    "weakest subjects": "취약 과목", "always": "항상 한 글자",
}  # fmt: skip


def print_summary(runs: list[Run], lang: str = "en") -> None:
    """Headline, letters and weakest subjects of each run; names the run directories last."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)

    def t(text: str) -> str:
        return _KO.get(text, text) if lang == "ko" else text

    console.print(_headline(runs, t, lang))
    console.print(_letters(runs, t))
    for run in runs:
        _print_notes(console, run, t, lang)
    for run in runs:
        print(f"run directory: {run.path}")


def _state(run: Run) -> str:
    adapter = run.config.get("adapter")
    return str(adapter["name"]) if adapter else "base"


def _headline(runs: list[Run], t: Any, lang: str) -> Table:
    table = Table(
        box=SIMPLE, title=f"KMMLU, {runs[0].metrics['num_questions']:,} questions of {len(runs[0].metrics['subjects'])} subjects, accuracy"
    )
    table.add_column(t("model state"))
    for name in ("micro", "95 % interval", "macro"):
        table.add_column(t(name), justify="right")
    groups = [name for name in SUPERCATEGORIES if name in runs[0].metrics["supercategories"]]
    for name in groups:
        table.add_column(SUPERCATEGORY_KO[name] if lang == "ko" else name, justify="right")
    table.add_column(t("unparsed"), justify="right")
    for run in runs:
        found = run.metrics
        micro = found["micro"]
        table.add_row(
            _state(run), f"{micro['accuracy']:.4f}", f"{micro['ci_low']:.4f}–{micro['ci_high']:.4f}", f"{found['macro']['accuracy']:.4f}",
            *(f"{found['supercategories'][name]['accuracy']:.4f}" for name in groups), f"{found['unparsed']:,}",
        )  # fmt: skip
    baselines = runs[0].metrics["baselines"]
    best = baselines["best_constant"]
    table.add_section()
    table.add_row(f"{t('always')} {best['letter']}", f"{best['accuracy']:.4f}", *[""] * (len(table.columns) - 2))
    table.add_row("majority letter a subject", f"{baselines['subject_majority']:.4f}", *[""] * (len(table.columns) - 2))
    return table


def _letters(runs: list[Run], t: Any) -> Table:
    table = Table(box=SIMPLE, title=f"{t('letter')}s: a model that favours one fools its accuracy")
    table.add_column("")
    for letter in LETTERS:
        table.add_column(letter, justify="right")
    table.add_row(t("key"), *(f"{runs[0].metrics['answer_letter_share'][letter]:.3f}" for letter in LETTERS))
    for run in runs:
        table.add_row(f"{_state(run)}: {t('predicted')}", *(f"{run.metrics['predicted_letter_share'][letter]:.3f}" for letter in LETTERS))
        recall = run.metrics["recall"]
        table.add_row(f"{_state(run)}: {t('recall')}", *("–" if recall[letter] is None else f"{recall[letter]:.3f}" for letter in LETTERS))
    return table


def _print_notes(console: Console, run: Run, t: Any, lang: str) -> None:
    found = run.metrics
    weakest = sorted(found["subjects"].items(), key=lambda item: item[1]["accuracy"])[:5]
    names = ", ".join(f"{SUBJECTS[name].korean if lang == 'ko' else name} {score['accuracy']:.2f}" for name, score in weakest)
    lines = [f"{_state(run)}: {t('weakest subjects')}: {names}"]
    if found.get("accuracy_debiased") is not None:
        lines.append(f"{_state(run)}: micro {found['micro']['accuracy']:.4f} raw, {found['accuracy_debiased']:.4f} debiased over rotations")
    if found.get("forced"):
        lines.append(f"{_state(run)}: {found['forced']:,} answers forced; accuracy without them {found['accuracy_without_forced']:.4f}")
    speed, engine = found["speed"], found["engine"]
    lines.append(
        f"{_state(run)}: {speed['questions']:,} questions in {speed['seconds']:.1f} s ({speed['questions_per_sec']} questions/s, "
        f"{speed['prompt_tokens_per_sec']:,.0f} prompt tokens/s); engine start {engine.get('start_sec', 0)} s; "
        f"prefix cache hit rate {engine.get('prefix_cache_hit_rate', 0):.1%}"
    )
    lines += [f"{_state(run)}: {line}" for line in comparison_lines(found.get("reasoning") or {})]
    if found.get("adapter_shift"):
        lines.append(f"{_state(run)}: adapter applied, largest shift {found['adapter_shift']['largest_nats']:.4f} nats")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
