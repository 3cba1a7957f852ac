"""The provider's batch interface: what it can answer, and each way in which it can fail."""

import json

import pytest
from batching import ask, assert_nothing_left, body, keys, stored
from fake_batches import FakeBatches

from sklearn_dialpref.annotation import batches
from sklearn_dialpref.annotation.cache import AnswerCache
from sklearn_dialpref.annotation.completion import EndpointError

SECRET = "sk-verysecretkey-0123456789"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.sqlite"


@pytest.fixture
def few_requests(monkeypatch):
    """Three requests in a file, at most."""
    monkeypatch.setattr(batches, "MOST_REQUESTS", 3)


# -- as it should be -----------------------------------------------------------------------------


def test_asked_once_stored_and_forgotten(path):
    with FakeBatches() as server:
        asker = ask(server.base_url, path, keys(7))
        assert stored(path) == sorted(asker.taken) == keys(7)
        assert asker.failures == {}
        assert asker.shown == [3, 0]
        assert_nothing_left(path)
        with AnswerCache(path) as cache:
            assert cache.execute("SELECT * FROM leases")[0] == []
        n_calls = sum(server.calls.values())
        assert ask(server.base_url, path, keys(7)).taken == []
        assert sum(server.calls.values()) == n_calls  # the endpoint need not be there any more
    assert set(server.executed.values()) == {1} and len(server.executed) == 7


@pytest.mark.parametrize("limit", ["requests", "bytes"])
def test_split_into_files(path, monkeypatch, limit):
    size = len(batches.request_line(keys(1)[0], body(keys(1)[0])))
    monkeypatch.setattr(batches, "MOST_REQUESTS", 3 if limit == "requests" else 100)
    monkeypatch.setattr(batches, "MOST_BYTES", 3 * size if limit == "bytes" else 10**6)
    with FakeBatches() as server:
        ask(server.base_url, path, keys(8))
        n_lines = [server.files[b["input_file_id"]].count("\n") for b in server.batches.values()]
    assert n_lines == [3, 3, 2]
    assert stored(path) == keys(8)


def test_lines_in_any_order_doubled_unknown_and_left_out(path):
    def lines(request, line):
        number = int(request["custom_id"], 16)
        unknown = line | {"custom_id": "nobody's"}
        return [[line], [line, line], [], [line, unknown, "{not JSON", "[]", '{"custom_id": 3}']][
            number % 4
        ]

    with FakeBatches(lines=lines, shuffle=True) as server:
        asker = ask(server.base_url, path, keys(8))
    left_out = keys(8)[2::4]
    assert asker.failures == dict.fromkeys(left_out, "the batch left it out")
    assert sorted(asker.taken) == keys(8)
    assert stored(path) == [key for key in keys(8) if key not in left_out]
    assert_nothing_left(path)


def test_texts_with_every_kind_of_line_end(path):
    def lines(request, line):
        message = line["response"]["body"]["choices"][0]["message"]
        message["content"] = "A\u2028B\x85C\x0bD" * 20_000  # comes in many parts
        return [json.dumps(line, ensure_ascii=False)]

    with FakeBatches(lines=lines) as server:
        assert ask(server.base_url, path, keys(3)).failures == {}
    with AnswerCache(path) as cache:
        assert cache.get_many(keys(1))[keys(1)[0]]["texts"] == ["A\u2028B\x85C\x0bD" * 20_000]


