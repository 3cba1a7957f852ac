"""A dialogue to look at: what is shown of it, and that nothing in it acts as markup."""

import re
import unicodedata
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pytest

from sklearn_dialpref.inspection.dialogue_view import show_dialogue

HOSTILE = [
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>",
    "</div></div></details></style></title><style>*{display:none}</style><h1>huge",
    "\" onmouseover=\"window.hacked=1\" ' onfocus='window.hacked=1' autofocus='",
    "&lt;b&gt; &#x3C;script&#x3E; &amp;",
    "<!-- <![CDATA[ ]]> --!>",
    "<iframe src=https://example.org></iframe><link rel=stylesheet href=//example.org/a.css>",
    "\u202egnp.exe\u202c \u2066\u2067\u200f\u061c",
    "NUL \x00 bell \x07 \x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J",
    "zero\u200bwidth\ufeff soft\xadhyphen \U000e0041\U000e0042",
    "Z" + "\u0301\u0334\u0316" * 200,
    "W" * 3000,
    "\n" * 300 + "end",
    "שלום, החבילה שלי לא הגיעה 123!",
    "مرحبا أين طردي؟ <b>bold</b>",
    "漢字かな交じり文" * 20,
]


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


def chat(texts, speakers=None, dialogue_id="d"):
    columns = {"dialogue_id": dialogue_id, "text": texts, "turn": range(len(texts))}
    return pd.DataFrame(columns if speakers is None else columns | {"speaker": speakers})


def suspected(row, source, label, suggestion, probability):
    names = ("row", "source", "label", "suggestion", "probability_wrong")
    values = (row, source, label, suggestion, probability)
    return SimpleNamespace(**{n: np.array(v) for n, v in zip(names, values, strict=True)})


def remarks(view):
    """The lines under the utterances."""
    return [line.split("- ", 1)[1] for line in str(view).splitlines() if re.match(r" +- ", line)]


def labels_alone(**labels):
    return remarks(show_dialogue(["Hi"] * 3, **labels))


# -- what is shown --------------------------------------------------------------------------


def test_the_text(monkeypatch):
    monkeypatch.setenv("COLUMNS", "72")
    X = chat(
        [
            "Where is my parcel?",
            "I am sorry, it is late. It will be there on Monday morning.",
            "Ok",
        ],
        ["customer", "agent", "customer"],
    )
    view = show_dialogue(
        X,
        y_human=["neutral", "negative", None],
        y_llm=[["neutral"] * 3, ["negative", "neutral", "neutral"], ["neutral", None, None]],
        predicted=["neutral", "negative", "positive"],
        proba=[[0.1, 0.8, 0.1], [0.999, 0.001, 0], [0, 0, 1]],
        classes=["negative", "neutral", "positive"],
        suggestions=SimpleNamespace(rows=[2], reason=["rare class"]),
        suspects=suspected([1], ["human"], ["negative"], ["neutral"], [0.87]),
    )
    expected = """\
Dialogue d: 3 turns, 2 disagreements, 1 suspect label, 1 to label next

  0  customer  Where is my parcel?
             - human neutral | LLM neutral 100 % | student neutral 80 %
! 1  agent     I am sorry, it is late. It will be there on Monday
               morning.
             - human negative | LLM neutral 67 % != human | student
               negative >99 %
             - Human label is probably wrong (87 %): negative -> neutral
! 2  customer  Ok
             - LLM neutral 100 % | student positive 100 % != LLM
             - Label next, no. 1: rare class"""
    assert str(view) == expected
    assert repr(view) == expected


def test_rows_in_any_order():
    X = chat(["a", "b", "c", "d"], ["x", "y", "x", "y"])
    y = pd.Series(["p", "q", None, "p"])
    shuffled = [2, 0, 3, 1]
    view = show_dialogue(X, y_human=y, y_llm=["p"] * 4, suggestions=[3])
    other = show_dialogue(
        X.iloc[shuffled], y_human=y.iloc[shuffled], y_llm=["p"] * 4, suggestions=[2]
    )
    assert str(view) == str(other)
    assert str(view).index("  a\n") < str(view).index("  b\n") < str(view).index("  d\n")


