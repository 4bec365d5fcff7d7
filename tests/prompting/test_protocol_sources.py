"""Each protocol renders what its source renders, byte for byte: lm-eval by its own code over the packaged
sample, the others by their published template, filled in by its own rule.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_tokenizer

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.schema import Completion, Question, Response
from kmmlu_fast.data.dataset import SAMPLE_DIR
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.questions import load_eval_questions
from kmmlu_fast.prompting.letter_forms import form_delimiter
from kmmlu_fast.prompting.method_choice import choose_method, choose_style
from kmmlu_fast.prompting.methods import GenerateUntil, MultipleChoice
from kmmlu_fast.prompting.prompts import render_prompt
from kmmlu_fast.prompting.protocols import find_protocol, shipped_protocol_names

# protocol -> lm-eval's common file, its number of exemplars
IN_LM_EVAL = {
    "lm-eval": ("default/_default_kmmlu_yaml", 0),
    "bare-letter": ("default/_default_kmmlu_yaml", 0),
    "kmmlu-direct": ("direct/_direct_kmmlu_yaml", 0),
    "kmmlu-paper": ("direct/_direct_kmmlu_yaml", 5),
    "kmmlu-cot-hard": ("cot_hard/_cot_kmmlu_yaml", 5),
}
ELSEWHERE = {"simple-evals", "hret"}
TINY = make_tiny_tokenizer(chat=True)


@pytest.fixture(scope="module")
def law(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's law questions with five exemplars, in KMMLU's layout."""
    root = tmp_path_factory.mktemp("law")
    (root / "data").mkdir()
    texts = {
        split: (SAMPLE_DIR / "data" / f"Law-{split}.csv")
        .read_text(encoding="utf-8")
        .splitlines(keepends=True)
        for split in ("dev", "train", "test")
    }
    assert len(texts["dev"][1:] + texts["train"][1:4]) == 5
    (root / "data" / "Law-dev.csv").write_text("".join(texts["dev"] + texts["train"][1:4]), encoding="utf-8")
    (root / "data" / "Law-test.csv").write_text("".join(texts["test"]), encoding="utf-8")
    return root


def lm_eval_instances(file: str, shots: int, law: Path) -> Any:
    """The requests that lm-eval's own task makes of the first law question."""
    pytest.importorskip("lm_eval", reason="needs lm-eval (requirements/bench.txt)")
    import yaml
    from datasets import Features, Value
    from lm_eval import tasks
    from lm_eval.api.task import ConfigurableTask

    folder = Path(tasks.__file__).parent / "kmmlu"
    common = yaml.safe_load((folder / file).read_text(encoding="utf-8"))
    if file.startswith("cot_hard"):
        own = yaml.safe_load((folder / "cot_hard" / "kmmlu_cot_hard_law.yaml").read_text(encoding="utf-8"))
        common |= {name: own[name] for name in ("doc_to_text", "fewshot_config")}
    else:
        common["fewshot_config"] = {
            "sampler": "first_n"
        }  # it draws anew per question; we keep the file's order
    columns = ("question", "answer", "A", "B", "C", "D", "Category", "Human Accuracy")
    features = Features({name: Value("int64" if name == "answer" else "string") for name in columns})
    files = {split: str(law / "data" / f"Law-{split}.csv") for split in ("dev", "test")}
    common |= {"task": "law", "dataset_path": "csv", "dataset_name": None, "num_fewshot": shots}
    common["dataset_kwargs"] = {"data_files": files, "features": features}
    task = ConfigurableTask(config=common)
    task.build_all_requests(limit=1, rank=0, world_size=1)
    return task.instances


def our_prompt(protocol: str, dataset: Path | str = "sample") -> tuple[str, Any, Question]:
    argv = ["--model", "m", "--dataset", str(dataset), "--subjects", "Law", "--protocol", protocol]
    config = parse_config(EvalConfig, argv, "eval")
    (found,) = load_eval_questions(config)
    question = found.questions[0]
    style = choose_style(config, [], TINY)
    method, prompts, _, _ = choose_method(config, style, [question], found.exemplars, TINY)
    return prompts[0][0].text, method, question


