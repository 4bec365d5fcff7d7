"""Chain of thought through the whole evaluation with a fake engine: printed counts and
comparisons, adapters, resume, refusals.
"""

from __future__ import annotations

from html import unescape
from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_adapter, make_tiny_model

from kmmlu_fast import eval as eval_main
from kmmlu_fast import report
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Adapter, Request
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.evaluation import session as evaluation
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.reporting.wording.language import text_table

COT = str(Path(__file__).parents[2] / "configs" / "eval_cot.yaml")
ENDINGS = ("풀이를 마친다.\n정답: B\n", "따라서 정답은 ③번입니다.", "쉽지 않은 문제이다")


def text(request: Request) -> str:
    return ENDINGS[sum(request.token_ids) % 3]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("cot") / "base")


@pytest.fixture(autouse=True)
def fake_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    from kmmlu_fast.engines import factory as engines

    def opener(
        config: Any, model: Any, adapters: list[Adapter], length: int, path: str | None = None
    ) -> FakeEngine:
        return FakeEngine(text)

    monkeypatch.setattr(engines, "open_engine", opener)


def flags(model: Path, root: Path, *more: str) -> list[str]:
    return [
        "--model",
        str(model),
        "--dataset",
        "sample",
        "--output-dir",
        str(root),
        "--adapter-mode",
        "serve",
        *more,
    ]


def one(model: Path, root: Path, *more: str) -> Any:
    return evaluation.run_evaluation(
        parse_config(EvalConfig, flags(model, root, "--config", COT, *more), "eval")
    )


def test_the_ready_settings_leave_nothing_unparsed_and_print_the_counts(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert eval_main.run_eval_command(flags(model, tmp_path, "--config", COT)) == 0
    out = capsys.readouterr().out
    [run] = one(model, tmp_path)  # finished before, reused
    counts = run.metrics.to_json()["reasoning"]["read_by"]
    assert counts["unparsed"] == run.metrics.to_json()["unparsed"] == 0
    assert sum(counts.values()) == len(run.predictions) == 180
    assert counts["forced"] == run.metrics.to_json()["forced"] == run.predictions["forced"].sum() > 0
    assert counts["strict"] > 0 and counts["lenient"] > 0
    assert (
        f"strict {counts['strict']}, lenient {counts['lenient']}, forced {counts['forced']}, unparsed 0"
        in out
    )
    assert run.config["fingerprint_parts"]["prompt_style"] == "qa"
    assert [row["way"] for row in run.metrics.to_json()["reasoning"]["ways"]][::4] == ["direct", "full"]
    assert all(row["seconds"] is not None for row in run.metrics.to_json()["reasoning"]["ways"])


def test_direct_letters_are_those_of_a_multiple_choice_run(model: Path, tmp_path: Path) -> None:
    [reasoned] = one(model, tmp_path)
    [direct] = evaluation.run_evaluation(
        parse_config(EvalConfig, flags(model, tmp_path, "--prompt-style", "qa"), "eval")
    )
    assert reasoned.predictions["direct_prediction"].to_list() == direct.predictions["prediction"].to_list()
    # to the last bits: the direct run asks eight tokens, and their shares are computed together
    assert reasoned.predictions["margin"].to_list() == pytest.approx(direct.predictions["margin"].to_list())


def test_samples_budget_and_rotations_print_their_comparison(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        eval_main.run_eval_command(
            flags(model, tmp_path, "--config", COT, "--num-samples", "4", "--temperature", "0.7")
        )
        == 0
    )
    assert "4 samples: first " in capsys.readouterr().out
    assert eval_main.run_eval_command(flags(model, tmp_path, "--config", COT, "--cot-below", "0.5")) == 0
    out = capsys.readouterr().out
    words = text_table("report", "en")
    assert words["way_budgeted"] in out and words["way_direct"] in out
    assert eval_main.run_eval_command(flags(model, tmp_path, "--rotations", "4")) == 0
    assert "debiased" in capsys.readouterr().out


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_the_report_tells_what_reasoning_bought(lang: str, model: Path, tmp_path: Path) -> None:
    reasoned = one(model, tmp_path, "--num-samples", "2", "--temperature", "0.7")[0]
    rotated = evaluation.run_evaluation(
        parse_config(EvalConfig, flags(model, tmp_path, "--rotations", "4"), "eval")
    )[0]
    out, words = tmp_path / f"{lang}.html", text_table("report", lang)
    for run, wanted in (
        (reasoned, ("way_direct", "way_full", "read_by_line", "samples_line")),
        (rotated, ("rotations_line",)),
    ):
        assert (
            report.run_report_command([str(run.path), "--output", str(out), "--lang", lang, "--overwrite"])
            == 0
        )
        html = out.read_text(encoding="utf-8")
        section = html.split('<section id="reasoning">')[1].split("</section>")[0]
        assert all(words[key].split("{")[0] in section for key in wanted)
        assert '<a href="#reasoning">' in html
        ways = run.metrics.to_json()["reasoning"].get("ways", [])
        assert section.count('<th scope="row">') == len(ways)
        assert all(f"{row['output_tokens']:,}" in section for row in ways)
    plain = evaluation.run_evaluation(parse_config(EvalConfig, flags(model, tmp_path), "eval"))[0]
    assert (
        report.run_report_command([str(plain.path), "--output", str(out), "--lang", lang, "--overwrite"]) == 0
    )
    assert '<section id="reasoning">' not in out.read_text(encoding="utf-8")


def test_base_and_adapter_are_asked_the_same(model: Path, tmp_path: Path) -> None:
    lora = make_tiny_adapter(model, tmp_path / "lora")
    base, adapted = one(model, tmp_path, "--adapter", str(lora), "--cot-below", "0.7")
    assert base.predictions["prompt_digest"].to_list() == adapted.predictions["prompt_digest"].to_list()
    assert base.predictions["margin"].to_list() != adapted.predictions["margin"].to_list()


def test_settings_that_change_an_answer_change_the_fingerprint(model: Path, tmp_path: Path) -> None:
    variants: list[tuple[str, ...]] = [
        (),
        ("--max-tokens", "64"),
        ("--cot-below", "0.5"),
        ("--temperature", "0.7"),
        ("--temperature", "0.7", "--seed", "1"),
        ("--num-samples", "2", "--temperature", "0.7"),
        ("--num-fewshot", "2"),
        ("--prompt-style", "lm-eval"),
    ]
    assert len({one(model, tmp_path, "--subjects", "Math", *variant)[0].path for variant in variants}) == len(
        variants
    )


def test_thinking_without_a_template_for_it_is_one_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert eval_main.run_eval_command(flags(model, tmp_path, "--config", COT, "--thinking")) == 2
    assert "--thinking needs --prompt-style chat" in capsys.readouterr().err


def test_thoughts_that_did_not_end_are_said_and_kept_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from kmmlu_fast.engines import factory as engines

    caplog.set_level("INFO", "kmmlu_fast")
    folder = make_tiny_model(tmp_path / "base", chat=True)
    opened = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}{{ '<think>\n' }}"
    (tmp_path / "open.jinja").write_text(opened, encoding="utf-8")
    inside = "아직 모르겠다.\n정답: A\n"
    monkeypatch.setattr(engines, "open_engine", lambda *_, **__: FakeEngine(lambda request: inside))
    given = (
        "--prompt-style",
        "chat",
        "--chat-template",
        str(tmp_path / "open.jinja"),
        "--output-type",
        "cot",
    )
    [run] = one(folder, tmp_path / "runs", *given, "--subjects", "Law", "--max-tokens", "9")
    sentence = "texts (100%) ended inside a thought, most likely at --max-tokens 9"
    assert any(sentence in note for note in run.metrics.notes)
    assert run.predictions["forced"].all() and sentence in caplog.text


