"""``watch`` in real transformers and TRL trainers, on a tiny model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny

from kmmlu_fast import watch
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Candidates
from kmmlu_fast.integrations.look_schedule import LookSchedule
from kmmlu_fast.integrations.watch import Watch
from kmmlu_fast.runs.comparison_log import read_comparison_log

pytestmark = [pytest.mark.engine, pytest.mark.alone]

STEPS = 12
PROMPTS = [
    "빈 종이에 적힌 첫 글자는 무엇인가?\n정답：",
    "바람이 부는 쪽의 이름을 고르시오.\n정답：",
    "다음 중 고르시오.\n정답：",
]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_tiny_model(tmp_path_factory.mktemp("watched") / "model")


def make_trainer(
    model_path: Path, out: Path, *, rate: float = 1e-3, steps: int = STEPS, save_strategy: str = "no"
) -> Any:
    """A transformers Trainer that learns to answer everything with one letter."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(model_path)
    ids = [tokenizer(prompt + " B")["input_ids"] for prompt in PROMPTS]
    rows = [{"input_ids": row, "labels": [-100] * (len(row) - 1) + row[-1:]} for row in ids]
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        learning_rate=rate,
        logging_steps=1,
        save_strategy=save_strategy,
        save_steps=4,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=1,
    )
    return Trainer(
        model=AutoModelForCausalLM.from_pretrained(model_path),
        args=arguments,
        train_dataset=Dataset.from_list(rows * 8),
        processing_class=tokenizer,
    )


def follow(trainer: Any, **settings: Any) -> Watch:
    return watch(trainer, dataset="sample", **{"questions": 120, "every": 4, **settings})