@pytest.mark.parametrize(
    "form", [lambda X: X, pl.from_pandas, lambda X: X.to_numpy(), lambda X: X.to_numpy().tolist()]
)
def test_forms_of_tables(form):
    X = pd.DataFrame({"dialogue_id": ["b", "a", "b"], "text": ["one", "two", "three"]})
    assert str(show_dialogue(form(X), "b")) == "Dialogue b: 2 turns\n\n  1  one\n  2  three"


@pytest.mark.parametrize("form", [list, np.array, pd.Series, pl.Series])
def test_texts_that_name_no_dialogue(form):
    texts = form(["one", "two"])
    assert str(show_dialogue(texts)).splitlines()[2:] == ["  1  one", "  2  two"]
    assert str(show_dialogue(texts, 1)).splitlines()[2:] == ["  1  two"]


def test_the_first_dialogue_is_the_default():
    X = pd.DataFrame({"dialogue_id": [7, 3, 12], "text": ["seven", "three", "twelve"]})
    lines = str(show_dialogue(X)).splitlines()
    assert lines[0] == "Dialogue 3: 1 turn"
    assert lines[1] == "The first of 3 dialogues; choose another by dialogue_id=..."
    assert "dialogue_id=..." not in str(show_dialogue(X, 3))
    assert "seven" in str(show_dialogue(X, X["dialogue_id"].iloc[0]))


def test_no_such_dialogue():
    X = pd.DataFrame({"dialogue_id": [7, 3, 12], "text": ["seven", "three", "twelve"]})
    with pytest.raises(ValueError, match=r"no dialogue 5; pass one of its 3 dialogues, such as 3"):
        show_dialogue(X, 5)
    with pytest.raises(ValueError, match="no dialogue '7'; it has 7 of the type int"):
        show_dialogue(X, "7")
    with pytest.raises(ValueError, match="dialogue_id must name one dialogue"):
        show_dialogue(X, [7, 3])


def test_features_cannot_be_shown():
    with pytest.raises(ValueError, match="no texts to show"):
        show_dialogue(np.eye(3))


def test_speakers_are_named_where_they_are_known():
    view = show_dialogue(chat(["a", "b", "c"], ["ann", None, "ann"]))
    assert [line[5:8] for line in str(view).splitlines()[2:]] == ["ann", "   ", "ann"]
    assert view._repr_html_().count("ann</bdi>") == 2


def test_speakers_are_on_two_sides_if_there_are_two():
    two = show_dialogue(chat(["a", "b", "c"], ["ann", "bob", "ann"]))._repr_html_()
    three = show_dialogue(chat(["a", "b", "c"], ["ann", "bob", "cid"]))._repr_html_()
    sides = re.compile(r'"dp-turn([^"]*)"')
    assert sides.findall(two) == [" dp-s0", " dp-s1 dp-right", " dp-s0"]
    assert sides.findall(three) == [" dp-s0", " dp-s1", " dp-s2"]


# -- labels -------------------------------------------------------------------------------


def test_human_labels_of_one_class_and_none_at_all():
    assert labels_alone(y_human=["a", None, "a"]) == ["human a", "human a"]
    assert labels_alone(y_human=[None] * 3, y_llm=[[None, None]] * 3) == []
    assert labels_alone(y_human=np.array([1, np.nan, 2])) == ["human 1", "human 2"]


def test_labels_votes_and_scores_of_the_llm():
    assert labels_alone(y_llm=["a", None, "b"]) == ["LLM a", "LLM b"]
    votes = [["a", "b", "b"], [None] * 3, ["a", None, None]]
    assert labels_alone(y_llm=votes) == ["LLM b 67 %", "LLM a 100 %"]
    scores = np.array([[0.004, 0.996], [np.nan, np.nan], [0.7, 0.3]])
    expected = ["LLM y >99 %", "LLM x 70 %"]
    assert labels_alone(y_llm=scores, classes=["x", "y"]) == expected
    assert labels_alone(y_llm=pd.DataFrame(scores, columns=["x", "y"])) == expected
    with_human = labels_alone(y_llm=scores, y_human=["x", None, "y"])
    assert with_human == ["human x | LLM y >99 % != human", "human y | LLM x 70 % != human"]
    with pytest.raises(ValueError, match="classes of the columns of y_llm are unknown"):
        labels_alone(y_llm=scores)