def test_every_shipped_protocol_is_compared_with_its_source() -> None:
    assert set(IN_LM_EVAL) | ELSEWHERE == set(shipped_protocol_names())


@pytest.mark.parametrize("protocol", IN_LM_EVAL)
def test_lm_eval_renders_the_same_bytes(protocol: str, law: Path) -> None:
    instances = lm_eval_instances(*IN_LM_EVAL[protocol], law)
    text, method, question = our_prompt(protocol, law)
    assert question.question.strip() in instances[0].args[0]
    assert text == instances[0].args[0]
    if isinstance(method, MultipleChoice):
        delimiter = form_delimiter("lm-eval", method.style, TINY)
        assert [each.args[1] for each in instances] == [delimiter + letter for letter in question.letters]
    else:
        assert isinstance(method, GenerateUntil)
        kwargs = instances[0].args[1]
        assert list(method.stops) == kwargs["until"] and method.temperature == kwargs["temperature"] == 0.0
        assert method.max_tokens == kwargs.get("max_gen_toks", method.max_tokens)


@pytest.mark.parametrize(
    "text",
    [
        "차근차근 보면 따라서, 정답은 (B) 입니다.",
        "정답은 C입니다.",
        "정답은 D 이며 입니다. 정답은 (A)입니다.",
        "정답은 (E) 입니다.",
        "정답: B",
        "정답은\n(B) 입니다.",
        "",
    ],
)
def test_cot_hard_reads_letters_as_lm_eval_does(text: str) -> None:
    pytest.importorskip("lm_eval", reason="needs lm-eval (requirements/bench.txt)")
    import yaml
    from lm_eval import tasks
    from lm_eval.filters.extraction import RegexFilter

    path = Path(tasks.__file__).parent / "kmmlu" / IN_LM_EVAL["kmmlu-cot-hard"][0]
    common = yaml.safe_load(path.read_text(encoding="utf-8"))
    pattern = common["filter_list"][0]["filter"][0]["regex_pattern"]
    ((expected,),) = RegexFilter(regex_pattern=pattern).apply([[text]], [{}])
    assert read_letter("kmmlu-cot-hard", text) == (None if expected == "[invalid]" else expected)


def read_letter(protocol: str, text: str) -> str | None:
    _, method, question = our_prompt(protocol)
    (request,) = method.start(question, [[1]], None)
    found: str | None = method.finish(
        question, [Response(request, completions=(Completion(text, (1,), "stop"),))]
    ).prediction
    return found


HRET = (
    "다음은 객관식 문제입니다. 당신의 추론 과정을 간결하게 요약한 후, "
    '"따라서, 정답은: X"라고 결론지으십시오. 여기서 X는 (A), (B), (C), (D) 중 하나입니다.\n\n'
    "질문: {question}\nA. {choice_A}\nB. {choice_B}\nC. {choice_C}\nD. {choice_D}"
)


def test_hret_wording_byte_for_byte() -> None:
    # llm_eval/datasets/kmmlu.py: base_prompt_template; question and choices are stripped
    asked = Question(
        question_id="Law/test/0",
        subject="Law",
        supercategory="HUMSS",
        split="test",
        row=0,
        question=" 무엇인가?\n",
        options=(" 빨강", "노랑 ", "파랑", "하양"),
        answer="C",
    )
    expected = HRET.format(
        question="무엇인가?", choice_A="빨강", choice_B="노랑", choice_C="파랑", choice_D="하양"
    )
    rendered = render_prompt(asked, [], find_protocol("hret").style, TINY, reasoning=True)
    assert rendered.text == f"<|im_start|>user\n{expected}<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("짧게 보면 그렇다.\n따라서, 정답은: (B)", "B"),
        ("따라서, 정답은: **(c)** \n덧붙이면", "C"),
        ("답변:\n\n (B)\n", "B"),
        ("Final Answer: (d)", "D"),
        ("(D)", "D"),
        ("(D)\n정답: (A)", "A"),
        ("정답: A", None),
        ("정답은: (A)입니다", None),
        ("정답: X\n정답: (A)", None),
        ("(A)가 맞다", None),
        ("", None),
    ],
)
def test_hret_reads_the_line_after_the_first_marker(text: str, letter: str | None) -> None:
    assert read_letter("hret", text) == letter
