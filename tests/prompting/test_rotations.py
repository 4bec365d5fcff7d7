"""rotations: options that name positions are asked once, as they stand."""

from types import SimpleNamespace
from typing import Any

from kmmlu_fast.core.schema import Question, Response
from kmmlu_fast.prompting.rotations import Rotations


class Inner:
    """Prompts are the options' texts; the letter of the option "x" is read."""

    def render(self, question: Question, exemplars: Any, tokenizer: Any) -> list[Any]:
        return [SimpleNamespace(text="|".join(question.options))]

    def start(self, question: Question, token_ids: list[list[int]], adapter: Any) -> list[Any]:
        from kmmlu_fast.core.schema import Candidates, Request

        return [
            Request(
                question_id=question.question_id,
                stage="letters",
                token_ids=tuple(token_ids[0]),
                want=Candidates((1, 2, 3, 4)),
                adapter=adapter,
            )
        ]

    def finish(self, question: Question, responses: list[Response]) -> Any:
        from kmmlu_fast.core.schema import Prediction

        place = responses[0].request.token_ids[0]
        values: dict[str, Any] = {
            f"logprob_{letter}": 0.0 if i == place else -5.0 for i, letter in enumerate("ABCD")
        }
        return Prediction(
            question_id=question.question_id,
            subject=question.subject,
            supercategory=question.supercategory,
            split=question.split,
            row=question.row,
            answer=question.answer,
            prediction="ABCD"[place],
            correct="ABCD"[place] == question.answer,
            read_by="loglikelihood",
            prompt_tokens=1,
            **values,
        )


def question(*options: str) -> Question:
    return Question(
        question_id="Law/test/0",
        subject="Law",
        supercategory="HUMSS",
        split="test",
        row=0,
        question="?",
        options=options,
        answer="D",
    )


def test_options_that_name_positions_are_not_turned() -> None:
    bound, free = question("하나", "둘", "셋", "위의 모두"), question("하나", "둘", "셋", "넷")
    method = Rotations(Inner(), 4)  # type: ignore[arg-type]
    assert [prompt.text for prompt in method.render(bound, [], None)] == ["하나|둘|셋|위의 모두"]
    assert len(method.render(free, [], None)) == 4
    requests = method.start(bound, [[3]], None)
    assert [request.stage for request in requests] == ["rotation-0/letters"]
    found = method.finish(bound, [Response(requests[0])])
    assert found.prediction == found.debiased_prediction == "D" and found.prompt_tokens == 1


def test_a_letter_that_is_chosen_whatever_stands_there_is_debiased() -> None:
    free = question("하나", "둘", "셋", "넷")
    method = Rotations(Inner(), 4)  # type: ignore[arg-type]
    requests = method.start(free, [[0], [0], [0], [0]], None)  # always A
    found = method.finish(free, [Response(request) for request in requests])
    assert found.prediction == "A" and found.debiased_logprobs is not None
    assert max(found.debiased_logprobs) - min(found.debiased_logprobs) < 1e-9  # nothing of the habit is left