@pytest.mark.parametrize(
    ("human", "llm", "student", "expected"),
    [
        ("a", "a", "a", "human a | LLM a | student a"),
        ("a", "b", "a", "human a | LLM b != human | student a"),
        ("a", "b", "b", "human a | LLM b != human | student b != human"),
        (None, "b", "a", "LLM b | student a != LLM"),
        ("a", None, "b", "human a | student b != human"),
        ("a", "a", None, "human a | LLM a | student no label"),
    ],
)
def test_disagreements(human, llm, student, expected):
    view = show_dialogue(
        ["Hi", "x"], 0, y_human=[human, "a"], y_llm=[llm, "b"], predicted=[student, "a"]
    )
    assert remarks(view) == [expected]
    assert view._repr_html_().count("dp-differs") == expected.count("!=") + 1  # once in the style


def test_labels_are_alike_whatever_their_type_of_number():
    rows = labels_alone(y_human=[1, None, 2], y_llm=np.array([1.0, np.nan, 3.0]))
    assert rows == ["human 1 | LLM 1", "human 2 | LLM 3 != human"]


def test_labels_of_different_types():
    with pytest.raises(ValueError, match="y_human holds labels such as '1' but predicted such"):
        labels_alone(y_human=["1", "2", None], predicted=[1, 2, 2])


@pytest.mark.parametrize("name", ["y_human", "y_llm", "predicted"])
def test_labels_for_other_rows(name):
    with pytest.raises(ValueError, match=f"{name} has 2 rows but X has 3"):
        labels_alone(**{name: ["a", "b"]})


def test_the_probability_of_the_predicted_label():
    proba = [[0.5, 0.1, 0.4], [0.2, 0.3, 0.5], [1e-9, 0, 1]]
    names = ["a", "b", "c"]
    rows = labels_alone(predicted=["c", None, "a"], proba=proba, classes=names)
    assert rows == ["student c 40 %", "student no label", "student a <1 %"]
    assert labels_alone(proba=pd.DataFrame(proba, columns=names))[0] == "student a 50 %"
    with pytest.raises(ValueError, match="predicted holds 'd' in row 1"):
        labels_alone(predicted=["c", "d", "a"], proba=proba, classes=names)
    with pytest.raises(ValueError, match="which column of proba is which class is unknown"):
        labels_alone(proba=proba)
    with pytest.raises(ValueError, match=r"\(3, 2\), but has the shape \(3, 3\)"):
        labels_alone(proba=proba, classes=["a", "b"])
    with pytest.raises(ValueError, match=r"proba must lie in \[0, 1\], but row 0"):
        labels_alone(proba=np.array(proba) * 3, classes=names)


def test_several_labels():
    human = pd.DataFrame({"greet": [1, 0, None], "ask": [1, 0, None]})
    scores = pd.DataFrame({"ask": [0.4, 0.2, 0.6], "greet": [0.9, 0.1, 0.7]})
    rows = labels_alone(
        y_human=human,
        y_llm=scores,
        predicted=np.array([[1, 1], [0, 0], [0, 1]]),
        proba=np.array([[0.6, 0.45], [0.1, 0.2], [0.3, 0.8]]),
    )
    assert rows == [
        "human greet, ask | LLM greet 90 % != human | student greet 60 %, ask 45 %",
        "human no label | LLM no label | student no label",
        "LLM ask 60 %, greet 70 % | student ask 80 % != LLM",
    ]
    unknown = labels_alone(
        y_human=[[1, None], [None, 0], [None, None]], predicted=np.eye(3)[:, :2]
    )
    assert unknown == [
        "human 0 | student 0",
        "human no label | student 1 != human",
        "student no label",
    ]
    with pytest.raises(ValueError, match="predicted is 1-D beside labels in a 2-D table"):
        labels_alone(y_human=human, predicted=["ask"] * 3)