def test_the_curve_is_logged_and_the_training_is_left_as_it_was(model_path: Path, tmp_path: Path) -> None:
    import torch

    plain = make_trainer(model_path, tmp_path / "plain")
    plain.train()
    watched = make_trainer(model_path, tmp_path / "watched")
    watching = follow(watched)
    watched.train()
    for (name, one), other in zip(plain.model.named_parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(one, other), name
    assert [look.step for look in watching.looks] == [0, 4, 8, 12]
    logged = [entry for entry in watched.state.log_history if "kmmlu/accuracy" in entry]
    assert [entry["step"] for entry in logged] == [0, 4, 8, 12]
    assert "kmmlu/difference" not in logged[0]
    assert (
        logged[1]["kmmlu/difference_low"]
        <= logged[1]["kmmlu/difference"]
        <= logged[1]["kmmlu/difference_high"]
    )
    assert all(0 < entry["kmmlu/letter_mass"] < 1 for entry in logged)
    assert logged[3]["forgetting/loss_ko"] > 0 and logged[3]["kmmlu/questions"] == 120
    losses = [entry["loss"] for entry in watched.state.log_history if "loss" in entry]
    assert len(losses) == STEPS


def test_a_look_equals_eval_of_the_saved_weights(model_path: Path, tmp_path: Path) -> None:
    from kmmlu_fast import evaluate

    trainer = make_trainer(model_path, tmp_path / "out", rate=3e-4)
    watching = follow(trainer, questions=180, every=STEPS)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    (run,) = evaluate(
        model=str(tmp_path / "saved"),
        dataset="sample",
        split="train",
        engine="transformers",
        dtype="float32",
        output_dir=tmp_path / "runs",
    )
    assert watching.looks[-1].questions == len(run.frame)
    mass = (run.frame["spaced_mass"] + run.frame["bare_mass"]).mean()
    assert watching.looks[-1].letter_mass == pytest.approx(mass, rel=1e-3)
    near_ties = int((run.frame["margin"] < 1e-3).sum())
    assert abs(watching.looks[-1].accuracy - run.micro) * len(run.frame) <= near_ties
    for letter, share in watching.looks[-1].letter_share.items():
        here = (run.frame["prediction"] == letter).sum() / len(run.frame)
        assert abs(share - here) * len(run.frame) <= near_ties


def test_the_start_is_looked_at_once_a_step_is_timed(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a share of the time: the weights of step 0 are asked after three steps, and nothing is changed."""
    import torch

    # so short a training has no time for 40 questions
    monkeypatch.setattr(LookSchedule, "question_count", lambda self, wanted, *timing, **more: wanted)

    trainers = {
        name: make_trainer(model_path, tmp_path / name, rate=3e-3) for name in ("plain", "every", "share")
    }
    every = follow(trainers["every"], questions=40)
    share = watch(trainers["share"], dataset="sample", share_of_time=0.9, questions=40)
    for trainer in trainers.values():
        trainer.train()
    assert (share.looks[0].step, share.looks[0].questions) == (0, 40)
    assert share.looks[0].accuracy == every.looks[0].accuracy
    assert share.looks[0].letter_mass == every.looks[0].letter_mass != every.looks[-1].letter_mass
    plain = dict(trainers["plain"].model.named_parameters())
    for name, weights in trainers["share"].model.named_parameters():
        assert torch.equal(weights, plain[name]), name
    logged = [entry["step"] for entry in trainers["share"].state.log_history if "kmmlu/accuracy" in entry]
    assert logged[0] == 3
    assert "watch: kmmlu at step 0: accuracy" in capsys.readouterr().err


def test_prompt_tuning_is_read_at_the_prompts_end(model_path: Path, tmp_path: Path) -> None:
    """PEFT puts virtual tokens before the prompt: positions move by their number."""
    import torch
    from peft import PromptTuningConfig, get_peft_model

    trainer = make_trainer(model_path, tmp_path)
    torch.manual_seed(0)
    plain = trainer.model
    model = get_peft_model(plain, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=20))
    trainer.model = model
    watching = follow(trainer, questions=40)
    item = watching._asked.items[0]
    (request,) = watching._asked.requests(0, 1)
    (response,) = watching._model.ask([request])
    assert isinstance(request.want, Candidates)
    with torch.no_grad():
        logits = model.eval()(input_ids=torch.tensor(item.token_id_lists())).logits[0, -1]
    expected = logits.float().log_softmax(-1)[list(request.want.token_ids)]
    assert list(response.logprobs) == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_planted_collapse_is_stopped_within_two_looks(model_path: Path, tmp_path: Path) -> None:
    trainer = make_trainer(model_path, tmp_path, rate=3e-2, steps=40)
    watching = follow(trainer, every=2, stop_when="collapsed")
    trainer.train()
    collapsed = next(look.step for look in watching.looks if look.letter_share.get("B", 0) > 0.6)
    assert trainer.state.global_step <= collapsed + 2 < 40
    assert "collapsed onto one letter" in watching.stopped


def test_a_resumed_training_is_still_compared_with_step_0(model_path: Path, tmp_path: Path) -> None:
    whole = make_trainer(model_path, tmp_path / "whole")
    expected = follow(whole)
    whole.train()
    first = make_trainer(model_path, tmp_path / "out", save_strategy="steps")
    follow(first)
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = state.global_step == 4

    first.add_callback(Stop())
    first.train()
    second = make_trainer(model_path, tmp_path / "out", save_strategy="steps")
    watching = follow(second)
    second.train(resume_from_checkpoint=True)
    assert [look.number for look in watching.looks] == [2, 3]
    assert watching.looks[-1].difference == expected.looks[-1].difference


def test_questions_that_are_trained_on_are_left_out(model_path: Path, tmp_path: Path) -> None:
    from datasets import Dataset

    from kmmlu_fast.data import dataset

    trainer = make_trainer(model_path, tmp_path)
    chosen = dataset.permute_questions(dataset.load_questions("sample", "train"), 42)[:30]
    messages = [[{"role": "user", "content": "\n".join((q.question, *q.options))}] for q in chosen]
    trainer.train_dataset = Dataset.from_dict({"messages": messages})
    watching = follow(trainer, questions=100)
    assert not {q.question_id for q in chosen} & set(watching._asked.question_ids)
    assert any("30 questions are left out" in note for note in watching.notes)


def test_share_of_time_is_kept_or_nothing_is_asked(model_path: Path, tmp_path: Path) -> None:
    trainer = make_trainer(model_path, tmp_path, steps=2)
    watching = watch(trainer, dataset="sample", share_of_time=0.001)
    trainer.train()
    assert watching.looks == [] and "too short to be watched" in watching.notes[-1]


def test_looks_at_test_are_counted(model_path: Path, tmp_path: Path) -> None:
    trainer = make_trainer(model_path, tmp_path / "out", steps=4)
    with pytest.raises(ConfigError, match="split='test' needs base_run"):
        follow(trainer, split="test")
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.json").write_text("{}")
    follow(trainer, split="test", base_run=run, every=2)
    trainer.train()
    log = read_comparison_log(run)
    assert [entry.name for entry in log] == ["watch at step 2", "watch at step 4"]
    assert log[1].level < log[0].level


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"questions": 5}, "questions=5 is too few"),
        ({"share_of_time": 5.0}, "share_of_time=5.0 is not between 0 and 1"),
        ({"every": 0}, "every=0 is not a number of steps"),
        ({"stop_when": "bad"}, "stop_when='bad'"),
        ({"exam": "nothing-of-the-kind"}, "nothing-of-the-kind"),
    ],
)
def test_wrong_settings_are_refused(
    model_path: Path, tmp_path: Path, settings: dict[str, Any], fault: str
) -> None:
    trainer = make_trainer(model_path, tmp_path)
    with pytest.raises(ConfigError, match=fault):
        follow(trainer, **settings)


def test_what_is_not_a_trainer_is_refused() -> None:
    with pytest.raises(ConfigError, match="a SimpleNamespace is not a trainer"):
        watch(SimpleNamespace(), dataset="sample")


def make_lora_trainer(model_path: Path, out: Path, rate: float) -> Any:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    torch.manual_seed(0)  # LoRA draws its weights when the trainer is made
    rows = [{"prompt": prompt, "completion": " B"} for prompt in PROMPTS] * 8
    arguments = SFTConfig(
        output_dir=str(out),
        max_steps=8,
        per_device_train_batch_size=1,
        learning_rate=rate,
        logging_steps=4,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        model_init_kwargs={"dtype": "float32"},
    )
    lora = LoraConfig(r=4, target_modules=list(tiny.TARGET_MODULES), task_type="CAUSAL_LM")
    return SFTTrainer(
        model=str(model_path), args=arguments, train_dataset=Dataset.from_list(rows), peft_config=lora
    )


def test_trl_keeps_its_own_averages(model_path: Path, tmp_path: Path) -> None:
    """TRL averages metrics between its log entries; a look in between neither takes nor resets them."""
    plain, watched = (make_lora_trainer(model_path, tmp_path / name, 1e-3) for name in ("plain", "watched"))
    looks = follow(watched, every=2, questions=40)
    for trainer in (plain, watched):
        trainer.train()
    assert [look.step for look in looks.looks] == [0, 2, 4, 6, 8]
    entries = [
        [entry for entry in trainer.state.log_history if "loss" in entry] for trainer in (plain, watched)
    ]
    names = {"loss", "mean_token_accuracy", "num_tokens"} & set(entries[0][0])
    assert len(names) >= 2 and len(entries[0]) == 2
    for one, other in zip(*entries, strict=True):
        assert {name: one[name] for name in names} == {name: other[name] for name in names}
