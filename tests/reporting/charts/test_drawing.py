"""Charts as SVG: ids of their own, and a limit on labels only where one could be too long."""

import altair as alt
import polars as pl
import pytest

from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.reporting.charts import drawing
from kmmlu_fast.reporting.wording.language import get_translator


def drawn(labels: list[str], limit: int) -> str:
    frame = pl.DataFrame({"label": labels, "value": [1.0] * len(labels)})
    y = alt.Y("label:N", sort=labels, axis=alt.Axis(labelLimit=limit))
    chart = alt.Chart(frame).mark_bar().encode(y=y, x="value:Q")
    return drawing.spec_to_svg(drawing.vega_lite_spec(chart, drawing.PAGE))


def test_labels_without_a_limit_are_those_that_a_limit_would_leave_alone() -> None:
    names = [get_translator(lang).subject(name) for name in SUBJECTS for lang in ("en", "ko")]
    free = sorted((name for name in names if not drawing.label_limit([name])), key=len)[-6:]
    assert len(free[-1]) > 25
    assert drawn(free, 0) == drawn(free, drawing.LABEL_LIMIT_PX)


@pytest.mark.parametrize("label", ["W" * 30, "가" * 30, "a" * 60])
def test_a_long_label_is_cut(label: str) -> None:
    assert drawing.label_limit(["short", label]) == drawing.LABEL_LIMIT_PX
    assert "…" in drawn([label], drawing.label_limit([label]))


def test_ids_of_two_charts_do_not_collide() -> None:
    svg = '<clipPath id="clip1"/><g clip-path="url(#clip1)"/>'
    assert drawing.distinguish_svg_ids(svg, "en-weak") == (
        '<clipPath id="en-weak-clip1"/><g clip-path="url(#en-weak-clip1)"/>'
    )
