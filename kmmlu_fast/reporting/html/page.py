"""One self-contained report.html.

In: ``ReportData``. Out: an HTML file that opens from disk and makes no network request. Everything from data
or a model is escaped by the template, or packed and set as text in the page; a content security policy backs
up both. Knows nothing of models.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from kmmlu_fast.machine.extras import require_docstrings
from kmmlu_fast.reporting.html.page_context import report_context
from kmmlu_fast.reporting.html.page_data import pack_page_data
from kmmlu_fast.reporting.report_data import ReportData
from kmmlu_fast.reporting.wording.language import LANGUAGES, get_translator
from kmmlu_fast.runs.run import refuse_early_stopped_runs

ASSETS = Path(__file__).parent / "assets"
MAX_BYTES = 10_000_000
# Spaces at which no line ends: in "95 %", "p < 0.001", "* significant".
_JOINED = re.compile(r"(?<=\d) (?=(?:%p|%|pp)(?![\w%]))|(?<=\bp) (?=[<=])|(?<=p <) (?=\d)|(?<=\*) (?=\w)")
SCRIPTS = ("view.js", "pairs.js", "report.js")


def render_report(report: ReportData, lang: str, *, plan: Path | None = None, with_texts: bool = True) -> str:
    """The report's HTML, in ``lang`` first. ``plan``: a sampling plan to chart. Without ``with_texts``, it
    contains no text of questions or models.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_join_units,
    )
    page = environment.get_template("report.html.j2")
    css, script = _read_asset("report.css"), "".join(_read_asset(name) for name in SCRIPTS)
    other = next(name for name in LANGUAGES if name != lang)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    both = [
        report_context(report, plan, get_translator(name, "report"), with_texts=with_texts)
        for name in (lang, other)
    ]
    first, second = both
    first |= {"css": Markup(css), "script": Markup(script), "script_hash": Markup(f"'sha256-{digest}'")}

    def whole(data: Any) -> str:
        inner = page.render({**second, "inner": True, "other_lang": lang})
        outer = {**first, "inner": False, "other_lang": other}
        return page.render({**outer, "other_page": Markup(inner), "data": data})

    room = MAX_BYTES - len(whole(None).encode()) - 100_000
    packed, left_out = pack_page_data(report, first["t"], room, with_texts=with_texts)
    if left_out:
        for part in both:
            part["method"].append(part["t"]("method_texts", count=f"{left_out:,}"))
    return whole(None if packed is None else Markup(packed))


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