def test_requests_that_failed(path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    failed = [
        {"response": {"status_code": 429, "body": {"error": {"message": "Rate limit"}}}},
        {"response": {"status_code": 500, "body": {"error": {"message": "Oops"}}}},
        {"response": {"status_code": 400, "body": {"error": {"message": "Too long"}}}},
        {"response": {"status_code": 400, "body": {"error": {"code": "content_filter"}}}},
        {"response": {"status_code": 200, "body": {"error": {"message": "upstream"}}}},
        {"response": {"status_code": 200, "body": {"error": {"code": "insufficient_quota"}}}},
        {"response": {"status_code": 200, "body": None}},
        {"response": None, "error": {"code": "x", "message": f"the key {SECRET}"}},
        {"response": None, "error": None},
    ]

    def lines(request, line):
        number = int(request["custom_id"], 16)
        return [line | failed[number]] if number < len(failed) else [line]

    with FakeBatches(lines=lines) as server:
        asker = ask(server.base_url, path, keys(10))
        reasons = [asker.failures.get(key) for key in keys(10)]
        server.lines = lambda request, line: [line]
        assert ask(server.base_url, path, keys(10)).failures == {}  # asked again
    assert reasons == [
        "HTTP 429: Rate limit",
        "HTTP 500: Oops",
        "HTTP 400: Too long",
        "content filter",
        "HTTP 200: upstream",
        reasons[5],
        "an answer that is not a whole completion",
        "the key ***",
        "no reason given",
        None,
    ]
    assert "there is no credit left (HTTP 200: insufficient_quota)" in reasons[5]
    assert stored(path) == keys(10)


# -- batches that end otherwise ------------------------------------------------------------------


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_partial_results_are_taken_and_the_rest_is_asked_again(path, end):
    options = {"expire_after": 2} if end == "expired" else {"cancel_after": 2}
    with FakeBatches(**options) as server:
        asker = ask(server.base_url, path, keys(5))
        assert stored(path) == keys(2)
        assert sorted(asker.failures) == keys(5)[2:]
        (reason,) = set(asker.failures.values())
        expected = "could not be executed" if end == "expired" else "the batch was cancelled"
        assert expected in reason
        assert_nothing_left(path)
        server.expire_after = server.cancel_after = None
        assert sorted(ask(server.base_url, path, keys(5)).taken) == keys(5)[2:]
    assert set(server.executed.values()) == {1} and stored(path) == keys(5)


def test_failed_validation_has_the_words_of_the_provider(path):
    errors = [{"message": f"Bad {n}", "line": n, "code": "bad"} for n in range(1, 9)]
    with FakeBatches(invalid=errors) as server:
        asker = ask(server.base_url, path, keys(2))
    reason = "the batch failed: Bad 1 (line 1); Bad 2 (line 2); Bad 3 (line 3)"
    assert asker.failures == dict.fromkeys(keys(2), reason)
    assert_nothing_left(path)


def test_batches_that_the_queue_has_no_room_for_wait_for_the_others(path, few_requests):
    script = {"create": [None, None, "drop after"]}  # whose batch has failed when it is found
    with FakeBatches(queue=1, script=script) as server:
        assert ask(server.base_url, path, keys(11)).failures == {}
    assert set(server.executed.values()) == {1} and stored(path) == keys(11)
    assert_nothing_left(path)


def test_a_failed_batch_is_not_taken_for_the_one_that_was_created(path):
    with FakeBatches(queue=0, script={"create": ["drop after"]}) as server:

        def watch(kind, when):
            if kind == "list" and server.calls["list"] > 1:
                server.queue = None

        server.watch = watch
        assert ask(server.base_url, path, keys(2)).failures == {}
    assert len(server.batches) == 2


def test_a_batch_that_never_fits_the_queue(path):
    with FakeBatches(queue=0) as server:
        asker = ask(server.base_url, path, keys(2))
    assert set(asker.failures.values()) == {"the batch failed: Enqueued token limit reached"}


def test_files_that_are_too_large_are_halved(path):
    size = len(batches.request_line(keys(1)[0], body(keys(1)[0])))
    with FakeBatches(most_bytes=3 * size) as server:
        assert ask(server.base_url, path, keys(11)).failures == {}
        assert stored(path) == keys(11)
        server.most_bytes = size - 1
        asker = ask(server.base_url, path, keys(2, start=20))
    assert set(asker.failures.values()) == {"HTTP 400: File is too large."}
    assert set(server.executed.values()) == {1}
    assert_nothing_left(path)


def test_a_refused_batch(path):
    with FakeBatches(script={"create": [400] * 5}) as server:
        asker = ask(server.base_url, path, keys(2))
        assert server.calls["delete"] == 1
    assert set(asker.failures.values()) == {"the endpoint takes no such batch: HTTP 400: busy"}
    assert_nothing_left(path)


# -- an endpoint that cannot be used -------------------------------------------------------------


@pytest.mark.parametrize("options", [{"interface": False}, {"lists": False}, {"status": 405}])
def test_no_batch_interface(path, options):
    refused = pytest.raises(EndpointError, match=r"has no batch interface.*use mode='live'")
    with FakeBatches(**options) as server, refused:
        ask(server.base_url, path, keys(2))
    assert_nothing_left(path)


def test_a_wrong_key_is_not_shown(path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-key-0123456789")
    refused = pytest.raises(EndpointError, match="refused the key in OPENAI_API_KEY")
    with FakeBatches(key="sk-right-key-0123456789") as server, refused as caught:
        ask(server.base_url, path, keys(2))
    assert "0123456789" not in str(caught.value)


def test_nothing_of_the_key_is_stored(path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)

    def lines(request, line):
        error = {"error": {"message": f"the key {SECRET} is busy"}}
        return [line | {"response": {"status_code": 503, "body": error}}]

    with FakeBatches(key=SECRET, lines=lines) as server:
        asker = ask(server.base_url, path, keys(2))
        assert set(asker.failures.values()) == {"HTTP 503: the key *** is busy"}
        server.batches.clear()
        monkeypatch.setattr(server, "shown", lambda batch: batch | {"id": SECRET})
        monkeypatch.setattr(batches, "MOST_OUTAGES", 3)
        with pytest.raises(EndpointError, match="without a valid id"):
            ask(server.base_url, path, keys(2))
    assert not any(SECRET.encode() in file.read_bytes() for file in path.parent.iterdir())


def test_outages_are_waited_out(path):
    script = {
        "create": ["drop before", 503, None],
        "retrieve": ["drop after", "cut", 500, 429, None],
        "content": ["drop before", "cut", "drop after", None],
    }
    with FakeBatches(script=script) as server:
        assert ask(server.base_url, path, keys(5)).failures == {}
    assert set(server.executed.values()) == {1} and stored(path) == keys(5)
    assert_nothing_left(path)


@pytest.mark.parametrize("fault", ["drop after", "cut"])
def test_a_batch_whose_creation_was_not_answered_is_found(path, few_requests, fault):
    script = {"create": [fault, None, fault, fault]}
    with FakeBatches(script=script, page=1) as server:
        assert ask(server.base_url, path, keys(10), retries=2).failures == {}
    assert set(server.executed.values()) == {1} and len(server.batches) == 4


def test_a_batch_that_appears_in_the_list_late(path, monkeypatch):
    with FakeBatches(script={"create": ["drop after"]}) as server:
        seen = server.list
        monkeypatch.setattr(
            server, "list", lambda q: seen(q) if server.calls["list"] > 3 else (200, {"data": []})
        )
        ask(server.base_url, path, keys(3))
    assert set(server.executed.values()) == {1}


def test_an_endpoint_that_is_gone_for_long(path, monkeypatch):
    monkeypatch.setattr(batches, "MOST_OUTAGES", 3)
    with FakeBatches(script={"retrieve": ["drop before"] * 3}) as server:
        with pytest.raises(EndpointError, match=r"3 looks.*goes on there, so run again"):
            ask(server.base_url, path, keys(3))
        assert ask(server.base_url, path, keys(3)).failures == {}
    assert set(server.executed.values()) == {1} and stored(path) == keys(3)


def test_an_endpoint_that_creates_no_batch_for_long(path, monkeypatch):
    monkeypatch.setattr(batches, "MOST_OUTAGES", 3)
    with FakeBatches(script={"create": [503] * 3}) as server:
        with pytest.raises(EndpointError, match=r"no batch was created in 3 tries.*HTTP 503"):
            ask(server.base_url, path, keys(3))
        assert ask(server.base_url, path, keys(3)).failures == {}
    assert set(server.executed.values()) == {1} and stored(path) == keys(3)


def test_more_batches_than_the_endpoint_takes_at_once(path, few_requests, monkeypatch):
    monkeypatch.setattr(batches, "MOST_OUTAGES", 3)
    with FakeBatches(script={"create": [None, 429, None, 429, None]}, polls=9) as server:
        assert ask(server.base_url, path, keys(9)).failures == {}
        assert server.calls["create"] == 5 and server.calls["list"] == 1
    assert set(server.executed.values()) == {1} and stored(path) == keys(9)


def test_an_upload_that_breaks_off(path):
    with FakeBatches(script={"upload": ["drop before", "drop after"]}) as server:
        for _ in range(2):
            with pytest.raises(EndpointError, match="upload of questions failed"):
                ask(server.base_url, path, keys(3))
            assert_nothing_left(path)
        assert ask(server.base_url, path, keys(3)).failures == {}
    assert set(server.executed.values()) == {1}


def test_a_batch_of_another_key(path, monkeypatch):
    monkeypatch.setattr(batches, "MOST_OUTAGES", 1)
    with FakeBatches(script={"retrieve": ["drop before"]}) as server:
        with pytest.raises(EndpointError):
            ask(server.base_url, path, keys(3))
        known, server.batches = server.batches, {}
        with pytest.raises(EndpointError, match=r"does not know the batch batch_0 of .*-.*-"):
            ask(server.base_url, path, keys(3))
        server.batches = known
        assert ask(server.base_url, path, keys(3)).failures == {}
    assert set(server.executed.values()) == {1}


def test_results_that_were_deleted(path):
    with FakeBatches(script={"content": [404, None]}) as server:
        assert ask(server.base_url, path, keys(1, start=9)).failures == {}
        server.script = {"content": [404] * 9}
        asker = ask(server.base_url, path, keys(2))
    (reason,) = set(asker.failures.values())
    assert reason.startswith("the results of the batch are not there: ")
    assert_nothing_left(path)
