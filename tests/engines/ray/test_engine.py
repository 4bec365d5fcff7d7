"""The Ray engine: the replica by itself (seconds); real Ray with pretended and with real vLLM
engines (marker ``engine``).
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import engine_cases
import pytest

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.core.schema import Candidates, Completion, Generation, Request, Response
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.engines.protocol import FollowUp
from kmmlu_fast.engines.ray.engine import RayEngine
from kmmlu_fast.engines.ray.replica import Replica
from kmmlu_fast.engines.vllm.engine import VllmEngine
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.session import run_evaluation

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def letters(count: int, first: int = 0) -> list[Request]:
    return [
        Request(
            question_id=f"Invented/test/{n}",
            stage="letters",
            token_ids=(n, n + 1),
            want=Candidates((1, 2, 3, 4)),
        )
        for n in range(first, first + count)
    ]


def ask_again(response: Response) -> list[Request]:
    """Two letters requests after each generation, and one more after the first of them."""
    request = response.request
    if request.stage == "reason":
        letters = Candidates((1, 2, 3, 4))
        return [replace(request, stage=f"forced-{i}", want=letters) for i in range(2)]
    return [replace(request, stage="again")] if request.stage == "forced-0" else []


class WaitingEngine(FakeEngine):
    """Says in ``diary`` what it was asked, and by which process; after 20 answers it waits
    until ``gate`` exists.
    """

    def __init__(self, diary: Path, gate: Path) -> None:
        super().__init__()
        self._diary, self._gate = diary, gate

    def generate(self, requests: Iterable[Request], follow_up: FollowUp | None = None) -> Iterator[Response]:
        for count, response in enumerate(super().generate(requests, follow_up), start=1):
            with self._diary.open("a") as diary:
                diary.write(f"{os.getpid()} {response.request.key}\n")
            while count == 20 and not self._gate.exists():
                time.sleep(0.01)
            yield response


class FailingEngine(FakeEngine):
    def generate(self, requests: Iterable[Request], follow_up: FollowUp | None = None) -> Iterator[Response]:
        yield from ()
        raise EngineError("no memory left; lower --max-num-seqs")


def refuse() -> FakeEngine:
    raise EngineError("this model cannot be served")


def by_key(responses: Iterable[Response]) -> list[Response]:
    return sorted(responses, key=lambda response: response.request.key)


# The replica by itself: an ordinary object, called from threads as Ray does


def test_replica_returns_blocks_whole_with_their_follow_ups() -> None:
    replica = Replica(FakeEngine)
    requests = [
        Request(
            question_id=f"Invented/test/{n}", stage="reason", token_ids=(n,), want=Generation(max_tokens=4)
        )
        for n in range(30)
    ]
    results: dict[int, list[Response]] = {}
    blocks = {start: requests[start : start + 10] for start in (0, 10, 20)}
    threads = [
        threading.Thread(target=lambda s=s, b=b: results.update({s: replica.run(b, ask_again)}))
        for s, b in blocks.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for start, responses in results.items():
        assert by_key(responses) == by_key(FakeEngine().generate(blocks[start], ask_again))
    assert sum(len(r) for r in results.values()) == 30 * 4


def test_replica_tells_base_and_adapter_requests_of_one_key_apart() -> None:
    from kmmlu_fast.core.schema import Adapter

    adapter = Adapter(name="lora", path=Path("lora"), adapter_id=1, rank=4, digest="")
    requests = [replace(request, adapter=a) for request in letters(5) for a in (None, adapter)]
    responses = Replica(FakeEngine).run(requests, None)
    assert len(responses) == 10 and len({(r.request.key, r.request.adapter) for r in responses}) == 10


@pytest.mark.parametrize("opener", [FailingEngine, refuse])
def test_replica_hands_the_engines_error_to_every_caller(opener: Callable[[], Any]) -> None:
    replica = Replica(opener)
    for _ in range(2):
        with pytest.raises(EngineError, match=r"no memory left|cannot be served"):
            replica.run(letters(3), None)


# Real Ray


@pytest.fixture(scope="module", autouse=True)
def _workers_find_this_file() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        )
        yield


@pytest.fixture
def two_replicas() -> Iterator[RayEngine]:
    engine = RayEngine(FakeEngine, 2, block_requests=8, blocks_in_flight=2)
    yield engine
    engine.close()


@pytest.mark.engine
@pytest.mark.alone
def test_every_request_is_answered_once_and_pulled_lazily(two_replicas: RayEngine) -> None:
    pulled = []

    def source() -> Iterator[Request]:
        for request in letters(200):
            pulled.append(request)
            yield request

    responses = []
    for response in two_replicas.generate(source()):
        responses.append(response)
        assert len(pulled) <= 8 * 2 * 2 + len(responses) // 8 * 8 + 8
    assert by_key(responses) == by_key(FakeEngine().generate(letters(200)))
    assert two_replicas.stats()["requests"] == 200 and two_replicas.stats()["placement"]["replicas"] == 2


@pytest.mark.engine
@pytest.mark.alone
def test_follow_ups_run_on_the_replicas_and_the_engines_stay_for_the_next_call(
    two_replicas: RayEngine,
) -> None:
    before = two_replicas.replica_pids()
    requests = [
        Request(
            question_id=f"Invented/test/{n}", stage="reason", token_ids=(n,), want=Generation(max_tokens=4)
        )
        for n in range(20)
    ]
    assert by_key(two_replicas.generate(requests, ask_again)) == by_key(
        FakeEngine().generate(requests, ask_again)
    )
    assert by_key(two_replicas.generate(letters(9))) == by_key(FakeEngine().generate(letters(9)))
    assert two_replicas.replica_pids() == before and len(set(before)) == 2
    assert two_replicas.stats()["requests"] == 89 and two_replicas.stats()["output_tokens"] > 20


@pytest.mark.engine
@pytest.mark.alone
def test_leaving_the_stream_leaves_the_engine_usable(two_replicas: RayEngine) -> None:
    stream = two_replicas.generate(letters(100))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert by_key(two_replicas.generate(letters(50, first=500))) == by_key(
        FakeEngine().generate(letters(50, first=500))
    )


@pytest.mark.engine
@pytest.mark.alone
@pytest.mark.parametrize(
    ("opener", "says"),
    [(FailingEngine, "lower --max-num-seqs"), (refuse, "cannot be served"), (int, "a replica failed")],
)
def test_a_replicas_error_arrives_as_one_line(opener: Callable[[], Any], says: str) -> None:
    with pytest.raises(EngineError, match=says) as caught, contextlib.closing(RayEngine(opener)) as engine:
        list(engine.generate(letters(3)))
    assert "\n" not in str(caught.value)


@pytest.mark.engine
@pytest.mark.alone
def test_a_replica_killed_in_the_middle_loses_and_doubles_nothing(tmp_path: Path) -> None:
    diary, gate = tmp_path / "diary", tmp_path / "gate"
    diary.touch()
    engine = RayEngine(partial(WaitingEngine, diary, gate), 2, block_requests=10, blocks_in_flight=3)
    requests = [
        Request(
            question_id=f"Invented/test/{n}", stage="reason", token_ids=(n,), want=Generation(max_tokens=4)
        )
        for n in range(100)
    ]

    def kill_one_in_the_middle_of_a_block() -> None:
        while not (
            waiting := [
                pid
                for pid, count in Counter(line.split()[0] for line in diary.read_text().splitlines()).items()
                if count == 20
            ]
        ):
            time.sleep(0.01)
        os.kill(int(waiting[0]), signal.SIGKILL)
        gate.touch()

    killer = threading.Thread(target=kill_one_in_the_middle_of_a_block, daemon=True)
    killer.start()
    responses = list(engine.generate(requests, ask_again))
    killer.join(timeout=60)
    engine.close()
    assert by_key(responses) == by_key(FakeEngine().generate(requests, ask_again))
    asked = [line.split(" ", 1) for line in diary.read_text().splitlines()]
    assert len(asked) > len(responses), (
        "nothing was repeated: the kill cost no block, the test proves nothing"
    )
    assert len({pid for pid, _ in asked}) == 3, "Ray must have started a third process"


@pytest.mark.engine
@pytest.mark.alone
def test_a_replica_that_keeps_dying_ends_in_one_line(tmp_path: Path) -> None:
    engine = RayEngine(FakeEngine, 1, block_requests=4)
    with pytest.raises(EngineError, match=r"lost more than 3 times.*same command to continue"):
        list(engine.generate(letters(8), partial(die, os.getpid())))
    engine.close()


def die(spare_pid: int, response: Response) -> list[Request]:
    if os.getpid() != spare_pid:
        os.kill(os.getpid(), signal.SIGKILL)
    return []


@pytest.mark.engine
@pytest.mark.alone
def test_real_replicas_give_the_in_process_answers_and_survive_a_kill(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    files = engine_cases.files(tmp_path_factory)
    reference = engine_cases.in_process(files)
    os.environ.update(engine_cases.ENVIRONMENT)
    engine = RayEngine(partial(VllmEngine, files.settings), 2, block_requests=8, blocks_in_flight=2)
    pids = engine.replica_pids()
    responses = []
    for response in engine_cases.ask(engine, files):
        responses.append(response)
        if len(responses) == 16:
            os.kill(pids[1], signal.SIGKILL)
    assert engine.replica_pids()[1] != pids[1]
    engine.close()
    engine_cases.assert_same(responses, reference)
    assert engine.stats()["cached_tokens"] > 0


@pytest.mark.engine
@pytest.mark.alone
def test_an_evaluation_on_real_replicas_gives_the_in_process_predictions(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    files = engine_cases.files(tmp_path_factory)
    flags = [*engine_cases.flags(files, tmp_path), "--engine", "ray", "--num-replicas", "2"]
    runs = run_evaluation(parse_config(EvalConfig, flags, "eval"))
    engine_cases.assert_same_predictions(runs, files)
    assert [run.metrics.to_json()["engine"]["placement"]["replicas"] for run in runs] == [2, 2]


def test_the_cases_can_be_sent_to_replicas() -> None:
    assert pickle.loads(pickle.dumps(engine_cases.follow_up)) is engine_cases.follow_up


class DeviceEngine(FakeEngine):
    """Answers with the GPUs that Ray shows its process, as a text."""

    def generate(self, requests: Iterable[Request], follow_up: FollowUp | None = None) -> Iterator[Response]:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        for request in requests:
            yield Response(request, completions=(Completion(visible, (1,), "stop"),))


@pytest.mark.engine
@pytest.mark.alone
def test_replicas_are_placed_on_gpus_that_the_driver_does_not_have() -> None:
    """Ray's pretended resources: a node that says it has eight GPUs, four replicas of two each."""
    import ray

    ray.init(address="local", num_cpus=8, num_gpus=8, include_dashboard=False, log_to_driver=False)
    try:
        engine = RayEngine(DeviceEngine, 4, gpus_if_any=2, block_requests=1, blocks_in_flight=1)
        texts = {response.completions[0].text for response in engine.generate(letters(40))}
        placement = engine.stats()["placement"]
        engine.close()
        one = RayEngine(DeviceEngine, 1, gpus_per_replica=0)
        [response] = one.generate(letters(1))
        one.close()
        with pytest.raises(EngineError, match=r"5 replicas of 2 GPU\(s\) need 10, this machine has 8"):
            RayEngine(DeviceEngine, 5, gpus_per_replica=2)
    finally:
        ray.shutdown()
    assert placement == {"replicas": 4, "num_gpus_per_replica": 2, "num_cpus_per_replica": 1}
    used = [card for text in texts for card in text.split(",")]
    assert len(texts) == 4 and sorted(used) == list("01234567"), "every replica has two cards of its own"
    assert response.completions[0].text == ""  # GPUs were not asked for


