import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from faulty_proxy import faulty_proxy
from tiny_judges import build_judge, model_behind_http

from selftrain.config import EndpointConfig
from selftrain.endpoint import Answer, Endpoint, Failure, Request
from selftrain.errors import ConfigError, Interrupted
from selftrain.records import Message


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with model_behind_http(build_judge(tmp_path_factory.mktemp("judge"))) as (url, _):
        yield url


class KnowsNothing(BaseHTTPRequestHandler):
    """A server without what is asked for."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def endpoint(url: str, **knobs: Any) -> Endpoint:
    config = {"url": url, "model": "judge", "concurrency": 4, "retries": 4, "timeout_seconds": 30.0}
    return Endpoint(EndpointConfig(**{**config, **knobs}), first_wait_seconds=0.0005)


def asking(*texts: str, **more: Any) -> list[Request]:
    return [Request((Message("user", f"{one}\n"),), max_tokens=8, temperature=0.0, **more) for one in texts]


def test_answers_come_in_order_with_their_ends_and_tokens(server: str) -> None:
    with endpoint(server) as one:
        answers = one.complete(asking("Q", "nothing", "a Q again", "no"))
        totals = one.totals
    assert all(isinstance(answer, Answer) for answer in answers)
    assert [answer.texts for answer in answers if isinstance(answer, Answer)] == [
        ('{"score":9}',),
        ('{"score":2}',),
        ('{"score":9}',),
        ('{"score":2}',),
    ]
    assert {answer.finish_reasons for answer in answers if isinstance(answer, Answer)} == {("stop",)}
    assert totals.requests == 4
    assert totals.retries == 0
    assert totals.completion_tokens == 4 * 3
    assert totals.prompt_tokens > 4 * 3


FAULTS = ("429", "429_date", "500", "503", "408", "malformed", "no_choices", "html", "null", "error_body", "cut")


def test_every_passing_fault_is_asked_again_and_counted_by_its_kind(server: str) -> None:
    script = (*FAULTS, "disconnect")
    with (
        faulty_proxy(server, script, retry_after=0.05) as proxy,
        endpoint(proxy.url, retries=12, concurrency=1) as one,
    ):
        (answer,) = one.complete(asking("Q"))
        totals = one.totals
    assert isinstance(answer, Answer)
    assert answer.texts == ('{"score":9}',)
    assert answer.attempts == len(script) + 1
    assert totals.requests == proxy.requests == len(script) + 1
    assert totals.retries == len(script)
    assert dict(totals.faults) == {"rate_limited": 2, "server": 2, "refused": 1, "malformed": 5, "connection": 2}
    assert totals.failures == 0


def test_a_closed_port_fails_at_once_without_repetitions_and_names_the_address() -> None:
    began = time.monotonic()
    with endpoint("http://127.0.0.1:9", retries=0) as one:
        results = one.complete(asking("Q", "second"))
    assert time.monotonic() - began < 5
    for failure in results:
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.attempts) == ("connection", 1)
        assert failure.advice == "see whether the server at http://127.0.0.1:9 is up, and whether the url is right"


def test_a_wrong_key_and_a_wrong_address_are_told_with_what_to_look_at(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_OF_JUDGE", "geheim")
    for knobs, said in (({}, "name the environment"), ({"key_variable": "KEY_OF_JUDGE"}, "what KEY_OF_JUDGE")):
        with faulty_proxy(server, ["401"]) as proxy, endpoint(proxy.url, **knobs) as one:
            (failure,) = one.complete(asking("Q"))
        assert isinstance(failure, Failure)
        assert failure.advice is not None
        assert said in failure.advice
        assert "geheim" not in failure.advice
    with ThreadingHTTPServer(("127.0.0.1", 0), KnowsNothing) as nothing:
        threading.Thread(target=nothing.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{nothing.server_port}"
        with endpoint(f"{url}?x=1") as one:
            (failure,) = one.complete(asking("Q"))
        nothing.shutdown()
    assert isinstance(failure, Failure)
    assert failure.advice == (
        f"see whether the url {url} is right up to and with its version (http://HOST:PORT/v1), and whether the server "
        "knows a model 'judge'"
    )


def test_a_refusal_that_stands_is_asked_once_and_costs_the_others_nothing(server: str) -> None:
    with faulty_proxy(server, ["pass", "400", "401"]) as proxy, endpoint(proxy.url, concurrency=1) as one:
        results = one.complete(asking("Q", "second", "third", "Q"))
    assert [type(result) for result in results] == [Answer, Failure, Failure, Answer]
    second = results[1]
    assert isinstance(second, Failure)
    assert (second.kind, second.attempts) == ("refused", 1)
    assert "status 400" in second.reason
    assert proxy.requests == 4


def test_what_is_never_answered_is_a_failure_after_all_its_repetitions(server: str) -> None:
    with faulty_proxy(server, ["500"], is_cycled=True) as proxy, endpoint(proxy.url, retries=2) as one:
        (failure,) = one.complete(asking("Q"))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.attempts, failure.failures) == ("server", 3, ("server",) * 3)
    assert "(3 attempts)" in failure.reason
    assert proxy.requests == 3


def test_a_server_that_hangs_is_given_up_at_the_time_limit(server: str) -> None:
    with faulty_proxy(server, ["hang"]) as proxy, endpoint(proxy.url, timeout_seconds=0.3, retries=0) as one:
        (failure,) = one.complete(asking("Q"))
    assert isinstance(failure, Failure)
    assert failure.kind == "timeout"


def test_a_dead_server_is_not_waited_for_by_every_request() -> None:
    with endpoint("http://127.0.0.1:9/v1", retries=2, concurrency=1) as one:
        results = one.complete(asking(*map(str, range(20))))
        totals = one.totals
    assert {type(result) for result in results} == {Failure}
    assert totals.requests == 8 * 3 + 12  # after eight in a row, one attempt each
    assert totals.failures == 20


def test_a_wait_that_the_server_asks_for_is_kept_by_all_requests(server: str) -> None:
    with faulty_proxy(server, ["429"], retry_after=0.6) as proxy, endpoint(proxy.url, concurrency=1) as one:
        one.complete(asking("a", "b"))
    first, *others = proxy.times
    assert min(others) - first >= 0.6


def test_no_more_requests_are_under_way_than_the_config_allows(server: str) -> None:
    with faulty_proxy(server, ["hang"], is_cycled=True) as proxy, endpoint(proxy.url, concurrency=3) as one:
        with pytest.raises(Interrupted):
            one.complete(asking(*map(str, range(9))), should_stop=lambda: proxy.requests >= 3)
        time.sleep(0.3)
        assert proxy.requests == 3


@pytest.mark.parametrize("fault", ["hang", "429"])
def test_closing_ends_all_waiting_at_once(server: str, fault: str) -> None:
    with faulty_proxy(server, [fault], is_cycled=True, retry_after=30) as proxy:
        one = endpoint(proxy.url)
        caught: list[BaseException] = []

        def ask() -> None:
            try:
                one.complete(asking("a", "b"))
            except BaseException as error:
                caught.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        while proxy.requests < 1:
            time.sleep(0.01)
        started = time.monotonic()
        one.close()
        thread.join()
        assert time.monotonic() - started < 2
    assert isinstance(caught[0], Interrupted)
    with pytest.raises(Interrupted):
        one.complete(asking("a"))


def test_several_threads_may_ask_at_once(server: str) -> None:
    found: dict[int, list[Any]] = {}
    with endpoint(server) as one:

        def ask(number: int) -> None:
            found[number] = one.complete(asking(*(["Q"] if number % 2 else ["no"]) * 2))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    texts = {number: {answer.texts[0] for answer in answers} for number, answers in found.items()}
    assert texts == {0: {'{"score":2}'}, 1: {'{"score":9}'}, 2: {'{"score":2}'}, 3: {'{"score":9}'}}


def test_the_key_is_sent_and_stands_in_no_message(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_JUDGE", " sk-very-secret-0123456789\n")
    with faulty_proxy(server, ["401"]) as proxy, endpoint(proxy.url, key_variable="KEY_OF_JUDGE") as one:
        (failure,) = one.complete(asking("Q"))
    assert proxy.headers[0]["authorization"] == "Bearer sk-very-secret-0123456789"
    assert isinstance(failure, Failure)
    assert "your key was Bearer [key]" in failure.reason
    assert "sk-very-secret" not in repr(failure) + repr(one.config)


def test_no_key_of_the_environment_is_sent_that_was_not_named(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "sk-meant-for-another-server")
    with faulty_proxy(server) as proxy, endpoint(proxy.url) as one:
        one.complete(asking("Q"))
    assert "sk-meant" not in str(proxy.headers)


@pytest.mark.parametrize("value", [None, "", "two words", "k\u00e9y"])
def test_a_key_that_is_missing_or_cannot_be_one_is_refused_by_the_variables_name(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KEY_OF_JUDGE", raising=False)
    if value is not None:
        monkeypatch.setenv("KEY_OF_JUDGE", value)
    with pytest.raises(ConfigError, match="KEY_OF_JUDGE") as caught:
        endpoint("http://127.0.0.1:9/v1", key_variable="KEY_OF_JUDGE")
    assert not value or value not in str(caught.value)


def test_an_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"endpoint\.url: '127\.0\.0\.1:8000/v1'"):
        endpoint("127.0.0.1:8000/v1")


def test_fields_of_the_body_go_before_and_null_leaves_one_out(server: str) -> None:
    body = {"max_tokens": None, "max_completion_tokens": 5, "chat_template_kwargs": {"enable_thinking": False}}
    with faulty_proxy(server) as proxy, endpoint(proxy.url, body=body) as one:
        one.complete(asking("Q", seed=7, stop=("x",), response_format={"type": "json_object"}))
    assert proxy.bodies[0] == {
        "model": "judge",
        "messages": [{"role": "user", "content": "Q\n"}],
        "temperature": 0.0,
        "seed": 7,
        "stop": ["x"],
        "response_format": {"type": "json_object"},
        "max_completion_tokens": 5,
        "chat_template_kwargs": {"enable_thinking": False},
    }


def test_several_answers_of_one_request_are_asked_for_and_a_server_without_them_is_named(server: str) -> None:
    with endpoint(server) as one:
        (answer,) = one.complete(asking("Q", n=3))
        assert isinstance(answer, Answer)
        assert answer.texts == ('{"score":9}',) * 3
    with faulty_proxy(server) as proxy, endpoint(proxy.url, body={"n": 1}) as one:
        (failure,) = one.complete(asking("Q", n=3))
    assert isinstance(failure, Failure)
    assert "gave 1 choices where 3 were asked for" in failure.reason
    assert proxy.requests == 1


def test_a_text_that_no_encoding_can_carry_is_still_asked_about(server: str) -> None:
    with endpoint(server) as one:
        (answer,) = one.complete(asking("a lone \ud800 surrogate, Q"))
    assert isinstance(answer, Answer)
    assert answer.texts == ('{"score":9}',)


def test_without_its_package_the_extra_is_named(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys\nsys.modules['openai'] = None\nimport importlib.util\n"
        "from selftrain.config import EndpointConfig\nfrom selftrain.endpoint import Endpoint\n"
        "Endpoint(EndpointConfig(url='http://x/v1', model='m'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ})
    assert "DependencyError" in done.stderr
    assert "pip install 'selftrain[openai]'" in done.stderr
