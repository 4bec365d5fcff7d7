"""The HTTP engine: against a pretended vLLM server (seconds), and against a real one on a tiny
model (marker ``engine``).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import engine_cases
import httpx
import pytest

from kmmlu_fast.core.errors import AdapterError, ConfigError, EngineError
from kmmlu_fast.core.schema import (
    Adapter,
    Candidates,
    Continuation,
    Generation,
    Prediction,
    Request,
    Response,
)
from kmmlu_fast.engines.server.client import check_base_url
from kmmlu_fast.engines.server.completions import NEUTRAL_SAMPLING
from kmmlu_fast.engines.server.engine import ServerEngine
from kmmlu_fast.eval import run_eval_command
from kmmlu_fast.runs.store import RunStore, load_run_directory

URL = "http://server.test:8000/v1"
KEY = "sk-never-written-anywhere"


class PretendedServer:
    """The parts of ``vllm serve`` that are used. ``faults`` are statuses (or exceptions) given
    before an answer, in turn.
    """

    def __init__(
        self,
        models: tuple[str, ...] = ("tiny",),
        adapters: tuple[str, ...] = (),
        loads: bool = False,
        exact: bool = True,
        joined: bool = True,
    ) -> None:
        self.cards = [
            {"id": name, "root": f"/models/{name}", "parent": None, "max_model_len": 100} for name in models
        ]
        self.cards += [{"id": name, "root": f"/adapters/{name}", "parent": models[0]} for name in adapters]
        self.loads, self.exact, self.joined = loads, exact, joined
        self.faults: list[int | Exception | httpx.Response] = []
        self.requests: list[httpx.Request] = []
        self.bodies: list[dict[str, Any]] = []
        self.now, self.most = 0, 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"object": "list", "data": self.cards})
        body = json.loads(request.content)
        if request.url.path == "/v1/load_lora_adapter":
            if not self.loads:
                return httpx.Response(404, json={"detail": "Not Found"})
            self.cards.append({"id": body["lora_name"], "root": body["lora_path"], "parent": "tiny"})
            return httpx.Response(200, text="Success")
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0)
            return self._complete(body)
        finally:
            self.now -= 1

    def _complete(self, body: dict[str, Any]) -> httpx.Response:
        if self.faults:
            fault = self.faults.pop(0)
            if isinstance(fault, Exception):
                raise fault
            if isinstance(fault, httpx.Response):
                return fault
            return httpx.Response(fault, json={"error": {"message": "as the test wants it"}})
        if body["model"] not in {card["id"] for card in self.cards}:
            return httpx.Response(
                404, json={"error": {"message": f"The model `{body['model']}` does not exist."}}
            )
        self.bodies.append(body)
        prompts = body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]
        samples = body.get("n", 1)
        choices = [
            {**self._choice(body, prompt), "index": place * samples + sample}
            for place, prompt in enumerate(prompts if self.joined else prompts[:1])
            for sample in range(samples)
        ]
        usage = {
            "completion_tokens": 2 * len(prompts),
            "prompt_tokens_details": {"cached_tokens": 3 * len(prompts)},
        }
        return httpx.Response(200, json={"choices": choices[::-1], "usage": usage})

    def _choice(self, body: dict[str, Any], prompt: list[int]) -> dict[str, Any]:
        draw = random.Random(repr((prompt, body["model"])))
        choice: dict[str, Any] = {
            "text": f"{body['model']}:{len(prompt)}",
            "finish_reason": "stop",
            "token_ids": [7, 8],
        }
        if "logprob_token_ids" in body and self.exact:
            choice["logprobs"] = {
                "top_logprobs": [
                    {f"token_id:{i}": -draw.uniform(0, 5) for i in [*body["logprob_token_ids"], 99]}
                ]
            }
        elif "logprob_token_ids" in body:
            choice["logprobs"] = {"top_logprobs": [{" A": -0.1, " the": -3.0}]}
        if "prompt_logprobs" in body:
            tokens = [{str(token): {"logprob": -0.5 * index}} for index, token in enumerate(prompt)]
            choice["prompt_logprobs"] = [None, *tokens[1:]]
        return choice


@pytest.fixture
def opened() -> Iterator[Callable[..., ServerEngine]]:
    engines: list[ServerEngine] = []

    def open_engine(
        server: PretendedServer, names: tuple[str, ...] = ("tiny",), **options: Any
    ) -> ServerEngine:
        options = {"attempts": 3, "first_wait_sec": 0.001} | options
        engines.append(ServerEngine(URL, names, transport=httpx.MockTransport(server), **options))
        return engines[-1]

    yield open_engine
    for engine in engines:
        engine.close()


def letters(number: int, adapter: Adapter | None = None) -> Request:
    wanted = Candidates((10, 11, 12, 13))
    return Request(
        question_id=f"Invented/test/{number}",
        stage="letters",
        token_ids=(1, 2, number),
        want=wanted,
        adapter=adapter,
    )


def adapter(name: str = "lora") -> Adapter:
    return Adapter(name=name, path=Path(f"/adapters/{name}"), adapter_id=1, rank=4, digest="")


def test_letters_come_back_in_the_order_of_the_candidates(opened: Any) -> None:
    server = PretendedServer()
    request = replace(letters(5), want=Candidates((13, 10, 12, 11)))
    [response] = opened(server).generate([request])
    draw = random.Random(repr(([1, 2, 5], "tiny")))
    assert response.logprobs == tuple(-draw.uniform(0, 5) for _ in range(4))
    assert response.request == request and response.cached_tokens == 3


def test_generation_asks_for_what_vllm_in_process_does(opened: Any) -> None:
    server = PretendedServer()
    text = Generation(
        max_tokens=9,
        num_samples=3,
        temperature=0.7,
        top_p=0.9,
        seed=8,
        stop=("\n",),
        include_stop=True,
        stop_ids=(7, 4),
        keep_special=True,
    )
    [response] = opened(server).generate(
        [Request(question_id="Invented/test/1", stage="reason", token_ids=(4, 5), want=text)]
    )
    assert server.bodies[-1] == {
        "model": "tiny",
        "prompt": [4, 5],
        "return_token_ids": True,
        "max_tokens": 9,
        "n": 3,
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 8,
        "stop": ["\n"],
        "include_stop_str_in_output": True,
        "stop_token_ids": [7, 4],
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
        **NEUTRAL_SAMPLING,
    }
    assert [c.token_ids for c in response.completions] == [(7, 8)] * 3 and response.completions[
        0
    ].finish_reason == "stop"


def test_a_models_own_sampling_reaches_the_server(opened: Any) -> None:
    server = PretendedServer()
    text = Generation(max_tokens=9, temperature=0.6, top_p=0.95, top_k=20, min_p=0.05)
    request = Request(question_id="Invented/test/1", stage="reason", token_ids=(4, 5), want=text)
    list(opened(server).generate([request]))
    body = server.bodies[-1]
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (20, 0.05, 1.0)


def test_continuation_sums_the_last_prompt_tokens(opened: Any) -> None:
    [response] = opened(PretendedServer()).generate(
        [Request(question_id="Invented/test/1", stage="A", token_ids=(4, 5, 6, 7), want=Continuation(2))]
    )
    assert response.logprobs == (-0.5 * 2 + -0.5 * 3,)


def test_pulls_lazily_and_keeps_to_the_concurrency(opened: Any) -> None:
    server = PretendedServer()
    pulled = []

    def source() -> Iterator[Request]:
        for number in range(50):
            pulled.append(number)
            yield letters(number)

    stream = opened(server, concurrency=4).generate(source())
    for count, _ in enumerate(stream, start=1):
        assert len(pulled) <= count + 4
    assert count == 50 and server.most <= 4


def prompts_of(body: dict[str, Any]) -> list[list[int]]:
    return body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]


def test_letters_travel_together_and_each_gets_its_own(opened: Any) -> None:
    server = PretendedServer(adapters=("lora",))
    lora = Adapter(name="lora", path=Path("lora"), adapter_id=1, rank=4, digest="")
    requests = [letters(n, lora if n >= 21 else None) for n in range(40)]
    engine = opened(server, adapters=[lora])
    before = len(server.bodies)
    responses = {response.request.key: response for response in engine.generate(requests)}
    sizes = [len(prompts_of(body)) for body in server.bodies[before:]]
    assert sorted(sizes) == [3, 5, 8, 8, 8, 8]  # no call holds two models' prompts: 8+8+5 and 8+8+3
    assert len(responses) == 40
    for request in requests:
        draw = random.Random(
            repr((list(request.token_ids), request.adapter.name if request.adapter else "tiny"))
        )
        assert responses[request.key].logprobs == tuple(-draw.uniform(0, 5) for _ in range(4))
        assert responses[request.key].cached_tokens == 3
    assert engine.stats()["output_tokens"] == 80 and engine.stats()["cached_tokens"] == 120


def test_texts_travel_alone_and_fewer_are_in_flight(opened: Any) -> None:
    server, pulled = PretendedServer(), []

    def texts(count: int) -> Iterator[Request]:
        for n in range(count):
            pulled.append(n)
            yield Request(
                question_id=f"Invented/test/{n}",
                stage="reason",
                token_ids=(1, n),
                want=Generation(max_tokens=5),
            )

    engine = opened(server)
    before = len(server.bodies)
    stream = engine.generate(texts(200))
    next(stream)
    assert len(pulled) <= 64 + 2
    list(stream)
    assert [len(prompts_of(body)) for body in server.bodies[before:]] == [1] * 200 and server.most <= 64
    pulled.clear()
    stream = engine.generate(map(letters, range(2000)))
    next(stream)
    assert server.most <= 64  # 512 requests in 64 calls
    stream.close()


def test_a_server_that_answers_one_prompt_a_call_is_asked_so(opened: Any) -> None:
    server = PretendedServer(joined=False)
    engine = opened(server)
    before = len(server.bodies)
    assert len(list(engine.generate(map(letters, range(20))))) == 20
    assert [len(prompts_of(body)) for body in server.bodies[before:]] == [1] * 20


@pytest.mark.parametrize("spoil", ["missing", "doubled"])
def test_an_answer_for_other_prompts_than_were_sent_is_an_error(opened: Any, spoil: str) -> None:
    server = PretendedServer()
    engine = opened(server)
    complete = server._complete

    def wrong(body: dict[str, Any]) -> httpx.Response:
        answer = complete(body).json()
        chosen = answer["choices"]
        answer["choices"] = chosen[1:] if spoil == "missing" else [*chosen[1:], chosen[1]]
        return httpx.Response(200, json=answer)

    server._complete = wrong  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="without the requested values"):
        list(engine.generate(map(letters, range(8))))


def test_follow_ups_join_and_are_counted(opened: Any) -> None:
    def follow_up(response: Response) -> list[Request]:
        if response.request.stage != "reason":
            return []
        tokens = response.request.token_ids + response.completions[0].token_ids
        return [
            replace(response.request, stage=f"forced-{i}", token_ids=tokens, want=Candidates((10, 11)))
            for i in range(2)
        ]

    requests = [
        Request(
            question_id=f"Invented/test/{n}", stage="reason", token_ids=(1, n), want=Generation(max_tokens=5)
        )
        for n in range(6)
    ]
    responses = list(opened(PretendedServer(), concurrency=2).generate(requests, follow_up))
    assert len(responses) == 18 and len({r.request.key for r in responses}) == 18
    assert sum(r.followed_by for r in responses) == 12
    assert {r.request.token_ids[2:] for r in responses if r.request.stage != "reason"} == {(7, 8)}


def test_adapters_are_asked_under_their_own_name(opened: Any) -> None:
    server = PretendedServer(adapters=("lora",))
    responses = list(opened(server, adapters=[adapter()]).generate([letters(1), letters(1, adapter())]))
    base, tuned = sorted(responses, key=lambda r: bool(r.request.adapter))
    assert base.logprobs != tuned.logprobs
    assert {body["model"] for body in server.bodies} == {"tiny", "lora"}


def test_adapters_are_loaded_where_the_server_allows_it_and_again_after_a_restart(opened: Any) -> None:
    server = PretendedServer(loads=True)
    engine = opened(server, adapters=[adapter()])
    assert [card["id"] for card in server.cards] == ["tiny", "lora"]
    del server.cards[1]  # as after a restart
    [response] = engine.generate([letters(1, adapter())])
    assert response.logprobs and [card["id"] for card in server.cards] == ["tiny", "lora"]


@pytest.mark.parametrize(
    "fault",
    [
        429,
        500,
        502,
        503,
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("late"),
        httpx.RemoteProtocolError("cut"),
    ],
)
def test_transient_faults_are_retried_and_nothing_is_missing_or_doubled(opened: Any, fault: Any) -> None:
    server = PretendedServer()
    engine = opened(server, concurrency=3)
    server.faults = [fault, fault]
    responses = list(engine.generate([letters(n) for n in range(9)]))
    assert sorted(r.request.token_ids[2] for r in responses) == list(range(9))
    assert engine.stats()["retries"] == 2 and engine.stats()["requests"] == 9


def test_a_lasting_fault_ends_in_one_line_that_says_how_to_continue(opened: Any) -> None:
    server = PretendedServer()
    engine = opened(server, concurrency=1, attempts=4)
    stream = engine.generate([letters(n) for n in range(5)])
    first = next(stream)
    server.faults = [503] * 50
    with pytest.raises(
        EngineError, match=r"status 503, after 4 attempts.*same command to continue"
    ) as caught:
        list(stream)
    assert first.logprobs and "\n" not in str(caught.value)
    server.faults = []
    assert len(list(engine.generate([letters(n) for n in range(1, 5)]))) == 4  # the same engine goes on


def test_a_wait_that_the_server_names_is_kept(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    real_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        if seconds:
            waits.append(seconds)
        await real_sleep(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    server = PretendedServer()
    engine = opened(server)
    server.faults = [httpx.Response(429, headers={"retry-after": "7"})]
    assert len(list(engine.generate([letters(1)]))) == 1
    assert max(waits) == 7.0


@pytest.mark.parametrize(
    ("server", "names", "adapters", "kind", "says"),
    [
        (
            PretendedServer(models=("other",)),
            ("tiny",),
            (),
            EngineError,
            r"serves 'other', not 'tiny'.*--served-model-name tiny",
        ),
        (
            PretendedServer(adapters=("tiny-lora",)),
            ("tiny-lora",),
            (),
            EngineError,
            r"serves 'tiny', not 'tiny-lora'",
        ),
        (
            PretendedServer(),
            ("tiny",),
            ("lora",),
            AdapterError,
            r"adapter 'lora'.*--lora-modules lora=/adapters/lora.*RUNTIME_LORA",
        ),
        (
            PretendedServer(models=("tiny", "lora")),
            ("tiny",),
            ("lora",),
            AdapterError,
            r"name of a served base model",
        ),
        (PretendedServer(exact=False), ("tiny",), (), EngineError, r"ignores logprob_token_ids.*vllm serve"),
    ],
)
def test_a_server_that_does_not_fit_is_refused_before_the_run(
    opened: Any,
    server: PretendedServer,
    names: tuple[str, ...],
    adapters: tuple[str, ...],
    kind: type[Exception],
    says: str,
) -> None:
    with pytest.raises(kind, match=says):
        opened(server, names, adapters=[adapter(name) for name in adapters])
    assert not [t for t in threading.enumerate() if t.name == "kmmlu-server-engine"]


def test_an_adapter_of_the_same_name_and_other_weights_is_refused(opened: Any, tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    (tmp_path / "adapter_config.json").write_bytes(b"{}")
    server = PretendedServer(adapters=("lora",))
    server.cards[1]["root"] = str(tmp_path)
    digest = hashlib.sha256(b"weights{}").hexdigest()[:16]
    opened(server, adapters=[replace(adapter(), digest=digest)])
    with pytest.raises(AdapterError, match="other weights"):
        opened(server, adapters=[replace(adapter(), digest="0" * 16)])


def test_the_model_may_be_named_by_its_path(opened: Any, tmp_path: Path) -> None:
    server = PretendedServer()
    server.cards[0]["root"] = str(tmp_path)
    assert opened(server, ("demo", str(tmp_path))).stats()["served_model"] == "tiny"


def test_prompts_that_do_not_fit_the_server_are_refused_by_name(opened: Any) -> None:
    request = Request(
        question_id="Invented/test/3",
        stage="reason",
        token_ids=tuple(range(95)),
        want=Generation(max_tokens=6),
    )
    with pytest.raises(EngineError, match=r"Invented/test/3#reason: 95 prompt tokens \+ 6.*--max-model-len"):
        list(opened(PretendedServer()).generate([request]))


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "OPENAI_API_KEY"),
        (403, "OPENAI_API_KEY"),
        (400, "as the test wants it"),
        (404, "no longer serves"),
    ],
)
def test_lasting_refusals_are_not_retried(opened: Any, status: int, says: str) -> None:
    server = PretendedServer()
    engine = opened(server)
    server.faults = [status]
    with pytest.raises(EngineError, match=says):
        list(engine.generate([letters(1)]))
    assert engine.stats()["retries"] == 0


def test_an_answer_without_the_letters_is_an_error_not_a_guess(opened: Any) -> None:
    server = PretendedServer()
    engine = opened(server)
    server.exact = False
    with pytest.raises(EngineError, match=r"Invented/test/1#letters without the requested values"):
        list(engine.generate([letters(1)]))


def test_the_key_is_sent_and_shown_nowhere(
    opened: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(0)
    server = PretendedServer()
    engine = opened(server)
    list(engine.generate([letters(1)]))
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}"}
    server.faults = [401]
    with pytest.raises(EngineError) as caught:
        list(engine.generate([letters(2)]))
    inside = repr(vars(engine)) + repr(vars(engine._client))
    shown = "".join([str(caught.value), repr(engine), inside, json.dumps(engine.stats()), caplog.text])
    assert KEY not in shown


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://me:secret@host/v1", "must not contain"),
        ("host:8000/v1", "not an http"),
        ("http://host:port/v1", "Port"),
        ("http://host/v1?k=1", "not an http"),
    ],
)
def test_addresses_that_cannot_be_or_hold_secrets_are_refused(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        check_base_url(url)
    assert "secret" not in str(caught.value)
    assert check_base_url("https://host/v1/") == "https://host/v1"


def test_leaving_the_stream_leaves_the_engine_usable(opened: Any) -> None:
    engine = opened(PretendedServer(), concurrency=4)
    stream = engine.generate([letters(n) for n in range(20)])
    next(stream)
    stream.close()
    assert len(list(engine.generate([letters(n) for n in range(20)]))) == 20


@pytest.fixture(scope="module")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[engine_cases.Server]:
    server = engine_cases.Server(engine_cases.files(tmp_path_factory))
    server.start()
    yield server
    server.kill()


@pytest.mark.engine
@pytest.mark.alone
def test_a_real_server_gives_the_in_process_answers(real_server: engine_cases.Server) -> None:
    files = real_server.files
    engine = ServerEngine(real_server.base_url, [str(files.model)], [files.adapter], concurrency=16)
    responses = list(engine_cases.ask(engine, files))
    engine_cases.assert_same(responses, engine_cases.in_process(files))
    assert engine.stats()["cached_tokens"] > 0
    engine.close()


@pytest.mark.engine
@pytest.mark.alone
def test_the_server_killed_in_the_middle_and_started_again(real_server: engine_cases.Server) -> None:
    files = real_server.files
    engine = ServerEngine(
        real_server.base_url, [str(files.model)], [files.adapter], concurrency=8, attempts=40
    )
    stream = engine_cases.ask(engine, files)
    responses = [next(stream) for _ in range(10)]
    real_server.kill()
    restart = threading.Thread(target=real_server.start)
    restart.start()
    responses += stream
    restart.join()
    engine_cases.assert_same(responses, engine_cases.in_process(files))
    assert engine.stats()["retries"] > 0
    engine.close()


@pytest.mark.engine
@pytest.mark.alone
def test_a_real_server_refuses_what_it_lacks(real_server: engine_cases.Server, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="not 'another/model'"):
        ServerEngine(real_server.base_url, ["another/model"], attempts=2)
    missing = Adapter(name="missing", path=tmp_path / "missing", adapter_id=2, rank=4, digest="")
    with pytest.raises(AdapterError, match="cannot load adapter 'missing'"):
        ServerEngine(real_server.base_url, [str(real_server.files.model)], [missing], attempts=2)
    assert os.environ.get("OPENAI_API_KEY") is None


@pytest.mark.engine
@pytest.mark.alone
def test_a_run_whose_server_died_is_continued_by_the_same_command(
    real_server: engine_cases.Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = real_server.files
    flags = [
        *engine_cases.flags(files, tmp_path),
        "--engine",
        "server",
        "--base-url",
        real_server.base_url,
        "--concurrency",
        "4",
    ]
    monkeypatch.setattr("kmmlu_fast.engines.server.client.ATTEMPTS", 2)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    append = RunStore.append

    def append_and_kill(store: RunStore, prediction: Prediction) -> None:
        append(store, prediction)
        if len(store._buffer) == 20:
            real_server.kill()

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "append", append_and_kill)
        assert run_eval_command(flags) == 2
    stderr = capsys.readouterr().err
    assert "run the same command to continue" in stderr and "Traceback" not in stderr
    real_server.start()
    assert run_eval_command(flags) == 0
    assert "of 45 questions were answered before" in capsys.readouterr().err
    runs = [
        load_run_directory(path.parent)
        for path in sorted(tmp_path.glob("*/metrics.json"), key=lambda path: "base" not in path.parent.name)
    ]
    engine_cases.assert_same_predictions(runs, files)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
