"""``python -m kmmlu_fast.compare`` as a user runs it, and the known answers of the reference
predictions where they are there.
"""

import json
import re
from pathlib import Path

import pytest
from made_runs import predictions, run_directory

from kmmlu_fast.compare import run_compare_command
from kmmlu_fast.core.errors import DataError
from kmmlu_fast.reporting.comparison_settings import read_overlap_ids

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "predictions_25_models_test.csv"


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    base = run_directory(tmp_path / "base", "base", predictions(1, skill=0.5))
    lora = run_directory(tmp_path / "lora", "lora", predictions(1, skill=1.5))
    return [str(base), str(lora)]


def test_one_screen(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_compare_command(runs) == 0
    out = capsys.readouterr().out
    assert "lora is better than base" in out and "letter prior" in out
    for row in (
        "micro (over questions)",
        "macro (over subjects)",
        "balanced (over letters)",
        "at the key's letter shares",
        "Computer Science",
    ):
        assert row in out
    tables = [
        line for line in out.splitlines() if not line.startswith(("  ", "b, c:"))
    ]  # sentences are not wrapped in a pipe
    assert len(out.splitlines()) < 50 and max(map(len, tables)) <= 120


def test_korean(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_compare_command([*runs, "--lang", "ko", "--by-subject"]) == 0
    out = capsys.readouterr().out
    assert "lora가 base보다 낫습니다" in out and "회계" in out and "인문사회" in out


def test_three_runs_and_base_by_name(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = run_directory(tmp_path / "cot", "cot", predictions(1, skill=1.0), output_type="cot")
    assert (
        run_compare_command([*runs, str(other), "--base", "lora", "--json-file", str(tmp_path / "out.json")])
        == 0
    )
    out = capsys.readouterr().out
    assert "All runs" in out and "base is worse than lora" in out
    assert "were not compared" in out and "output_type multiple_choice -> cot" in re.sub(r"\s+", " ", out)
    document = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [run["name"] for run in document["runs"]] == ["lora", "base", "cot"]
    assert document["comparisons"][0]["micro"]["difference"] < 0 and len(document["comparisons"]) == 1


def test_score_files_stand_in_the_table(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = tmp_path / "old.csv"
    scores.write_text("subject,correct,total\nLaw,30,60\n", encoding="utf-8")
    assert run_compare_command([runs[0], str(scores)]) == 0
    out = capsys.readouterr().out
    assert "50.00" in out and "scores by subject only" in re.sub(r"\s+", " ", out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--runs|runs"),
        (["{base}"], "1 run given, 2 needed"),
        (["{base}", "{lora}", "--base", "x"], "is not among the runs base, lora"),
        (["{base}", "nowhere"], "does not exist"),
        (["{base}", "{lora}", "--overlap", "nowhere.txt"], "cannot be read"),
    ],
)
def test_faults_are_one_line(
    runs: list[str], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_compare_command([argument.format(base=runs[0], lora=runs[1]) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and re.search(message, error) and error.count("\n") == 1


def test_prompts_that_differ_need_a_flag(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = run_directory(tmp_path / "chat", "chat", predictions(1), prompt_style="chat")
    assert run_compare_command([runs[0], str(chat)]) == 2
    assert "--different-prompts" in capsys.readouterr().err
    assert run_compare_command([runs[0], str(chat), "--different-prompts"]) == 0
    assert "CAUTION" in capsys.readouterr().out


def test_overlap_files(tmp_path: Path) -> None:
    wanted = frozenset({"Law/test/1", "Math/test/2"})
    for name, text in (
        ("a.txt", "Law/test/1\nMath/test/2\n"),
        ("b.json", '["Law/test/1", "Math/test/2"]'),
        ("c.json", '{"test_ids": ["Law/test/1", "Math/test/2"]}'),
        ("d.csv", "train_id,test_id\nx,Law/test/1\ny,Math/test/2\n"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert read_overlap_ids(tmp_path / name) == wanted
    (tmp_path / "bad.txt").write_text("Law 1", encoding="utf-8")
    with pytest.raises(DataError, match="not a question id"):
        read_overlap_ids(tmp_path / "bad.txt")


def test_a_recipe_of_several_seeds(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = [
        str(
            run_directory(
                tmp_path / f"s{i}", f"s{i}", predictions(1, skill=1.4 + 0.1 * i), adapter_digest=f"d{i}"
            )
        )
        for i in range(3)
    ]
    assert (
        run_compare_command(
            [runs[0], "--group", f"lora={','.join(seeds)}", "--json-file", str(tmp_path / "o.json")]
        )
        == 0
    )
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "Recipe lora is better than base" in out and "over 3 seeds" in out and "seeds and questions" in out
    document = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))
    assert len(document["recipes"][0]["effects"]) == 3
    # The recipe was one comparison on test: the next adapter is the second.
    assert run_compare_command([runs[0], runs[1]]) == 0
    later = str(run_directory(tmp_path / "s9", "s9", predictions(1, skill=1.3), adapter_digest="d9"))
    assert run_compare_command([runs[0], later]) == 0
    assert "corrected for 2 comparisons" in re.sub(r"\s+", " ", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("group", "message"),
    [("lora", "give a recipe's name and its runs"), ("lora={lora}", "needs at least 2 seeds")],
)
def test_faults_of_groups(
    runs: list[str], group: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_compare_command([runs[0], "--group", group.format(lora=runs[1])]) == 2
    assert message in capsys.readouterr().err


def test_margin_and_population_are_chosen(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    near = str(run_directory(tmp_path / "near", "near", predictions(1, skill=0.62)))
    assert run_compare_command([runs[0], near]) == 0
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert (
        "Undecided: the true difference could be" in out
        and "questions like these" in out
        and "Overlap unknown" in out
    )
    assert (
        run_compare_command([runs[0], near, "--margin", "20", "--population", "these", "--overlap", "none"])
        == 0
    )
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "a count, not an estimate" in out and "Overlap unknown" not in out
    assert run_compare_command([runs[0], near, "--margin", "20"]) == 0
    assert "equal within ±20.0 pp" in re.sub(r"\s+", " ", capsys.readouterr().out)


def test_a_hub_dataset_that_is_not_here_leaves_the_overlap_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    pair = [
        str(run_directory(tmp_path / name, name, predictions(1, skill=skill), dataset="HAERAE-HUB/KMMLU"))
        for name, skill in (("base", 0.5), ("lora", 1.5))
    ]
    assert run_compare_command(pair) == 0
    assert "Overlap unknown" in capsys.readouterr().out


def test_a_hub_dataset_in_the_cache_is_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from kmmlu_fast.data.dataset import SAMPLE_DIR

    monkeypatch.setattr("kmmlu_fast.reporting.inputs.cached_dataset_root", lambda dataset: SAMPLE_DIR)
    sizes = {"Law": 4, "Math": 4}
    frame = predictions(1, sizes=sizes)
    pair = [
        str(run_directory(tmp_path / name, name, frame, dataset="HAERAE-HUB/KMMLU"))
        for name in ("base", "lora")
    ]
    assert run_compare_command(pair) == 0
    assert "Overlap unknown" not in capsys.readouterr().out


def test_key_audit_lists_ids(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("gpt-5", "claude", "llama", "phi", "qwen")
    more = [
        str(run_directory(tmp_path / name, name, predictions(1, skill=3.0), model=name)) for name in names
    ]
    assert run_compare_command([*runs, *more, "--key-audit"]) == 0
    assert "Doubtful keys:" in capsys.readouterr().out
    assert run_compare_command([*runs, "--key-audit"]) == 0
    assert "at least five vendors" in capsys.readouterr().out


def test_known_answers_of_shipped_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = ["published:gpt-4.1", "published:gpt-4.1-mini"]
    assert run_compare_command([*runs, "--json-file", str(tmp_path / "o.json")]) == 0
    found = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))["comparisons"][0]
    assert (found["micro"]["b"], found["micro"]["c"], found["micro"]["n"]) == (5034, 2852, 35_030)
    assert "gpt-4.1-mini is worse than gpt-4.1: −6.23 pp" in capsys.readouterr().out


def test_shipped_runs_of_other_exemplars_are_asked_differently(capsys: pytest.CaptureFixture[str]) -> None:
    runs = ["published:phi-3.5-mini", "published:phi-3.5-mini-5shot"]
    assert run_compare_command(runs) == 2
    assert "num_fewshot 0 -> 5" in capsys.readouterr().err


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference predictions are not on this machine")
def test_known_answers_of_the_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [f"{REFERENCE}:phi-3-5-moe-instruct", f"{REFERENCE}:phi-3-5-moe-instruct-5shot"]
    assert run_compare_command([*runs, "--json-file", str(tmp_path / "o.json")]) == 0
    found = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))["comparisons"][0]
    assert (found["micro"]["b"], found["micro"]["c"], found["micro"]["n"]) == (3809, 3980, 35_030)
    assert "No significant difference" in capsys.readouterr().out


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference predictions are not on this machine")
def test_letters_that_do_not_fix_the_split_print_a_range_not_a_claim(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        run_compare_command([f"{REFERENCE}:gpt-4o-mini-240718", f"{REFERENCE}:gpt-4o-mini-240718-5shot"]) == 0
    )
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "of which −1.76 to −0.93 pp is letter prior" in out
    assert "The letters alone cannot show whether more than letter habit changed" in out
    for claim in (
        "Letter habit explains",
        "Letter habit does not",
        "Without letter habit",
        "significant part",
    ):
        assert claim not in out


def test_fail_if_closes_a_pipeline(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, lora = runs
    junit = tmp_path / "gate.xml"
    assert run_compare_command([base, lora, "--fail-if", "not-better", "--junit", str(junit)]) == 0
    assert "--fail-if not-better: passed (1 compared)" in capsys.readouterr().err
    assert 'tests="1" failures="0"' in junit.read_text(encoding="utf-8")
    assert run_compare_command([lora, base, "--fail-if", "worse", "--junit", str(junit)]) == 2  # exists
    assert "--junit" in capsys.readouterr().err
    again = [lora, base, "--fail-if", "worse", "--junit", str(junit), "--overwrite", "--format", "json"]
    assert run_compare_command(again) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["comparisons"][0]["outcome"] == "worse"  # stdout is still JSON
    assert "--fail-if worse: failed (base against lora: worse)" in err
    assert 'failures="1"' in junit.read_text(encoding="utf-8") and 'type="worse"' in junit.read_text()
    assert run_compare_command([base, lora, "--fail-if", "bad"]) == 2
    assert "worse" in capsys.readouterr().err


def test_a_run_beside_a_published_figure(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "published.json"
    assert run_compare_command([runs[0], "published:A.X-4.0-Light", "--json-file", str(target)]) == 0
    text = capsys.readouterr().out
    assert "skt/A.X-4.0-Light is published with 64.15 %" in text and "unpaired" in text
    assert json.loads(target.read_text())["published"][0]["figure"] == 64.15
    assert run_compare_command([*runs[:2], "published:A.X-4.0-Light"]) == 0
    assert capsys.readouterr().out.count("64.15 %") == 2  # beside each run, after the comparison
    assert run_compare_command([runs[0], "published:nobody"]) == 2
    assert "nothing published has this name" in capsys.readouterr().err
    assert run_compare_command([runs[0], "published:gpt-4", "--format", "csv"]) == 2
    assert "--format text or md" in capsys.readouterr().err