def test_states():
    human = [{"area": "north"}, None, {"area": "north", ("hotel", "stars"): ["4", "four"]}]
    student = [{}, {"area": "north"}, {"area": "north", ("hotel", "stars"): "four"}]
    assert labels_alone(y_human=human, predicted=student) == [
        "human area = north | student (empty state) != human",
        "student area = north",
        "human area = north; hotel stars = 4 | student area = north; hotel stars = 4",
    ]
    with pytest.raises(TypeError, match="predicted must hold dicts"):
        labels_alone(y_human=human, predicted=["a", "b", "c"])
    with pytest.raises(ValueError, match="y_llm must hold one state"):
        labels_alone(y_human=human, y_llm=[[state, state] for state in student])


# -- flags and folds --------------------------------------------------------------------------


def test_suggestions():
    X = ["a", "b", "c"]
    assert remarks(show_dialogue(X, suggestions=np.array([2, 0]))) == [
        "Label next, no. 2",
        "Label next, no. 1",
    ]
    assert remarks(show_dialogue(X, suggestions=[])) == []
    with pytest.raises(ValueError, match="suggestions names row 3, but X has 3 rows"):
        show_dialogue(X, suggestions=[0, 3])
    with pytest.raises(ValueError, match=r"np.flatnonzero\(…\) makes positions of a mask"):
        show_dialogue(X, suggestions=[True, False, True])


def test_suspects():
    suspects = suspected(
        [1, 1, 0], ["human", "llm", "llm"], [2.0, 1.0, 1.0], [1.0, 2.0, 2.0], [0.87, 0.6, 0.4]
    )
    view = show_dialogue(["a", "b"], suspects=suspects)
    assert remarks(view) == [
        "Human label is probably wrong (87 %): 2 -> 1",
        "LLM label is probably wrong (60 %): 1 -> 2",
    ]
    assert "2 suspect labels" in str(view)
    with pytest.raises(ValueError, match="suspects names row 1, but X has 1 rows"):
        show_dialogue(["a"], suspects=suspects)
    with pytest.raises(TypeError, match="what suspect_labels returns, but a list"):
        show_dialogue(["a", "b"], suspects=[0])


def numbers_in(view):
    return [int(n) for n in re.findall(r"^[! ] +(\d+)  \w", str(view), re.MULTILINE)]


def test_long_dialogues_are_folded():
    X = chat([f"text{row}" for row in range(200)])
    y_human = ["a"] * 200
    predicted = ["b" if row == 150 else "a" for row in range(200)]
    view = show_dialogue(X, y_human=y_human, predicted=predicted, suggestions=[100], max_turns=6)
    # a gap of two turns would save no room
    assert numbers_in(view) == [0, 1, 99, 100, 101, 150]
    assert "... 97 more turns ..." in str(view)
    html = view._repr_html_()
    assert html.count("<details") == 3
    assert all(f">text{row}<" in html for row in range(200))
    assert numbers_in(show_dialogue(X, max_turns=None)) == list(range(200))
    assert numbers_in(show_dialogue(X)) == list(range(50))
    assert (
        "1 disagreement"
        in show_dialogue(X, y_human=y_human, predicted=predicted, max_turns=1)._repr_html_()
    )
    near = show_dialogue(X.iloc[:10], suggestions=[0, 4], max_turns=5)
    assert numbers_in(near) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="max_turns == 0"):
        show_dialogue(X, max_turns=0)


def test_5000_turns_stay_small():
    X = chat(["An utterance of ordinary length, as people say it."] * 5000, ["a", "b"] * 2500)
    y = ["neutral", "positive"] * 2500
    view = show_dialogue(X, y_human=y, y_llm=y, predicted=y)
    assert len(view._repr_html_()) < 5000 * 600
    assert len(str(view).splitlines()) < 120