def test_a_parser_of_thoughts_is_in_the_fingerprint_only_if_it_reads_otherwise(
    model: Path, tmp_path: Path
) -> None:
    folder = make_tiny_model(tmp_path / "base", chat=True)
    chat = ("--prompt-style", "chat", "--output-type", "cot", "--subjects", "Law")
    [plain] = one(folder, tmp_path / "a", *chat)
    [named] = one(folder, tmp_path / "b", *chat, "--reasoning-parser", "mistral")
    assert named.config["fingerprint"] != plain.config["fingerprint"]
    with pytest.raises(ConfigError, match="--reasoning-parser goes with --output-type cot"):
        parse_config(EvalConfig, flags(model, tmp_path, "--reasoning-parser", "mistral"), "eval")


BUDGETS = (
    "--num-samples",
    "4",
    "--temperature",
    "0.7",
    "--thinking-budgets",
    "2,6,1k",
    "--max-tokens",
    "2048",
)


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_budgets_and_samples_are_in_metrics_terminal_and_report(
    lang: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = flags(model, tmp_path, "--config", COT, *BUDGETS, "--lang", lang)
    assert eval_main.run_eval_command(argv) == 0
    printed, words = capsys.readouterr().out, text_table("report", lang)
    [run] = one(model, tmp_path, *BUDGETS)
    found = run.metrics.reasoning
    assert [point.budget for point in found.budgets] == [2, 6, 1024, None]
    assert found.budgets[2].accuracy == found.budgets[3].accuracy == run.micro and found.budgets[2].cut == 0
    assert found.budgets[0].cut == 1.0 and found.budgets[0].difference is not None
    assert found.samples.average.samples == 4
    assert [each.changed for each in found.samples.stopping] == [0, 0]  # equal samples settle at once
    assert [each.samples for each in found.samples.stopping] == [3, 3]
    for key in ("budget_heading", "budget_whole", "budget_difference"):
        assert words[key] in printed
    assert "avg@4" in printed
    out = tmp_path / "report.html"
    assert report.run_report_command([str(run.path), "--output", str(out), "--lang", lang]) == 0
    html = unescape(out.read_text(encoding="utf-8")).replace("\xa0", " ")
    section = html.split('<section id="reasoning">')[1].split("</section>")[0]
    assert words["budget_note"] in section and "1,024" in section and "avg@4" in section
    assert words["budget_title"].split("{")[0] in html and 'id="chart-budget-' in html


def test_settled_votes_leave_fewer_samples_and_the_same_letters(model: Path, tmp_path: Path) -> None:
    few = ("--subjects", "STEM", "--num-samples", "8", "--temperature", "0.7")
    [whole] = one(model, tmp_path, *few)
    [stopped] = one(model, tmp_path, *few, "--vote-stopping", "exact")
    assert stopped.path != whole.path
    assert stopped.frame["prediction"].to_list() == whole.frame["prediction"].to_list()
    assert set(stopped.frame["sample_predictions"].list.len()) == {5}
    tokens = [run.frame["sample_tokens"].list.sum().sum() for run in (stopped, whole)]
    assert tokens[0] * 8 == tokens[1] * 5
    assert "sample_tokens" not in one(model, tmp_path, "--subjects", "STEM")[0].path.joinpath(
        "predictions.parquet"
    ).read_bytes().decode("latin-1")
