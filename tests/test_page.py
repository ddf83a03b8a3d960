"""A page: what goes into it shows as what it is, and the document stands alone."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.page import Markup, command, element, escaped, facts, joined, page, paragraph, section, table

NASTY = '<script>alert("x")</script> \' & \x1b[31m \u202egnp.exe'


class Reader(HTMLParser):
    """Reads a document as a browser does: its elements, its text, and whether all that is opened is closed."""

    VOID = frozenset({"meta"})

    def __init__(self, document: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self.balanced = True
        self.feed(document)
        self.close()
        self.balanced &= not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element that begins."""
        self.names.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Note an element that ends."""
        self.balanced &= bool(self.open) and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Collect what is shown."""
        self.text += data


def test_text_shows_as_it_is() -> None:
    """Neither an element nor an attribute can begin within text from data."""
    assert escaped("<a href='x'>\"&") == "&lt;a href=&#x27;x&#x27;&gt;&quot;&amp;"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x00\x1b\x7f\r", "\\x00\\x1b\\x7f\\r"),
        ("\u202e\u2066\u200f\ufeff", "\\u202e\\u2066\\u200f\\ufeff"),
        ("\x85\u2028", "\\x85\\u2028"),
        ("\udc80", "\\udc80"),
        ("\U000e0041", "\\U000e0041"),
        ("a\tb\nc \u200d", "a\tb\nc \u200d"),
        ("שלום é 😀", "שלום é 😀"),
        (12, "12"),
    ],
)
def test_what_does_not_show_is_spelt_out(text: object, expected: str) -> None:
    """Controls, marks of direction and halves of characters would hide something or turn it around."""
    assert expected == escaped(text)


def test_markup_is_not_escaped_twice() -> None:
    """What is HTML already goes into the page as it is."""
    assert escaped(escaped("<")) == "&lt;"
    assert isinstance(escaped("<"), Markup)
    assert joined(["<", Markup("<i>"), 1]) == "&lt;<i>1"


def test_an_element_has_its_attributes() -> None:
    """Python's names for them become HTML's; values are escaped, None is left out."""
    said = element("a", "<here>", href='"x"', class_="quiet", aria_label="to x", hidden=True, title=None)
    assert said == '<a href="&quot;x&quot;" class="quiet" aria-label="to x" hidden>&lt;here&gt;</a>'


def test_the_parts_of_a_page() -> None:
    """Paragraphs, sections, facts and commands are the elements that browsers and readers know."""
    assert paragraph("a ", element("b", "c"), class_="bad") == '<p class="bad">a <b>c</b></p>'
    assert section("A & B", [paragraph("c")]) == "<section><h2>A &amp; B</h2><p>c</p></section>"
    assert facts([("a", "<b>")]) == "<dl><dt>a</dt><dd>&lt;b&gt;</dd></dl>"
    assert command("moe-bulk upload 'a b'") == "<pre><code>moe-bulk upload &#x27;a b&#x27;</code></pre>"


def test_a_table_has_its_numbers_to_the_right() -> None:
    """Columns of numbers are marked, head and cells."""
    said = table(["what", "rows"], [["<i>", 3]], numeric=[1])
    assert '<th scope="col">what</th><th scope="col" class="number">rows</th>' in said
    assert '<tr><td>&lt;i&gt;</td><td class="number">3</td></tr>' in said
    assert said.startswith('<div class="wide" tabindex="0"><table><thead>')


def test_words_are_not_broken() -> None:
    """On a telephone `accepted` stays in one piece; what comes from data may be broken anywhere."""
    said = table(["status", "what"], [["accepted", "x" * 100]], words=[0])
    assert '<tr><td class="word">accepted</td><td>xxx' in said
    assert ".word { overflow-wrap: normal; }" in page("A title", [])


def test_the_document_stands_alone() -> None:
    """A browser fetches nothing for it and runs nothing in it, and it is told so."""
    document = page("A title", [paragraph("text")], style=".x { color: red; }")
    read = Reader(document)
    assert document.startswith('<!doctype html>\n<html lang="en">')
    assert read.balanced
    assert set() == {"script", "link", "img", "iframe", "base", "form"} & set(read.names)
    assert [] == [each for each in read.attributes if each[1] in ("src", "href") or each[1].startswith("on")]
    assert "default-src 'none'; style-src 'unsafe-inline'" in "".join(value or "" for *_, value in read.attributes)
    assert None is re.search(r"url\(|@import|https?:", document)


def test_the_document_adapts() -> None:
    """There are colors for a dark screen, a layout for narrow ones, and one for paper."""
    document = page("A title", [], style=".x { color: red; }")
    for expected in ("prefers-color-scheme: dark", "max-width: 36rem", "@media print", ".x { color: red; }"):
        assert expected in document


@given(st.text() | st.just(NASTY))
def test_no_text_breaks_out(text: str) -> None:
    """Whatever text stands in a title, a cell, an attribute or a paragraph: the document has the same elements."""

    def elements(said: str) -> list[str]:
        parts = [paragraph(said), table([said], [[said]]), section(said, [facts([(said, command(said))])])]
        read = Reader(page(said, [*parts, element("i", title=said)]))
        assert read.balanced
        return read.names

    assert elements("") == elements(text)
