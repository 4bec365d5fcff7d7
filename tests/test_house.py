"""What the house promises about names and rooms, counted: shares and lists that must not grow.

Run it alone to see the counts: ``python tests/test_house.py``.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "kmmlu_fast"
ONE_WORD_SHARE = 0.25
POSITIONAL_ARGUMENTS = 5
NAME_QUESTIONS = 5  # lines outside data/ and engines/ that ask which exam or engine it is

# Modules whose tests are elsewhere, and why. A new module comes with a test file of its own.
TESTED_ELSEWHERE = {
    "by the tests of the modules that use them (records, words and constants)": (
        "reporting/early_pairs reporting/html/pair_verdicts "
        "core/errors core/prediction_frames core/schema core/settings core/version"
        " engines/names engines/options engines/protocol models/default_model data/default_exam"
        " training/result training/encoded runs/run evaluation/config reporting/config sampling/config"
        " contamination/config training/config prompting/prompt_styles engines/warm/config"
    ),
    "whole, through the verbs that they end or start (tests/faults, tests/doors)": (
        "command/exit_codes command/help_text command/run command/streams core/console core/untrusted_text"
        " core/files core/locks core/digests machine/extras"
        " reporting/report_files reporting/run_comparisons"
    ),
    "through real engines (tests/engines/*/test_engine*.py) and tests/faults/test_servers.py": (
        "engines/fake engines/hf/kind engines/hf/scoring engines/ray/kind engines/ray/replica"
        " engines/server/client engines/server/completions engines/server/kind engines/vllm/errors"
        " engines/vllm/kind"
        " machine/device_memory engines/llama_cpp/kind models/llama_cpp"
    ),
    "through commands that ask warm engines (tests/engines/warm/test_remote_engine.py, test_worker.py)": (
        "engines/warm/command_session"
    ),
    "through the release gate, exports and re-scored bundles (tests/shipping)": (
        "shipping/config shipping/llama_tools shipping/papers shipping/source shipping/stops shipping/tensors"
    ),
    "through evaluations (tests/evaluation/test_session.py, early_stopping/test_*.py)": (
        "evaluation/questions evaluation/model_states"
        " evaluation/early_stopping/passes"
        " evaluation/early_stopping/record"
    ),
    "through prompts and chain of thought (tests/prompting/test_cot.py, test_methods.py, tests/evaluation)": (
        "prompting/cot_digest prompting/cot_tokens prompting/cot_wording prompting/method_choice"
    ),
    "through comparisons (tests/analysis/test_comparison*.py, test_accuracy.py, tests/reporting)": (
        "analysis/error_profile analysis/exam_comparison analysis/headline"
        " analysis/letter_bias/offsets analysis/paired_questions"
        " analysis/protocol_differences analysis/sequential/question_order"
        " analysis/softmax analysis/strata"
    ),
    "through exams and training rows (tests/data/test_exam.py, test_training_rows.py, contamination)": (
        "contamination/shingles core/letters data/exam_lookup data/exam_rows data/exam_tables data/file_text"
        " data/hub_rows data/inline_options data/question_cells data/records data/row_columns data/subjects"
        " data/table_exam models/adapters"
    ),
    "in its process (tests/reporting/charts/test_svg_process.py)": "reporting/charts/svg_worker",
    "through reports (tests/reporting/html/test_page*.py, files/test_exports.py, terminal/test_summary.py)": (
        "reporting/charts/answer_charts reporting/charts/effort_charts"
        " reporting/charts/figure reporting/charts/figure_files"
        " reporting/comparison_settings reporting/comparison_view reporting/files/formats"
        " reporting/files/frames reporting/files/output_paths reporting/files/spreadsheet"
        " reporting/files/workbook reporting/html/explorer reporting/html/page_context"
        " reporting/html/page_charts reporting/html/page_data reporting/html/sections"
        " reporting/html/tables reporting/human_accuracy"
        " reporting/terminal/doctor reporting/terminal/eval_summary"
        " reporting/terminal/tables"
        " reporting/wording/letter_habit reporting/wording/reasoning_text reporting/wording/recipe_text"
        " reporting/wording/verdict"
    ),
    "through searches (tests/improvement/test_search.py, test_search_engine.py)": (
        "improvement/collapse improvement/rungs improvement/scoring"
    ),
    "through adapters of every kind (tests/models/test_adapter_kinds.py)": "models/adapter_features",
    "through its door (tests/doors/test_plan_door.py)": "reporting/terminal/question_plan",
    "through the readers of runs (tests/runs/readers) and files/test_exports.py": (
        "reporting/export_names reporting/files/csv_tables reporting/files/export_formats"
        " reporting/files/inspect_output reporting/files/json_report reporting/files/lm_eval_output"
        " reporting/files/parquet_tables runs/inspect_export runs/lm_eval_export runs/readers/evalscope"
        " runs/readers/hret runs/readers/lighteval runs/readers/lm_eval_files runs/readers/lm_eval_samples"
        " runs/readers/lm_eval_candidates runs/readers/lm_eval_scores runs/readers/lm_eval_tasks"
        " runs/readers/opencompass runs/readers/table_files runs/readers/wandb"
    ),
    "through draws and trainings (tests/sampling/test_draw.py, training/test_job.py, test_trainer.py)": (
        "sampling/card sampling/job sampling/plan sampling/pool training/arguments training/card"
        " training/held_out training/order"
        " training/row_length"
    ),
}


@dataclass(frozen=True)
class Definition:
    """A function, method or class of the package."""

    module: str
    name: str
    is_class: bool
    is_top_level: bool
    node: ast.AST


def definitions() -> Iterator[Definition]:
    for path in sorted(PACKAGE.rglob("*.py")):
        module = str(path.relative_to(PACKAGE).with_suffix(""))
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield Definition(module, node.name, isinstance(node, ast.ClassDef), node in tree.body, node)


def one_word_share() -> float:
    names = [d.name for d in definitions() if not d.is_class and not d.name.startswith("__")]
    return sum("_" not in name.strip("_") for name in names) / len(names)


def shared_public_names() -> dict[str, list[str]]:
    homes: dict[str, list[str]] = defaultdict(list)
    for definition in definitions():
        if definition.is_top_level and not definition.name.startswith("_"):
            homes[definition.name].append(definition.module)
    return {name: modules for name, modules in homes.items() if len(modules) > 1}


def long_positional_constructors() -> list[str]:
    """Records and classes that take more than five arguments by position."""
    found = []
    for definition in definitions():
        node = definition.node
        if not isinstance(node, ast.ClassDef):
            continue
        decorators = [ast.unparse(each) for each in node.decorator_list]
        record = next((text for text in decorators if text.startswith("dataclass")), None)
        if record is not None:
            fields = [
                each
                for each in node.body
                if isinstance(each, ast.AnnAssign) and "ClassVar" not in ast.unparse(each.annotation)
            ]
            positional = 0 if "kw_only=True" in record else len(fields)
        else:
            init = [
                each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"
            ]
            positional = len(init[0].args.args) - 1 if init else 0
        if positional > POSITIONAL_ARGUMENTS:
            found.append(f"{definition.module}.{definition.name}: {positional}")
    return found


def modules_without_tests() -> list[str]:
    missing = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE)
        mirrored = ROOT / "tests" / module.parent / f"test_{module.name}"
        if module.name != "__init__.py" and len(module.parts) > 1 and not mirrored.exists():
            missing.append(str(module.with_suffix("")))
    return missing


def questions_after_a_name() -> list[str]:
    pattern = re.compile(r"is_kmmlu|engine (==|in) ")
    lines = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] in ("data", "engines"):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if pattern.search(line):
                lines.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    return lines


def test_names_are_verb_and_noun() -> None:
    assert one_word_share() < ONE_WORD_SHARE


def test_a_public_name_has_one_home() -> None:
    assert shared_public_names() == {}


def test_constructors_with_many_arguments_take_keywords() -> None:
    assert long_positional_constructors() == []


def test_every_module_has_tests_or_a_reason() -> None:
    listed = [name for names in TESTED_ELSEWHERE.values() for name in names.split()]
    assert len(listed) == len(set(listed))
    missing = modules_without_tests()
    assert sorted(set(missing) - set(listed)) == []  # write tests/<wing>/test_<module>.py
    assert sorted(set(listed) - set(missing)) == []  # gone, or has its own tests now: take it off the list


def test_few_lines_ask_which_exam_or_engine() -> None:
    lines = questions_after_a_name()
    assert len(lines) <= NAME_QUESTIONS, "\n".join(lines)


@pytest.mark.parametrize(
    "wing", sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
)
def test_every_wing_says_what_it_is(wing: str) -> None:
    for init in (PACKAGE / wing).rglob("__init__.py"):
        assert (ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or "").strip()


def test_no_link_is_tracked() -> None:
    """A tracked link named as an ignored folder (.venv) would replace that folder in whoever merges it."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert [line for line in listed.splitlines() if line.startswith("120000")] == []


if __name__ == "__main__":
    print(f"one-word function names: {one_word_share():.1%} (below {ONE_WORD_SHARE:.0%})")
    print(f"public names in two modules: {len(shared_public_names())}")
    print(
        f"constructors with over {POSITIONAL_ARGUMENTS} positional arguments:", long_positional_constructors()
    )
    print(f"modules without tests of their own: {len(modules_without_tests())}")
    print("lines that ask which exam or engine it is:", *questions_after_a_name(), sep="\n  ")
