"""The cache of answers: durable, shared, and never silently rebuilt."""

import json
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from annotating import CONTEXT

from sklearn_dialpref.annotation.cache import AnswerCache, default_cache
from sklearn_dialpref.annotation.leases import LEASE_SECONDS, Leases

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


def damaged_schema(path):
    with AnswerCache(path):
        pass
    path.write_bytes(path.read_bytes().replace(b"answer TEXT", b"enswer TEXT"))


@pytest.mark.parametrize("damage", [damaged_header, damaged_pages, truncated, damaged_schema])
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


def alter(path, old, new):
    """Exchange bytes of the file, behind sqlite's back."""
    raw = path.read_bytes()
    assert len(old) == len(new) and old in raw
    path.write_bytes(raw.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"-0.1", b"-0.9"),  # another answer, which only a checksum tells from the right one
        (b'["A"]', b'["A"}'),
        (b'"tokens_in"', b'"t\xffkens_in"'),
    ],
)
def test_a_damaged_answer_is_lost_alone_and_can_be_replaced(tmp_path, old, new):
    path = tmp_path / "c"
    other = {"texts": ["B"]}
    with AnswerCache(path) as cache:
        cache.put("damaged", "m", "p", ANSWER)
        cache.put("whole", "m", "p", other)
    alter(path, old, new)
    with AnswerCache(path) as cache:
        assert cache.get_many(["whole", "damaged", "unknown"]) == {"whole": other}
        assert cache.lost == {"damaged"}
        cache.put("damaged", "m", "p", ANSWER)
        assert cache.get_many(["damaged"]) == {"damaged": ANSWER}
    with AnswerCache(path) as cache:
        assert cache.get_many(["whole", "damaged"]) == {"whole": other, "damaged": ANSWER}
        assert cache.lost == set()


def test_an_answer_whose_key_is_damaged_is_missed(tmp_path):
    key = "0f" * 32
    with AnswerCache(tmp_path / "c") as cache:
        cache.put(key, "m", "p", ANSWER)
    raw = (tmp_path / "c").read_bytes()
    for place in (raw.rindex(key.encode()), raw.index(key.encode())):
        damaged = bytearray(raw)
        damaged[place + 5] ^= 1
        (tmp_path / "d").write_bytes(damaged)
        with AnswerCache(tmp_path / "d") as cache:
            whole = cache.get_many([key])
            assert (whole, cache.lost) in [({key: ANSWER}, set()), ({}, {key})]
            if not whole:
                break
    else:
        raise AssertionError("the key that counts was not damaged")


OLD_FORMAT = """
CREATE TABLE answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, prompt_id TEXT NOT NULL, answer TEXT NOT NULL,
    created TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
) WITHOUT ROWID;
PRAGMA application_id=1396985923; PRAGMA user_version=1; PRAGMA journal_mode=WAL;
"""


def test_caches_of_older_versions_go_on(tmp_path):
    """They have no checksums and no leases; an older version can go on with them as well."""
    insert = "INSERT INTO answers (key, model, prompt_id, answer) VALUES (?, 'm', 'p', ?)"
    connection = sqlite3.connect(tmp_path / "c", isolation_level=None)
    connection.executescript(OLD_FORMAT)
    connection.execute(insert, ("old", json.dumps(ANSWER)))
    connection.execute(insert, ("bad", "{"))
    with AnswerCache(tmp_path / "c") as cache:
        cache.put("new", "m", "p", ANSWER)
        assert cache.get_many(["old", "new", "bad"]) == {"old": ANSWER, "new": ANSWER}
        assert cache.lost == {"bad"}
    connection.execute(insert, ("later", json.dumps(ANSWER)))
    connection.close()
    with AnswerCache(tmp_path / "c") as cache:
        assert cache.get_many(["later", "new"]) == {"later": ANSWER, "new": ANSWER}


# -- leases ---------------------------------------------------------------------------------


@pytest.fixture
def shared(tmp_path):
    """Two passes on one file."""
    with AnswerCache(tmp_path / "c") as one, AnswerCache(tmp_path / "c") as other:
        yield Leases(one.execute), Leases(other.execute)


def test_a_question_is_claimed_by_one_pass(shared):
    ours, theirs = shared
    assert ours.claim("k") and not theirs.claim("k") and theirs.claim("other")
    theirs.release("k")  # which is not theirs
    assert not theirs.claim("k")
    ours.release("k")
    assert theirs.claim("k")
    theirs.release_all()
    assert ours.claim("k") and ours.claim("other")


def test_leases_that_are_not_renewed_expire(shared, monkeypatch):
    ours, theirs = shared
    start = time.time()
    assert ours.claim("k")
    monkeypatch.setattr(time, "time", lambda: start + 0.9 * LEASE_SECONDS)
    assert not theirs.claim("k")
    ours.renew()
    monkeypatch.setattr(time, "time", lambda: start + 1.5 * LEASE_SECONDS)
    assert not theirs.claim("k")
    monkeypatch.setattr(time, "time", lambda: start + 2.0 * LEASE_SECONDS)
    assert theirs.claim("k")
    ours.renew()
    ours.release_all()
    assert not ours.claim("k")  # it is not ours any more


def test_a_clock_that_was_set_back_does_not_keep_leases_for_ever(shared, monkeypatch):
    ours, theirs = shared
    start = time.time()
    assert ours.claim("k")
    monkeypatch.setattr(time, "time", lambda: start - 3600)
    assert theirs.claim("k")


def claim_and_wait(path, claimed):
    leases = Leases(AnswerCache(path).execute)
    if leases.claim("k") and leases.claim("other"):
        claimed.set()
        signal.pause()


def test_leases_of_a_dead_process_are_free_at_once(tmp_path):
    claimed = CONTEXT.Event()
    process = CONTEXT.Process(target=claim_and_wait, args=(tmp_path / "c", claimed))
    process.start()
    try:
        assert claimed.wait(60)
        with AnswerCache(tmp_path / "c") as cache:
            ours = Leases(cache.execute)
            assert not ours.claim("k")
            process.kill()
            process.join()
            assert ours.claim("k") and ours.claim("other")
    finally:
        process.kill()


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
        leases = [row[1] for row in connection.execute("PRAGMA table_info(leases)")]
    connection.close()
    assert columns == ["key", "model", "prompt_id", "answer", "created", "checksum"]
    assert leases == ["key", "owner", "machine", "pid", "expires"]


def fill(path, number, barrier):
    barrier.wait()
    with AnswerCache(path) as cache:
        for index in range(200):
            cache.put(f"shared {index}", "m", "p", {"by": number})
            cache.put(f"own {number} {index}", "m", "p", {"by": number})


def test_several_processes_write_at_once(tmp_path):
    path = Path(tmp_path / "answers.sqlite")
    barrier = CONTEXT.Barrier(3)
    processes = [CONTEXT.Process(target=fill, args=(path, number, barrier)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    with AnswerCache(path) as cache:
        assert len(cache) == 200 + 3 * 200