class EndlessEngine(FakeEngine):
    """Says in ``diary`` what it answered, slowly enough that a caller can leave in the middle."""

    def __init__(self, diary: Path) -> None:
        super().__init__()
        self._diary = diary

    def generate(self, requests: Iterable[Request], follow_up: FollowUp | None = None) -> Iterator[Response]:
        for response in super().generate(requests, follow_up):
            time.sleep(0.002)
            with self._diary.open("a") as diary:
                diary.write(response.request.key + "\n")
            yield response


def test_abandoned_blocks_are_not_computed_to_their_end(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    replica, errors = Replica(partial(EndlessEngine, diary)), []

    def ask() -> None:
        try:
            replica.run(letters(5000), ask_again)
        except EngineError as error:
            errors.append(str(error))

    callers = [threading.Thread(target=ask) for _ in range(2)]
    for caller in callers:
        caller.start()
    while not diary.exists() or len(replica._open) < 9000:  # both blocks are there
        time.sleep(0.001)
    replica.abandon_blocks()
    for caller in callers:
        caller.join(timeout=60)
    before = len(diary.read_text().splitlines())
    requests = letters(9, first=100_000)
    assert by_key(replica.run(requests, None)) == by_key(FakeEngine().generate(requests))
    answered = diary.read_text().splitlines()
    assert errors == ["the caller stopped reading the answers"] * 2
    assert before < 5000 and len(answered) <= before + 9, "what nobody waits for was computed on"


def test_blocks_of_others_are_answered_whole_after_an_abandoned_one(tmp_path: Path) -> None:
    replica = Replica(partial(EndlessEngine, tmp_path / "diary"))
    replica.abandon_blocks()  # with nothing open
    requests = [
        Request(
            question_id=f"Invented/test/{n}", stage="reason", token_ids=(n,), want=Generation(max_tokens=4)
        )
        for n in range(9)
    ]
    for _ in range(2):
        assert by_key(replica.run(requests, ask_again)) == by_key(FakeEngine().generate(requests, ask_again))
