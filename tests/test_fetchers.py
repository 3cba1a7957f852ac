"""Public data: raw files of their formats, a loopback server, and whatever goes wrong."""

import hashlib
import json
import sys
import threading
import warnings
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sklearn_dialpref.datasets import (
    _deli,
    _fetching,
    _meld,
    _p4g,
    _talkmoves,
    fetch_deli,
    fetch_meld,
    fetch_p4g,
    fetch_talkmoves,
)
from sklearn_dialpref.datasets._fetching import PublicData, Source, fingerprint_of, load_table

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")
FETCHERS = {
    "meld": fetch_meld,
    "deli": fetch_deli,
    "p4g": fetch_p4g,
    "talkmoves": fetch_talkmoves,
}


# -- the tables that figures come from --------------------------------------------------------


@pytest.mark.data
@needs_data
@pytest.mark.parametrize(
    ("name", "options", "rows", "votes", "classes"),
    [
        ("meld", {}, 13708, 1, ["negative", "neutral", "positive"]),
        ("meld", {"task": "emotion", "subset": "test"}, 2610, 19, 7),
        ("deli", {}, 5000, 3, ["non-probing-deliberation", "none", "probing"]),
        ("deli", {"task": "target"}, 5000, 3, 6),
        ("p4g", {}, 20932, 3, ["appeal", "inquiry", "non-strategy"]),
        ("p4g", {"task": "strategy"}, 20932, 3, 27),
        ("talkmoves", {}, 30202, 19, 7),
    ],
)
def test_known_tables(name, options, rows, votes, classes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = FETCHERS[name](data_home=DATA, download_if_missing=False, **options)
    assert data.X.columns.tolist() == ["dialogue_id", "turn", "speaker", "text"]
    assert len(data.X) == len(data.y_human) == len(data.groups) == rows
    assert data.y_llm.shape == (rows, votes) and data.y_llm.dtypes.eq(object).all()
    assert classes in (len(data.classes), data.classes.tolist())
    for column in (data.y_human, data.y_llm.iloc[:, 0]):
        assert all(label is None or label in data.classes for label in column)
    assert ("split" in data) == (name == "meld")
    assert "icence" in data.DESCR and "itation" in data.DESCR


@pytest.mark.data
@needs_data
def test_arrays_and_tuples():
    X, y_human, y_llm = fetch_deli(data_home=DATA, as_frame=False, return_X_y=True)
    assert X.shape == (5000, 2) and X.dtype == y_human.dtype == y_llm.dtype == object
    assert y_llm.shape == (5000, 3) and None in y_llm[:, 1]
    data = fetch_meld(data_home=DATA, as_frame=False, subset="validation")
    assert data.frame is None and set(data.split) == {"dev"} and len(data.X) == 1109


@pytest.mark.data
@needs_data
def test_columns_of_a_table_follow_from_each_other():
    meld = pd.read_parquet(DATA / "meld.parquet")
    emotion = meld["llm_gpt4o_melt"]
    sentiment = emotion.map(_meld._SENTIMENT_OF).fillna("negative").where(emotion.notna())
    assert sentiment.fillna("").equals(meld["llm_gpt4o_melt_sentiment_derived"].fillna(""))
    p4g = pd.read_parquet(DATA / "p4g.parquet")
    told = p4g["human_sentence_labels"].dropna()
    assert (told.str.split("|").map(_p4g._most_telling) == p4g["human_label"].dropna()).all()
    for llm in _p4g._LLMS:
        mapped = p4g[f"llm_{llm}_strategy"].map(_p4g._MAPPED)
        assert mapped.fillna("").equals(p4g[f"llm_{llm}_mapped"].fillna(""))
        coarse = _p4g._coarse(mapped).fillna("")
        assert (coarse == p4g[f"llm_{llm}_coarse"].fillna("")).all()


@pytest.mark.data
@needs_data
def test_answers_that_moved_are_put_back(tmp_path):
    """The accuracies that the authors report are those of the moved answers."""
    test = fetch_meld(data_home=DATA, task="emotion", subset="test")
    votes = test.y_llm["llm_gemma2_w0"].to_numpy().copy()
    starts = pd.Series(range(len(votes))).groupby(test.groups, sort=False)
    for _, rows in starts:
        votes[rows] = np.roll(votes[rows], -rows.iloc[0])
    moved = (votes == test.y_human).mean()
    assert moved == pytest.approx(0.2532567049808429)  # MELD_Gemma_results_metrics_0.json
    file = tmp_path / "moved.csv"
    pd.DataFrame({"Predicted_Emotion": votes}).fillna("no valid emotion found").to_csv(file)
    back = _meld._window_votes(pd, file, "llm_gemma2_w0", pd.Series(test.groups))
    assert back == test.y_llm["llm_gemma2_w0"].tolist()


# -- raw files --------------------------------------------------------------------------------


def labels(column):
    return [None if pd.isna(label) else label for label in column]


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


MELD_COLUMNS = (
    "Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
)
MELD_HEAD = f"Sr No.,{MELD_COLUMNS}\n"
MELT_HEAD = f"filename,Sr_No.,{MELD_COLUMNS},llm_label\n"
TIMES = '"00:01:02,300","0:01:04,250"'


def meld_files(folder):
    write(
        folder,
        "train_sent_emo.csv",
        MELD_HEAD
        + f'1,"I\x92ll  wait\x85 here\x97now, \x93you\x94!",Ann,joy,positive,0,0,2,3,{TIMES}\n'
        f"4,None,Ben,neutral,neutral,0,3,2,3,{TIMES}\n",
    )
    write(folder, "dev_sent_emo.csv", f"{MELD_HEAD}1,Café…,Ann,fear,negative,0,0,1,1,{TIMES}\n")
    rows = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    write(
        folder,
        "test_sent_emo.csv",
        MELD_HEAD
        + "".join(
            f"{k},‘So’,Cy,anger,negative,{d},{u},1,1,{TIMES}\n" for k, (d, u) in enumerate(rows)
        ),
    )
    write(
        folder,
        "meld_train.csv",
        f"{MELT_HEAD}dia0_utt3.wav,4,None,ben,neutral,neutral,0,3,2,3,{TIMES},surprise\n",
    )
    write(
        folder,
        "meld_test.csv",
        f"{MELT_HEAD}a.wav,1,So,cy,anger,negative,1,1,1,1,{TIMES},frustration\nb.wav,1,So,cy,anger,negative,0,1,1,1,{TIMES},joy\n",
    )
    for column, path in _meld._WINDOW_FILES.items():
        name = "1-shot_Prediction" if "1shot" in column else "Predicted_Emotion"
        head = (
            f"Utterance,{name},Second_Predicted_Emotion"
            if "2step" in column
            else f"Utterance,{name}"
        )
        answers = ["joy", '"Neutral\n\nit is a polite question"', "anger", "Fear", " disgust"]
        lines = [f"So,{a},{a}" if "2step" in column else f"So,{a}" for a in answers]
        write(folder, Path(path).name, "\n".join([head, *lines, ""]))


def test_meld_is_parsed(tmp_path):
    meld_files(tmp_path)
    frame = _meld._parse(tmp_path)
    assert frame["split"].tolist() == ["train"] * 2 + ["dev"] + ["test"] * 5
    assert frame["dialogue_id"].tolist()[1:5] == ["train_0", "dev_0", "test_0", "test_0"]
    assert frame["turn"].tolist() == [0, 3, 0, 0, 1, 0, 1, 2]
    assert frame["text"].tolist()[:4] == [
        'I\'ll wait... here-now, "you"!',
        "None",
        "Café...",
        "'So'",
    ]
    none = None
    assert labels(frame["llm_gpt4o_melt"]) == [
        *(none, "surprise", none),
        *(none, "joy", none, none, none),
    ]
    sentiment = frame["llm_gpt4o_melt_sentiment_derived"]
    assert sentiment.dropna().tolist() == ["negative", "positive"]
    test = frame[frame["split"] == "test"]
    straight = ["joy", none, "anger", "fear", "disgust"]
    assert labels(test["llm_gpt4o_w0"]) == labels(test["llm_llama31_1shot_w3"]) == straight
    # the second dialogue starts at row 2: its answers have moved by two places
    moved = ["joy", none, "fear", "disgust", "anger"]
    assert labels(test["llm_gemma2_w5"]) == labels(test["llm_llama31_gpt4o_2step_w0"]) == moved
    assert frame["llm_gpt35_w1"].isna().tolist()[:3] == [True] * 3


def deli_files(folder):
    def row(idx, kind, target, group="g1"):
        said = {
            "idx": idx,
            "group_id": group,
            "participant": "Owl",
            "utterance": "we  check <CARD>",
        }
        return {**said, "gt_type": 1, "gt_target": 2, "pred_type": kind, "pred_target": target}

    rows = [row(0, -1, 0), row(1, 0, 3), row(2, 1, 5, "g0"), row(3, 1, 4, "g0")]
    for name, upto in (("gpt-4o-mini", 4), ("qwen-32b", 3), ("gemini-2.0-flash", 1)):
        write(folder, f"deli_{name}.json", json.dumps(rows[:upto]))


def test_deli_is_parsed(tmp_path):
    deli_files(tmp_path)
    frame = _deli._parse(tmp_path)
    assert frame["dialogue_id"].tolist() == ["g1", "g1", "g0", "g0"]
    assert frame["turn"].tolist() == [0, 1, 0, 1]
    assert frame["text"].unique().tolist() == ["we check <CARD>"]
    assert frame["type"].unique().tolist() == ["non-probing-deliberation"]
    assert frame["llm_gpt4omini_target"].tolist() == ["none", "moderation", "disagree", "agree"]
    assert frame["llm_qwen25_32b_type"].notna().tolist() == [True, True, True, False]
    assert frame["llm_gemini20flash_target"].dropna().tolist() == ["none"]


def p4g_files(folder):
    write(
        folder,
        "full_dialog_with_all_analysis.csv",
        "Unit,Turn,B4,B2,strategy_ollama_single,sentiment_ollama_v2,interest_ollama_v2,interest_label_ollama_v2\n"
        'Hello  you ,0,0,d_live,Greeting / Rapport,,,\n"Hi, hi",0,1,d_live,,neutral,Neutral,1.0\n'
        "Give?,1,0,d_live,Call to Action,,,\nNA,0,0,e_live,Hope Appeal,,,\n",
    )
    for name in ("mistral", "phi4"):
        write(
            folder,
            f"{name}_annotations.csv",
            f"original_index,dialog_id,turn,utterance,{name}_category,{name}_strategy,qwen_strategy\n"
            "0,d_live,0,Hello,Conversation Management,Liking,\n"
            "2,d_live,1,Give?,Call to Action,Rational Appeal,\n3,e_live,0,NA,Other,Hope Appeal,\n",
        )
    write(
        folder,
        "gold_validation_merged.csv",
        "B2,Turn,best_label,labels,n_sentences\nd_live,1,task-related-inquiry,\"['x']\",1\n",
    )
    sentences = pd.DataFrame(
        {
            "B2": ["d_live"] * 6,
            "B4": [0, 1, 1, 0, 0, 0],
            "Turn": [0, 0, 0, 1, 1, 1],
            "Unit": list("abcdef"),
            "er_label_1": ["greeting", None, None, "thank", "thank", "task-related-inquiry"],
            "ee_label_1": [None, "other", "greeting", None, None, None],
        }
    )
    sentences.to_excel(folder / "300_dialog.xlsx", index=False)


def test_p4g_is_parsed(tmp_path):
    p4g_files(tmp_path)
    frame = _p4g._parse(tmp_path)
    assert frame["turn"].tolist() == [0, 1, 2, 0] and frame["p4g_turn"].tolist() == [0, 0, 1, 0]
    assert frame["text"].tolist() == ["Hello you", "Hi, hi", "Give?", "NA"]
    assert frame["speaker"].tolist() == ["persuader", "persuadee", "persuader", "persuader"]
    assert frame["human_sentence_labels"].tolist()[:3] == [
        "greeting",
        "other|greeting",
        "thank|thank|task-related-inquiry",
    ]
    assert frame["human_label"].tolist()[:3] == ["greeting", "other", "task-related-inquiry"]
    assert frame["persuader_gold"].dropna().to_dict() == {2: "task-related-inquiry"}
    assert frame["persuader_gold_coarse"].dropna().to_dict() == {2: "inquiry"}
    assert frame["llm_qwen3_30b_mapped"].dropna().tolist() == ["greeting", "donation-information"]
    assert frame["llm_phi4_coarse"].dropna().to_dict() == {0: "non-strategy", 2: "appeal"}
    assert frame["llm_qwen3_30b_sentiment"].dropna().to_dict() == {1: "neutral"}


def talkmoves_files(folder):
    lessons = (("one.xlsx", 0), ("two.xlsx", 4))
    rows = [
        line
        for name, start in lessons
        for line in (
            f"{start},1,T,Okay  so,0,nan,{name}",
            f"{start + 1},2,S,nan,nan,3,{name}",
            f"{start + 2},3,S,Because,nan,4,{name}",
            f'{start + 3},4,T,"Why, then",2,nan,{name}',
        )
    ]
    write(
        folder,
        "test_data_63.csv",
        "\n".join(["ID,Turn,Speaker,Sentence,Tag,StudentTag,Transcript", *rows, ""]),
    )
    answers = [
        '7,Getting Students to Relate to Another\'s Ideas,two,4,"Why, then",None',
        "0,None,one,1,Okay  so,None",
        '7,Restating,two,4,"Why, then",None',
        '3,Something else,one,4,"Why, then",None',
    ]
    text = "\n".join(["ID,TalkMove_Pred,Transcript,Turn,Sentence,TalkMove_Truth", *answers, ""])
    for source in _talkmoves.TALKMOVES.sources[1:]:
        write(folder, source.file, text)


def test_talkmoves_are_parsed(tmp_path):
    talkmoves_files(tmp_path)
    frame = _talkmoves._parse(tmp_path)
    assert frame["dialogue_id"].tolist() == ["lesson_00"] * 3 + ["lesson_01"] * 3
    assert frame["turn"].tolist() == [0, 2, 3] * 2
    assert frame["text"].tolist() == ["Okay  so", "Because", "Why, then"] * 2
    assert frame["talkmove"].isna().tolist() == [False, True, False] * 2
    assert frame["talkmove"].dropna().tolist() == ["None", "Getting Students to Relate"] * 2
    for column in ("llm_strat_fs3_claude45opus", "llm_full_zsv4_o3"):
        assert labels(frame[column]) == [
            *("None", None, None),
            *(None, None, "Getting Students to Relate"),
        ]


def test_pins():
    for data in (_meld.MELD, _deli.DELI, _p4g.P4G, _talkmoves.TALKMOVES):
        files = [source.file for source in data.sources]
        assert len(set(files)) == len(files)
        for source in data.sources:
            commit = source.url.split("/")[5]
            assert source.url.startswith("https://raw.githubusercontent.com/")
            assert len(commit) == 40 and int(commit, 16)
            assert (source.size is None) == (source.sha256 is None)


@pytest.mark.parametrize(
    ("name", "module", "put_files", "shapes"),
    [
        ("meld", _meld, meld_files, [(8, 4), (8, 1), (8, 29)]),
        ("deli", _deli, deli_files, [(4, 4), (4, 3), (4, 13)]),
        ("p4g", _p4g, p4g_files, [(4, 4), (4, 3), (4, 22)]),
        ("talkmoves", _talkmoves, talkmoves_files, [(6, 4), (6, 19), (6, 49)]),
    ],
)
def test_files_put_there_by_hand(tmp_path, monkeypatch, name, module, put_files, shapes):
    put_files(tmp_path / name)
    data = getattr(module, name.upper())
    unpinned = tuple(Source(source.file, source.url) for source in data.sources)
    monkeypatch.setattr(module, name.upper(), replace(data, sources=unpinned))
    for _ in range(2):  # made, and read
        with pytest.warns(UserWarning, match=rf"{name}.parquet differs from the table"):
            found = FETCHERS[name](data_home=tmp_path, download_if_missing=False)
        assert [found.X.shape, found.y_llm.shape, found.frame.shape] == shapes
        assert set(found.y_human) - {None} == set(found.classes)
    if DATA.exists():
        known = pd.read_parquet(DATA / f"{name}.parquet")
        assert found.frame.columns.tolist() == known.columns.tolist()
        assert found.frame.dtypes.astype(str).tolist() == known.dtypes.astype(str).tolist()


# -- downloads --------------------------------------------------------------------------------

CONTENT = b"dialogue_id,text\na,hello\na,bye\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """A loopback server that answers as it is told."""

    daemon_threads = True

    def __init__(self):
        self.answers = []  # (status, body, announced length) for the next requests
        self.requests = []
        self.barrier = None
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/one.csv"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        if self.server.barrier is not None:
            self.server.barrier.wait(timeout=30)
        answers = self.server.answers
        status, body, length = answers.pop(0) if answers else (200, CONTENT, len(CONTENT))
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def parse(folder):
    raw = pd.read_csv(folder / "one.csv")[["dialogue_id", "text"]]
    return raw.assign(split="all", turn=[0, 1], speaker="Ann")


def toy(url, **options):
    frame = pd.DataFrame({"dialogue_id": ["a", "a"], "text": ["hello", "bye"]})
    frame = frame.assign(split="all", turn=[0, 1], speaker="Ann")
    pins = {"size": len(CONTENT), "sha256": SHA256, **options}
    return PublicData("toy", (Source("one.csv", url, **pins),), parse, fingerprint_of(frame))


def load(data, home, **options):
    defaults = {"download_if_missing": True, "n_retries": 0, "delay": 0.0}
    return load_table(data, home, **{**defaults, **options})


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


WHOLE = ["toy", "toy.parquet", "toy/one.csv"]


def test_downloaded_once_and_kept(tmp_path, server, capfd):
    first = load(toy(server.url), tmp_path)
    assert files_in(tmp_path) == WHOLE and len(server.requests) == 1
    again = load(toy(server.url), tmp_path, download_if_missing=False)
    pd.testing.assert_frame_equal(first, again, check_dtype=False)
    (tmp_path / "toy.parquet").unlink()
    load(toy(server.url), tmp_path, download_if_missing=False)
    assert len(server.requests) == 1
    assert capfd.readouterr() == ("", "")


def test_nothing_is_downloaded_unasked(tmp_path, server):
    home = tmp_path / "home"
    with pytest.raises(OSError, match=r"toy is not in .*home, and download_if_missing=F") as error:
        load(toy(server.url), home, download_if_missing=False)
    assert f"{server.url} to {home / 'toy' / 'one.csv'}" in str(error.value)
    assert not server.requests and files_in(tmp_path) == []


@pytest.mark.parametrize(
    ("body", "got"),
    [
        (CONTENT[:-1], rf"one.csv must have {len(CONTENT)} bytes, got {len(CONTENT) - 1}"),
        (CONTENT[:-1] + b"!", rf"one.csv must have the sha256 {SHA256}, got [0-9a-f]{{64}}"),
    ],
)
def test_other_content_is_refused(tmp_path, server, body, got):
    server.answers = [(200, body, len(body))]
    with pytest.raises(OSError, match=f"{got}; try again later, or put the right file at"):
        load(toy(server.url), tmp_path)
    assert files_in(tmp_path) == ["toy"]
    (tmp_path / "toy" / "one.csv").write_bytes(body)
    with pytest.raises(OSError, match=f"{got}; delete .*one.csv to download it again"):
        load(toy(server.url), tmp_path)
    (tmp_path / "toy" / "one.csv").unlink()
    load(toy(server.url), tmp_path)
    assert files_in(tmp_path) == WHOLE


def test_a_partial_download_is_tried_again(tmp_path, server):
    server.answers = [(200, CONTENT[:9], len(CONTENT)), (503, b"", 0)]
    unpinned = toy(server.url, size=None, sha256=None)
    with pytest.warns(UserWarning, match=f"Trying again to download {server.url}") as record:
        load(unpinned, tmp_path, n_retries=3)
    assert len(record) == 2 and len(server.requests) == 3
    assert files_in(tmp_path) == WHOLE


@pytest.mark.parametrize("answer", [(200, CONTENT[:9], len(CONTENT)), (404, b"", 0)])
def test_a_download_that_never_succeeds(tmp_path, server, answer):
    server.answers = [answer] * 2
    with pytest.warns(UserWarning, match="Trying again"), pytest.raises(OSError) as error:
        load(toy(server.url, size=None, sha256=None), tmp_path, n_retries=1)
    target = tmp_path / "toy" / "one.csv"
    for part in (server.url, f"put the file at {target}", "set data_home", "DIALPREF_DATA"):
        assert part in str(error.value)
    assert files_in(tmp_path) == ["toy"]


def test_an_unreachable_host(tmp_path, server):
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(OSError, match=f"{url} could not be downloaded: .*put the file at"):
        load(toy(url), tmp_path)
    assert files_in(tmp_path) == ["toy"]


def test_an_interrupted_download_leaves_nothing_broken(tmp_path, server, monkeypatch):
    def interrupted(self, url, output_file, pooch):
        Path(output_file).write_bytes(CONTENT[:5])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pooch.HTTPDownloader.__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(toy(server.url), tmp_path)
    assert files_in(tmp_path) == ["toy"]
    load(toy(server.url), tmp_path)
    assert files_in(tmp_path) == WHOLE


def test_two_at_once(tmp_path, server):
    server.barrier = threading.Barrier(2)  # both are downloading before either has a file
    frames = []
    threads = [
        threading.Thread(target=lambda: frames.append(load(toy(server.url), tmp_path)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pd.testing.assert_frame_equal(*frames, check_dtype=False)
    assert files_in(tmp_path) == WHOLE


def test_a_data_home_that_cannot_be_written_to(tmp_path, server):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match=r"cannot be written: .*Pass a data_home.*DIALPREF_DATA"):
        load(toy(server.url), tmp_path / "file" / "home")
    assert not server.requests


def test_a_damaged_table(tmp_path, server):
    load(toy(server.url), tmp_path)
    table = tmp_path / "toy.parquet"
    table.write_bytes(table.read_bytes()[:-20])
    with pytest.raises(OSError, match=r"toy.parquet cannot be read as a parquet file.*delete it"):
        load(toy(server.url), tmp_path)


def test_a_table_of_other_content_warns(tmp_path, server):
    load(toy(server.url), tmp_path)
    parse(tmp_path / "toy").assign(text="other").to_parquet(tmp_path / "toy.parquet")
    with pytest.warns(UserWarning, match=r"toy.parquet differs from the table .* delete it"):
        load(toy(server.url), tmp_path)


def test_raw_files_that_cannot_be_parsed(tmp_path, server):
    server.answers = [(200, b"some,page\n", 10)]
    unpinned = toy(server.url, size=None, sha256=None)
    with pytest.raises(ValueError, match=r"raw files in .*toy are not as toy has them.*Delete"):
        load(unpinned, tmp_path)
    assert files_in(tmp_path) == ["toy", "toy/one.csv"]


# -- options ----------------------------------------------------------------------------------


def test_the_data_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("DIALPREF_DATA", raising=False)
    assert _fetching.data_home_of(None) == tmp_path / "sklearn_dialpref_data"
    assert _fetching.data_home_of("~/here") == tmp_path / "here"
    monkeypatch.setenv("DIALPREF_DATA", str(tmp_path / "there"))
    assert _fetching.data_home_of(None) == tmp_path / "there"


def test_a_fingerprint_knows_values_not_kinds_of_columns():
    frame = pd.DataFrame({"a": ["x", None], "n": [1, 2]})
    same = frame.astype({"a": "category"})
    other = frame.assign(a=["x", np.nan]).astype({"a": object})
    assert fingerprint_of(frame) == fingerprint_of(same) == fingerprint_of(other)
    assert fingerprint_of(frame) != fingerprint_of(frame.assign(a=["x", "None"]))
    assert fingerprint_of(frame) != fingerprint_of(frame.rename(columns={"a": "b"}))


@pytest.mark.parametrize("fetch", list(FETCHERS.values()))
def test_missing_packages_name_the_extra(fetch, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r'need pooch.*"sklearn-dialpref\[datasets\]"'):
        fetch(data_home=tmp_path)


@pytest.mark.parametrize(
    ("fetch", "options"),
    [
        (fetch_meld, {"task": "type"}),
        (fetch_meld, {"subset": "tests"}),
        (fetch_deli, {"task": ["type"]}),
        (fetch_p4g, {"task": "gold"}),
    ],
)
def test_unknown_choices(fetch, options, tmp_path):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=rf"{name} must be one of \[.*\], got ") as error:
        fetch(data_home=tmp_path, **options)
    assert repr(value) in str(error.value)
