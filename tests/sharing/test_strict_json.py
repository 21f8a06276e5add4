"""The parser of untrusted JSON against Python's own, and depths counted in the parsed documents."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_trmrl import InvalidAgentFile
from sb3_trmrl.sharing.limits import MAX_JSON_DEPTH
from sb3_trmrl.sharing.strict_json import parse

#: Texts of what could be taken for the end of a text, for brackets or for escapes
TEXTS = st.text(st.sampled_from('[]{}"\\u,:aé\U0001f600'), max_size=8)
DOCUMENTS = st.recursive(
    TEXTS | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
)


def _depth(document: Any) -> int:
    if not isinstance(document, (list, dict)):
        return 0
    parts = document.values() if isinstance(document, dict) else document
    return 1 + max(map(_depth, parts), default=0)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("repeated key")
    return dict(pairs)


@settings(max_examples=300, deadline=None)
@given(DOCUMENTS, st.integers(0, MAX_JSON_DEPTH + 1), st.booleans())
def test_documents(document: Any, wrapped: int, ensure_ascii: bool) -> None:
    for _ in range(wrapped):
        document = ["]}", document]
    text = json.dumps(document, ensure_ascii=ensure_ascii)
    if _depth(document) > MAX_JSON_DEPTH:
        with pytest.raises(InvalidAgentFile, match=f"nested more than {MAX_JSON_DEPTH} deep"):
            parse(text.encode(), "it")
    else:
        assert parse(text.encode(), "it") == parse(text, "it") == document


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from('[]{}"\\u,:d80c 1'), max_size=20))
def test_any_text(text: str) -> None:
    try:
        expected = json.loads(text, object_pairs_hook=_unique)
        json.dumps(expected, ensure_ascii=False).encode()
    except ValueError:
        with pytest.raises(InvalidAgentFile):
            parse(text, "it")
    else:
        assert parse(text, "it") == expected


@pytest.mark.parametrize("text", [r'"\ud800"', r'"\uDFFF"', r'{"\ud800": 1}', r'"\udc00\ud800"'])
def test_lone_surrogates(text: str) -> None:
    with pytest.raises(InvalidAgentFile, match="surrogates not allowed"):
        parse(text, "it")
    assert parse(text.replace("\\", "\\\\"), "it") == json.loads(text.replace("\\", "\\\\"))
    assert parse(r'"\ud83d\ude00"', "it") == "\U0001f600"


@pytest.mark.parametrize("text", ["[" * 10**6, '{"a":' * 10**5, '["\\"[",' * 20, "[" * 17 + r"\"" + "]" * 17])
def test_deep_texts_that_are_not_json(text: str) -> None:
    with pytest.raises(InvalidAgentFile, match=f"nested more than {MAX_JSON_DEPTH} deep"):
        parse(text, "it")
