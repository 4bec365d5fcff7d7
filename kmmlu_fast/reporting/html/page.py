"""One self-contained report.html.

In: ``ReportData``. Out: an HTML file that opens from disk and makes no network request. Everything from data
or a model is escaped by the template, or packed and set as text in the page; a content security policy backs
up both. Knows nothing of models.
"""

from __future__ import annotations

import base64
import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from kmmlu_fast.machine.extras import require_docstrings
from kmmlu_fast.reporting.charts.answer_figures import runs_in_focus
from kmmlu_fast.reporting.charts.svg_process import open_svg_queue
from kmmlu_fast.reporting.html.page_charts import start_page_charts
from kmmlu_fast.reporting.html.page_context import report_context
from kmmlu_fast.reporting.html.page_data import pack_answers, pack_page_data
from kmmlu_fast.reporting.report_data import ReportData
from kmmlu_fast.reporting.wording.error_text import count_errors
from kmmlu_fast.reporting.wording.language import LANGUAGES, get_translator
from kmmlu_fast.runs.run import refuse_early_stopped_runs

ASSETS = Path(__file__).parent / "assets"
MAX_BYTES = 10_000_000
# Spaces at which no line ends: in "95 %", "p < 0.001", "* significant".
_JOINED = re.compile(r"(?<=\d) (?=(?:%p|%|pp)(?![\w%]))|(?<=\bp) (?=[<=])|(?<=p <) (?=\d)|(?<=\*) (?=\w)")
SCRIPTS = ("view.js", "pairs.js", "report.js")
_DATA = "<!-- data -->"  # where the packed data go; the template escapes such a text from anywhere else


def render_report(report: ReportData, lang: str, *, plan: Path | None = None, with_texts: bool = True) -> str:
    """The report's HTML, in ``lang`` first. ``plan``: a sampling plan to chart. Without ``with_texts``, it
    contains no text of questions or models.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    css, script = _read_asset("report.css"), "".join(_read_asset(name) for name in SCRIPTS)
    other = next(name for name in LANGUAGES if name != lang)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    translators = [get_translator(name, "report") for name in (lang, other)]
    with open_svg_queue() as queue, ThreadPoolExecutor(1) as beside:
        counting = beside.submit(count_errors, report, runs_in_focus(report))
        answers = None
        if report.answered:
            answers = beside.submit(pack_answers, report, translators[0], with_texts=with_texts)
        charts = [start_page_charts(report, plan, t, queue) for t in translators]
        environment = Environment(
            loader=FileSystemLoader(ASSETS),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_join_units,
        )
        page = environment.get_template("report.html.j2")
        errors = counting.result()
        both = [report_context(report, errors, t, with_texts=with_texts) for t in translators]
        first, second = both
        first |= {"css": Markup(css), "script": Markup(script), "script_hash": Markup(f"'sha256-{digest}'")}

        def whole() -> str:
            """The page, the packed data still to be put in."""
            for context, drawn in zip(both, charts, strict=True):
                context["charts"] = [chart.result() for chart in drawn]
            data = None if answers is None else Markup(_DATA)
            inner = page.render({**second, "inner": True, "other_lang": lang})
            outer = {**first, "inner": False, "other_lang": other}
            return page.render({**outer, "other_page": Markup(inner), "data": data})

        if answers is None:
            return whole()
        drawn_page = cache(whole)
        packed, left_out = pack_page_data(
            report,
            translators[0],
            answers,
            lambda: MAX_BYTES - len(drawn_page().encode()) - 100_000,
            with_texts=with_texts,
        )
        if left_out:
            for part in both:
                part["method"].append(part["t"]("method_texts", count=f"{left_out:,}"))
            drawn_page.cache_clear()
        return drawn_page().replace(_DATA, packed)


def _join_units(value: Any) -> Any:
    """A text in which no line ends between a number and its unit."""
    if type(value) is not str:  # markup is not text
        return value
    return _JOINED.sub("\u00a0", value)


def write_report_page(
    report: ReportData,
    path: Path,
    lang: str,
    *,
    plan: Path | None = None,
    with_texts: bool = True,
) -> int:
    """Write the HTML file; returns its size in bytes."""
    from kmmlu_fast.core.files import write_bytes_atomically

    require_docstrings("the report")  # altair's
    refuse_early_stopped_runs(report.runs)
    page = render_report(report, lang, plan=plan, with_texts=with_texts).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomically(path, page)
    return len(page)


def _read_asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