def test_long_texts_are_folded():
    view = show_dialogue(["x" * 5000, "\n" * 500 + "end"])
    html = view._repr_html_()
    assert "3,800 more characters" in html
    assert html.count("x" * 1000) == 4
    assert len(str(view).splitlines()) < 40


# -- nothing in the data acts -------------------------------------------------------------------


class Page(HTMLParser):
    """What a page is made of, its texts, and which of them stand alone for their direction."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.parts, self.text, self.mingled, self.hidden, self.open = [], "", "", [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.text += attributes.pop("aria-label", "")
        self.open.append((tag, attributes))
        if not self.in_hidden():
            self.parts.append((tag, attributes))
        if tag == "meta":
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.in_hidden():
            self.parts.append(tag)
        assert self.open.pop()[0] == tag

    def handle_comment(self, data):
        self.parts.append(data)

    handle_decl = handle_pi = unknown_decl = handle_comment

    def in_hidden(self):
        return any(attributes.get("class") == "dp-hidden" for _, attributes in self.open)

    def handle_data(self, data):
        tags = [tag for tag, _ in self.open]
        if self.in_hidden():
            self.hidden.append(data)
        if "style" in tags:
            return
        self.text += data
        alone = any(tag == "bdi" or "dir" in attributes for tag, attributes in self.open)
        if not alone and tags[-1] not in ("title", "head"):
            self.mingled += data


def everywhere(text):
    """A view to which this text came as everything that a user can give."""
    other = f"{text}?"
    return show_dialogue(
        chat([text, other], [text, other], text),
        y_human=[text, None],
        y_llm=[[text, text], [other, other]],
        predicted=[other, text],
        proba=[[0.4, 0.6], [0.8, 0.2]],
        classes=[text, other],
        suggestions=SimpleNamespace(rows=[0], reason=[text]),
        suspects=suspected([1], ["llm"], [text], [other], [0.8]),
    )


SHORT = [text for text in HOSTILE if len(text) < 1000 and text.count("\n") < 3]


@pytest.mark.parametrize("text", SHORT)
def test_data_is_never_markup(text):
    page, expected = Page(everywhere(text).to_html()), Page(everywhere("plain").to_html())
    assert page.parts == expected.parts
    assert page.open == []
    if text.isprintable():
        assert page.text == expected.text.replace("plain", text)
    assert page.mingled == expected.mingled


def test_other_attributes_and_summaries_hold_no_data():
    html = everywhere("</b>").to_html().replace("&lt;/b&gt;", "")
    assert "&" not in html


@pytest.mark.parametrize("html", ["to_html", "_repr_html_"])
def test_states_are_never_markup(html):
    state = {("<i>", "\u202e"): ["<b>", '"'], "<u>": "</div>"}
    view = show_dialogue(["Hi"], y_human=[state], predicted=[{}])
    plain = show_dialogue(["Hi"], y_human=[{"a": "b"}], predicted=[{}])
    assert Page(getattr(view, html)()).parts == Page(getattr(plain, html)()).parts


def test_the_page_stands_alone():
    page = everywhere("Hi").to_html()
    assert page.startswith("<!DOCTYPE html>")
    assert '<meta charset="utf-8">' in page
    assert "default-src 'none'" in page
    assert not re.search(r"https?:|//|url\(|@import|@font-face|<script|\son\w+=", page)
    assert everywhere("Hi")._repr_html_() in page


def test_the_style_leaves_the_notebook_alone():
    style = re.search("<style>(.*)</style>", everywhere("Hi")._repr_html_(), re.DOTALL)[1]
    style = re.sub(r"/\*.*?\*/", "", style, flags=re.DOTALL)
    selectors = [rule.split("{")[0].strip() for rule in style.split("}")[:-1]]
    assert len(selectors) > 20
    theme = r":is\([^{}]*\) \.dialpref-view"
    assert all(re.fullmatch(rf"\.dialpref-view( \.dp-.*)?|{theme}", name) for name in selectors)


def invisible_characters():
    """By Unicode's own table, but for signs that stand over numbers and for hieroglyphs."""
    for code in range(0x110000):
        character = chr(code)
        category = unicodedata.category(character)
        shaped = 0x600 <= code <= 0x605 or code in (0x6DD, 0x70F, 0x890, 0x891, 0x8E2)
        shaped |= code in (0x110BD, 0x110CD) or 0x13430 <= code <= 0x1345F
        if category in ("Cc", "Cf", "Zl", "Zp") and not shaped and character not in "\t\n":
            yield character
    yield from "\u034f\u115f\u1160\u17b4\u17b5\u180b\u2800\u3164\uffa0\U000e0100"


