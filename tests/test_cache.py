"""The cache of answers: durable, shared, and never silently rebuilt."""

import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from sklearn_dialpref.annotation.cache import AnswerCache, default_cache

ANSWER = {"texts": ["A"], "logprobs": {"A": -0.1, "é": -3.0}, "tokens_in": 7}


def test_answers_come_back(tmp_path):
    path = tmp_path / "deep" / "answers.sqlite"
    with AnswerCache(path) as cache:
        cache.put("k1", "model", "prompt", ANSWER)
        cache.put("k1", "model", "prompt", {"texts": ["B"]})  # the first answer stays
    with AnswerCache(path) as cache:
        assert cache.get_many(["k1", "unknown"]) == {"k1": ANSWER}
        assert cache.get_many([]) == {}
        assert len(cache) == 1


def test_many_keys(tmp_path):
    with AnswerCache(tmp_path / "c") as cache:
        for number in range(1200):
            cache.put(str(number), "m", "p", {"n": number})
        answers = cache.get_many([str(number) for number in range(2000)])
        assert answers == {str(number): {"n": number} for number in range(1200)}


def test_in_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with AnswerCache(":memory:") as cache:
        cache.put("k", "m", "p", ANSWER)
        assert cache.get_many(["k"]) == {"k": ANSWER}
    assert list(tmp_path.iterdir()) == []


def test_default_place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "sklearn-dialpref" / "answers.sqlite"
    assert list(tmp_path.iterdir()) == []  # naming it makes nothing


def damaged_header(path):
    path.write_bytes(b"no sqlite at all " * 100)


def damaged_pages(path):
    with AnswerCache(path) as cache:
        for number in range(500):
            cache.put(f"{number:064}", "m", "p", ANSWER)
    raw = path.read_bytes()
    path.write_bytes(raw[:4096] + b"\xff" * (len(raw) - 4096))


def truncated(path):
    with AnswerCache(path) as cache:
        for number in range(500):
            cache.put(f"{number:064}", "m", "p", ANSWER)
    path.write_bytes(path.read_bytes()[:6000])


def damaged_answer(path):
    with AnswerCache(path) as cache:
        cache.put(f"{7:064}", "m", "p", ANSWER)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE answers SET answer = substr(answer, 1, 9)")
    connection.close()


@pytest.mark.parametrize("damage", [damaged_header, damaged_pages, truncated, damaged_answer])
def test_a_damaged_file_is_refused_and_left_alone(tmp_path, damage):
    path = tmp_path / "answers.sqlite"
    damage(path)
    before = path.read_bytes()

    def use():
        with AnswerCache(path) as cache:
            cache.get_many([f"{7:064}"])
            cache.put("new", "m", "p", ANSWER)

    with pytest.raises(ValueError, match=r"damaged.*paid for.*recover.*move the file away"):
        use()
    assert path.read_bytes() == before


def test_files_of_others_are_refused(tmp_path):
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(ValueError, match="of another program"):
        AnswerCache(tmp_path / "other.db")


def test_newer_formats_are_refused(tmp_path):
    AnswerCache(tmp_path / "c").close()
    with sqlite3.connect(tmp_path / "c") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(ValueError, match=r"newer version.*format 99"):
        AnswerCache(tmp_path / "c")


def test_sqlite_says_what_the_system_refuses(tmp_path):
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        AnswerCache(tmp_path)  # a folder


def test_no_text_and_no_key_of_a_user_is_asked_for(tmp_path):
    """The file holds what put was given, and nothing else."""
    with AnswerCache(tmp_path / "c") as cache:
        cache.put("k", "m", "p", ANSWER)
    with sqlite3.connect(tmp_path / "c") as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(answers)")]
    connection.close()
    assert columns == ["key", "model", "prompt_id", "answer", "created"]


def fill(path, number, barrier):
    barrier.wait()
    with AnswerCache(path) as cache:
        for index in range(200):
            cache.put(f"shared {index}", "m", "p", {"by": number})
            cache.put(f"own {number} {index}", "m", "p", {"by": number})


def test_several_processes_write_at_once(tmp_path):
    path = Path(tmp_path / "answers.sqlite")
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    processes = [context.Process(target=fill, args=(path, number, barrier)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    with AnswerCache(path) as cache:
        assert len(cache) == 200 + 3 * 200
