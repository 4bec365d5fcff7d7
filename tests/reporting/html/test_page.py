"""The HTML report without a browser: self-contained, escaped, small enough, complete."""

import base64
import hashlib
import json
import random
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from made_runs import found_in, loaded, predictions, questions, run_directory

from kmmlu_fast import report
from kmmlu_fast.analysis.comparison import PairComparison, compare_pair
from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.reporting.html import explorer
from kmmlu_fast.reporting.html.page import MAX_BYTES, render_report
from kmmlu_fast.runs.run import Run

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)>"


def data_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="text/plain" id="data">([A-Za-z0-9+/=]+)</script>', html)
    assert found
    return explorer.unpack_json(found[1])


@pytest.fixture(scope="module")
def page() -> str:
    runs = [
        loaded(f"base {EVIL}", predictions(1, skill=0.5, text=EVIL)),
        loaded("lora", predictions(2, skill=1.4, bias=(-0.5, 0, 0, 0.2))),
    ]
    return render_report(found_in(runs, questions(runs[0].frame, text=EVIL)), "en")


def test_nothing_in_it_reaches_out(page: str) -> None:
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", page))
    assert addresses <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }  # namespaces, never fetched
    assert not re.search(r"<(?:link|script|img|iframe)[^>]+(?:src|href)=[\"'](?!data:)", page)
    assert "@import" not in page and not re.search(r"url\((?!#)", page)


def test_ids_are_unique(page: str) -> None:
    """Two charts with the same clip id would cut each other."""
    shown, _, rest = page.partition('<template id="other"')
    inner, _, after = rest.partition("</template>")
    for language in (
        shown + after,
        inner,
    ):  # the other language takes the place of the first, never stands beside it
        ids = re.findall(r'\bid="([^"]+)"', language)
        assert len(ids) == len(set(ids)) > 20
        assert set(re.findall(r"url\(#([^)]+)\)", language)) <= set(ids)