def test_invisible_characters_are_seen():
    for character in invisible_characters():
        text = f"a{character}b"
        view = show_dialogue(chat([text], [text], text), y_human=[text])
        for shown in (view._repr_html_(), view.to_html(), str(view)):
            assert character not in shown
        escape = character.encode("unicode_escape").decode()
        assert Page(view._repr_html_()).hidden == [escape]
        assert str(view).count(f"a{escape}b") == 4


@pytest.mark.parametrize("text", ["a\u200dم", "م\u200da", "a\ufe0f\ufe01b", "م\u200c\u200cم"])
def test_characters_that_hide_where_nothing_needs_them_are_seen(text):
    assert Page(show_dialogue([text])._repr_html_()).hidden


@pytest.mark.parametrize(
    "text", ["می‌خواهم", "क्‍ष", "👩‍👩‍👧‍👦 ❤️‍🔥 👍🏽", "naïve café", "line\n\tindented", "a\xa0b"]
)
def test_characters_that_writing_needs_are_left_alone(text):
    assert Page(show_dialogue([text])._repr_html_()).text.endswith(text)


def test_line_ends_of_windows():
    assert str(show_dialogue(["a\r\nb"])).endswith("1  a\n     b")
    assert show_dialogue(["a\rb"])._repr_html_().count("dp-hidden") == 2  # once in the style


@pytest.mark.parametrize("columns", [40, 100])
def test_the_text_fits_the_terminal(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    wide = "WF"
    for text in HOSTILE:
        for line in str(everywhere(text)).splitlines()[1:]:
            shown = [c for c in line if unicodedata.category(c) not in ("Mn", "Cf")]
            assert (
                len(shown) + sum(unicodedata.east_asian_width(c) in wide for c in shown) <= columns
            )
            assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", line)


def test_an_utterance_cannot_forge_labels():
    view = show_dialogue(
        ["Hi\n- human a\n     - human b\r- human c\u2028- human d"], y_human=["e"]
    )
    lines = str(view).splitlines()
    assert len(lines) == 6
    assert [line for line in lines if line.startswith("   -")] == ["   - human e"]


# -- in a browser -------------------------------------------------------------------------------

CONTRASTS = """() => {
  const context = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const painted = (...colours) => {
    for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map(value => value / 255);
  };
  const luminance = rgb => {
    const [r, g, b] = rgb.map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = element => {
    const grounds = [];
    for (let at = element; at; at = at.parentElement)
      grounds.unshift(getComputedStyle(at).backgroundColor);
    const back = luminance(painted('white', ...grounds));
    const front = luminance(painted(getComputedStyle(element).color));
    return (Math.max(back, front) + 0.05) / (Math.min(back, front) + 0.05);
  };
  const written = [...document.querySelectorAll('.dialpref-view *:not(style)')].filter(
    element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
  return written.map(element => [element.className || element.tagName, contrast(element)]);
}"""
GROUND = "getComputedStyle(document.querySelector('.dialpref-view')).backgroundColor"
OUTSIDE = """() => {
  const view = document.querySelector('.dialpref-view').getBoundingClientRect();
  return [...document.querySelectorAll('.dialpref-view *:not(style)')].filter(element => {
    const box = element.getBoundingClientRect();
    return box.width && (box.left < view.left || box.right > view.right
      || element.scrollWidth > element.clientWidth + 1 && element.clientWidth);
  }).map(element => element.outerHTML.slice(0, 200));
}"""


@pytest.fixture
def opened(browser):
    """Opens a page; all that it complains of or asks for is in ``complaints``."""
    pages = []

    def open_page(html, width=1280, **options):
        page = browser.new_page(viewport={"width": width, "height": 800}, **options)
        pages.append(page)
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: page.complaints.append(request.url))
        page.on("dialog", lambda dialog: page.complaints.append(dialog.message))
        page.set_content(html)
        return page

    yield open_page
    for page in pages:
        page.close()


