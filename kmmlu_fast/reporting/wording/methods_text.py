"""How runs were made and compared, as the methods paragraph of a paper.

In: ``ReportData``, a translator with the part "methods". Out: sentences. What is not recorded is said to be
unknown, never guessed.
"""

from __future__ import annotations

from kmmlu_fast.core.version import __version__
from kmmlu_fast.reporting.report_data import ReportData
from kmmlu_fast.reporting.wording.language import Translator, format_percent
from kmmlu_fast.runs.run import Run

_METHODS = {"multiple_choice": "by_letters", "generate_until": "by_text", "cot": "by_reasoning"}


def methods_sentences(report: ReportData, t: Translator) -> list[str]:
    """Questions, protocol, intervals, comparison and versions, in this order."""
    return [
        _questions_sentence(report.base, t),
        *_protocol_sentences(report, t),
        t("scores_stated"),
        *_comparison_sentences(report, t),
        *_version_sentences(report.base, t),
    ]


def _questions_sentence(base: Run, t: Translator) -> str:
    facts = base.config.get("config") or {}
    values = {"n": f"{base.total:,}", "exam": base.exam_title, "split": _split_of(base)}
    if facts.get("limit"):
        return t("questions_sampled", **values, limit=f"{facts['limit']:,}")
    return t("questions_asked", **values)


def _split_of(base: Run) -> str:
    if base.predictions is not None and len(base.predictions):
        return str(base.predictions["split"][0])
    return str(base.facts.get("split") or "test")


def _protocol_sentences(report: ReportData, t: Translator) -> list[str]:
    """How each run was asked; one sentence if all were asked alike."""
    ways: dict[str, list[str]] = {}
    for run in report.runs:
        ways.setdefault(_protocol_sentence(run, t), []).append(run.name)
    if len(ways) == 1:
        return list(ways)
    return [f"{', '.join(names)}: {way}" for way, names in ways.items()]


def _protocol_sentence(run: Run, t: Translator) -> str:
    method, style, shots = (run.facts.get(name) for name in ("output_type", "prompt_style", "num_fewshot"))
    if method not in _METHODS or style is None or shots is None:
        return t("protocol_not_recorded")
    tokens = (run.facts.get("decoding") or {}).get("max_tokens")
    values = {
        "shots": t("zero_shot") if shots == 0 else t("few_shot", count=shots),
        "style": style,
        "limit": t("token_limit", tokens=tokens) if tokens else "",
    }
    return t(_METHODS[method], **values)


def _comparison_sentences(report: ReportData, t: Translator) -> list[str]:
    if not report.pairs:
        return []
    pair = report.pairs[0]
    sentences = [t("compared_by", margin=format_percent(pair.margin, 1))]
    if pair.tried > 1:
        sentences.append(t("compared_many", count=pair.tried))
    if pair.overlapping:
        sentences.append(t("overlap_stated", count=f"{pair.overlapping:,}"))
    return sentences


def _version_sentences(base: Run, t: Translator) -> list[str]:
    versions = base.facts.get("versions") or {}
    engines = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    if not engines:
        return [t("analysed_with", version=__version__)]
    precision = base.environment.get("dtype") or base.facts.get("dtype")
    shown = "" if precision in (None, "auto") else f", {precision}"
    return [t("evaluated_with", version=__version__, engines=engines + shown)]