def test_only_our_script_may_run(page: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert policy and len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert "default-src 'none'" in policy[1] and f"script-src 'sha256-{digest}'" in policy[1]


def test_what_came_from_data_is_escaped(page: str) -> None:
    assert EVIL not in page and "<img src=x" not in page
    assert "&lt;script&gt;alert(" in page
    assert "innerHTML" not in page and "insertAdjacentHTML" not in page and "document.write" not in page


def test_sections_and_charts(page: str) -> None:
    for part in ("summary", "runs", "charts", "subjects", "explorer", "facts", "method"):
        assert f'<section id="{part}"' in page
    for chart in ("changes", "groups", "letters", "weak", "calibration"):
        assert f'id="chart-{chart}"' in page
    assert "var(--c-second)" in page and "letter prior" in page


def test_explorer_data(page: str) -> None:
    data = data_of(page)
    assert [subject["id"] for subject in data["subjects"]] == [
        "Accounting",
        "Law",
        "Math",
        "Computer-Science",
    ]
    runs = data["runs"]
    frame = predictions(1, skill=0.5)
    assert runs[0]["letters"] == "".join(frame["prediction"])
    first = frame.row(0, named=True)
    shares = [2.718281828 ** first[f"logprob_{letter}"] for letter in "ABCD"]
    shown = [(ord(text[0]) - 40) / 80 for text in runs[0]["probabilities"]]
    assert shown == pytest.approx(shares, abs=0.007)
    assert runs[0]["texts"]["0"] == [EVIL] and data["texts"]["question"][0] == f"{EVIL} (0)"


def test_korean_report() -> None:
    html = render_report(
        found_in([loaded("base", predictions(1)), loaded("lora", predictions(2, skill=1.4))]), "ko"
    )
    assert '<html lang="ko">' in html and "회계" in html and "글자 편향" in html and "인문사회" in html


def test_one_run_and_a_score_file() -> None:
    scores = pl.DataFrame(
        {"subject": ["Law", "Math"], "supercategory": ["HUMSS", "STEM"], "correct": [3, 1], "total": [4, 4]}
    )
    old = Run(name="old", kind="scores", source="old.json", predictions=None, scores=scores)
    alone = render_report(found_in([old]), "en")
    assert "Only scores per subject are known" in alone and 'id="data"' not in alone
    both = render_report(found_in([loaded("base", predictions(1)), old]), "en")
    assert "were not compared" in both and "always D" in render_report(
        found_in([loaded("base", predictions(1))]), "en"
    )


def test_many_runs_have_a_matrix_and_their_verdicts() -> None:
    html = render_report(
        found_in([loaded(f"run {i}", predictions(i, skill=0.3 * i)) for i in range(4)]), "en"
    )
    assert '<section id="matrix"' in html and "Verdicts of all 3 comparisons" in html


def test_full_test_set_with_long_generated_texts_stays_small() -> None:
    """35,030 questions with texts of KMMLU's length and 800 characters of reasoning in each of
    two runs: under 10 MB.
    """
    chance = random.Random(0)
    letters = [chr(code) for code in range(0xAC00, 0xAC00 + 1200)]
    words = ["".join(chance.choices(letters, k=3)) for _ in range(4000)]
    sizes = dict.fromkeys(SUBJECTS, 1000) | {"Law": 30}
    sizes = dict(list(sizes.items())[:36])
    pool = [" ".join(chance.choices(words, k=200)) for _ in range(500)]
    frame = predictions(1, sizes=sizes)
    frame = frame.with_columns(
        pl.Series(
            "texts",
            [[pool[chance.randrange(500)][: chance.randrange(400, 800)] + str(i)] for i in range(len(frame))],
        )
    )
    asked = questions(frame).with_columns(
        pl.Series("question", [" ".join(chance.choices(words, k=20)) for _ in range(len(frame))])
    )
    html = render_report(found_in([loaded("base", frame), loaded("lora", frame)], asked), "en")
    assert len(html.encode()) < MAX_BYTES
    assert "were left out to keep the page small" in html
    assert len(data_of(html)["row"]) == len(frame) >= 34_000


def test_main_writes_into_the_run_directory_and_exports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_directory(tmp_path / "base", "base", predictions(1))
    figures = ["--figures", str(tmp_path / "figures"), "--figure-width", "3.3in"]
    assert report.run_report_command([str(run), "--export", "csv,json", *figures]) == 0
    assert (run / "report.html").stat().st_size > 50_000
    assert {path.name for path in run.glob("*.csv")} == {
        f"{name}.csv" for name in ("subjects", "predictions", "errors", "confident_errors")
    }
    assert (tmp_path / "figures" / "weak.svg").read_text(encoding="utf-8").startswith("<svg")
    png = (tmp_path / "figures" / "letters.png").read_bytes()
    assert (
        png.startswith(b"\x89PNG") and abs(int.from_bytes(png[16:20]) - 3.3 * 300) <= 2
    )  # its width at 300 dpi
    assert "report.html" in capsys.readouterr().out


def test_an_export_does_not_compare_a_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs: list[tuple[str, str]] = []

    def counted(first: Run, second: Run, settings: ComparisonSettings) -> PairComparison:
        pairs.append((first.name, second.name))
        return compare_pair(first, second, settings)

    monkeypatch.setattr("kmmlu_fast.analysis.base_comparisons.compare_pair", counted)
    runs = [
        str(run_directory(tmp_path / name, name, predictions(1, skill=s))) for name, s in (("a", 1), ("b", 2))
    ]
    page = ["--output", str(tmp_path / "r.html"), "--overlap", "none"]
    assert report.run_report_command([*runs, *page, "--export", "json,xlsx", "--no-texts"]) == 0
    assert pairs == [("a", "b")] and (tmp_path / "report.xlsx").exists()


def test_show_prints_a_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_directory(tmp_path / "base", "base", predictions(1, text="이유는 [bold]이것"))
    assert report.run_report_command([str(run), "--show", "Law/test/3"]) == 0
    out = capsys.readouterr().out
    assert "Law/test/3" in out and "P(A)" in out and "이유는 [bold]이것" in out
    assert report.run_report_command([str(run), "--show", "Law/test/999"]) == 2
    assert "is in none of the runs; ids look like Accounting/test/0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--export", "pdf"], "allowed are csv, csv.gz, parquet, json, xlsx, lm-eval"),
        (["--output", "x.pdf"], "must end in .html"),
        (["--plan", "nowhere.parquet"], "is not a sampling plan"),
    ],
)
def test_faults(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_directory(tmp_path / "base", "base", predictions(1))
    assert report.run_report_command([str(run), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_training_curve_and_plan(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    steps = [{"kind": "step", "step": i, "loss": 2.0 / i} for i in range(1, 5)] + [
        {"kind": "held_out", "step": 4, "loss": 1.0}
    ]
    (adapter / "train_log.jsonl").write_text(
        "\n".join(map(json.dumps, steps)) + '\n{"kind": "st', encoding="utf-8"
    )
    pl.DataFrame({"subject": ["Law", "Math"], "drawn": [5, 2], "weak": [True, False]}).write_parquet(
        tmp_path / "x.plan.parquet"
    )
    run = run_directory(tmp_path / "lora", "lora", predictions(1), adapter=adapter)
    assert report.run_report_command([str(run), "--plan", str(tmp_path / "x.plan.parquet")]) == 0
    html = (run / "report.html").read_text(encoding="utf-8")
    assert 'id="chart-training-lora"' in html and 'id="chart-plan"' in html and "Law: 5" in html


def test_the_key_itself_is_looked_at_with_five_runs() -> None:
    models = ("gpt-4.1", "claude-haiku-4-5", "Qwen3-8B", "EXAONE-3.5-7.8B", "phi-4")
    runs = [loaded(name, predictions(i, skill=2.0), model=name) for i, name in enumerate(models)]
    html = render_report(found_in(runs), "en")
    assert '<section id="key"' in html and "Doubtful keys" in html and "The key itself" in html
    assert '<section id="key"' not in render_report(found_in(runs[:2]), "en")


def test_a_key_that_was_not_checked_has_no_accuracies_without_these() -> None:
    runs = [loaded(f"phi-{i}", predictions(i, skill=2.0), model=f"phi-{i}") for i in range(5)]
    html = render_report(found_in(runs), "en")
    assert "The key was not checked" in html and "without these" not in html


def test_no_line_ends_between_a_number_and_its_unit(page: str) -> None:
    text = page.split("<main", 1)[1]
    assert re.search("\\d\u00a0pp \\(95\u00a0% interval", text)
    assert not re.search(r"\d pp\b", re.sub(r"<(script|svg|title|desc).*?</\1>", "", text, flags=re.S))


def test_several_runs_are_corrected_in_the_report() -> None:
    html = render_report(
        found_in([loaded(f"run {i}", predictions(i, skill=0.4 + 0.4 * i)) for i in range(3)]), "en"
    )
    assert "corrected for 2 comparisons with this base" in html
    assert "is the best of 2 runs compared with run 0" in html
    assert "log score" in html and "questions like these" in html