@pytest.fixture(scope="module")
def hostile():
    n = len(HOSTILE)
    X = chat(HOSTILE, ["שם", "<b>ann", "W" * 300][:3] * (n // 3), "<i>\u202e")
    labels = np.array(["<b>x", "חיובי", "W" * 120])
    human, student = labels[np.arange(n) % 3], labels[np.arange(n) // 5]
    return show_dialogue(
        X,
        y_human=human,
        y_llm=student,
        predicted=student,
        proba=np.full((n, 3), 1 / 3),
        classes=labels,
        suggestions=SimpleNamespace(rows=np.arange(n), reason=HOSTILE),
        suspects=suspected([0, 12], ["human", "llm"], human[:2], student[5:7], [0.9, 0.6]),
        max_turns=10,
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser(opened, hostile, width, scheme):
    page = opened(hostile.to_html(), width, color_scheme=scheme)
    for summary in page.locator("summary").all():
        summary.click()
    page.add_style_tag(content=".dp-turn { content-visibility: visible !important; }")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(OUTSIDE) == []
    assert page.evaluate("window.hacked") is None
    assert page.complaints == []
    assert page.locator(".dp-text").first.inner_text() == HOSTILE[0]
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 100
    assert [named for named in contrasts if named[1] < 4.5] == []
    ground = page.evaluate(GROUND)
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 28)")


@pytest.mark.parametrize(("scheme", "ground"), [("light", 255), ("dark", 20)])
def test_the_system_chooses_where_the_notebook_does_not(opened, hostile, scheme, ground):
    page = opened(hostile._repr_html_(), color_scheme=scheme)
    assert page.evaluate(GROUND).startswith(f"rgb({ground},")


@pytest.mark.parametrize(
    ("theme", "ground"),
    [
        ('data-jp-theme-light="true"', 255),
        ('data-jp-theme-light="false"', 20),
        ('class="vscode-light"', 255),
        ('class="vscode-dark"', 20),
        ('class="vscode-high-contrast"', 20),
        ('data-theme="light"', 255),
        ('data-theme="dark"', 20),
    ],
)
def test_the_theme_of_the_notebook_wins(opened, hostile, theme, ground):
    other = "light" if ground == 20 else "dark"
    page = opened(f"<body {theme}>{hostile._repr_html_()}", color_scheme=other)
    shown = page.evaluate(GROUND)
    assert shown.startswith(f"rgb({ground},")


def test_without_scripts(opened, hostile):
    page = opened(hostile.to_html(), java_script_enabled=False)
    folded = page.locator(".dp-fold .dp-text").first
    assert not folded.is_visible()
    page.locator(".dp-fold > summary").first.click()
    page.mouse.wheel(0, 400)  # rendered once it is in sight
    folded.wait_for(timeout=10_000)
    assert page.get_by_role("region", name="Dialogue").count() == 1
    assert page.get_by_role("listitem").count() == len(HOSTILE)


def test_the_notebook_looks_as_before(opened, hostile):
    cell = (
        "<p class='dp-x turn'>text <small>x</small> <bdi>y</bdi></p><details><summary>z</summary>"
    )
    looks = """() => [...document.querySelectorAll('#cell *')].map(element =>
        JSON.stringify([...getComputedStyle(element)].map(
          name => getComputedStyle(element).getPropertyValue(name))))"""
    alone = opened(f"<div id=cell>{cell}</details></div>")
    beside = opened(f"<div id=cell>{cell}</details></div>{hostile._repr_html_()}")
    assert alone.evaluate(looks) == beside.evaluate(looks)
