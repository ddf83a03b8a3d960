"""A page that somebody opens in a browser: one self-contained HTML document, safe whatever text goes into it."""

from __future__ import annotations

import html
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Nothing is fetched and nothing runs, even if some text found its way through (https://www.w3.org/TR/CSP3/)."""

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""What does not show, or turns around what does: controls, marks of direction, halves of characters."""
_HARMLESS = frozenset("\n\t\u200c\u200d")  # the joiners belong to how Persian, Hindi and emoji are written

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c2128; --quiet: #59636e; --line: #d5dae0; --shade: #f4f6f8;
  --accent: #0b5cad; --second: #8a4600; --good: #1a7f37; --warn: #9a6700; --bad: #b42318; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #14181d; --ink: #e3e8ee; --quiet: #9aa5b1;
  --line: #343c46; --shade: #1d2329; --accent: #6cb1ff; --second: #f0a45d; --good: #56c271; --warn: #dcae3c;
  --bad: #ff8278; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 60rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; overflow-wrap: anywhere; }
h1 { margin: 0 0 .5rem; font-size: 1.6rem; line-height: 1.25; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.2rem; line-height: 1.3; }
p { margin: .5rem 0; }
a { color: var(--accent); }
.quiet { color: var(--quiet); }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); }
.wide { overflow-x: auto; margin: .75rem 0; }
table { width: 100%; border-collapse: collapse; font-size: .94rem; overflow-wrap: normal; }
th, td { padding: .4rem 1rem .4rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { color: var(--quiet); font-weight: 600; }
th:last-child, td:last-child { padding-right: 0; }
td { min-width: 4rem; overflow-wrap: anywhere; unicode-bidi: isolate; }
.word { overflow-wrap: normal; }
.number { width: 1%; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.25rem; margin: .75rem 0; }
dt { color: var(--quiet); }
dd { margin: 0; unicode-bidi: isolate; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { font-size: .92em; }
pre { margin: .75rem 0; padding: .7rem .9rem; background: var(--shade); border-radius: 6px; white-space: pre-wrap; }
@media (max-width: 36rem) { body { padding: 1rem .85rem 3rem; } h1 { font-size: 1.35rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .6rem; } th, td { padding-right: .6rem; } }
@media print { :root { color-scheme: light; } body { max-width: none; padding: 0; font-size: 10pt; }
  .wide { overflow: visible; } h2, tr, pre, figure { break-inside: avoid; } h2 { break-after: avoid; }
  pre { border: 1px solid var(--line); } }
"""


class Markup(str):
    """Text that is HTML already; all other text is escaped where it enters a page."""

    __slots__ = ()


def escaped(text: object) -> Markup:
    r"""The text as HTML that shows just this text; `Markup` stays as it is.

    What is not `visible` is spelt out: `\x1b`, `\u202e`, `\udc80`.

    >>> escaped("<b>&")
    '&lt;b&gt;&amp;'
    """
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(visible(str(text))))


def visible(text: str) -> str:
    """The text with what would not show, or would turn around what stands beside it, spelt out; for terminals, too."""
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character in _HARMLESS or unicodedata.category(character) not in _UNSEEN:
        return character
    return character.encode("ascii", "backslashreplace").decode() if ord(character) > 127 else repr(character)[1:-1]


def joined(parts: Iterable[object]) -> Markup:
    """The parts one behind the other, those that are no `Markup` escaped."""
    return Markup("".join(map(escaped, parts)))


def element(name: str, *parts: object, **attributes: object) -> Markup:
    """An element with these parts in it: `element("a", "here", href="#x", class_="quiet", aria_label="…")`.

    Attributes that are None are left out, True stands for one without a value.
    """
    said = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    return Markup(f"<{name}{said}>{joined(parts)}</{name}>")


def _attribute(key: str, value: object) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escaped(value)}"'


def paragraph(*parts: object, class_: str | None = None) -> Markup:
    """A paragraph; of the classes `quiet`, `good`, `warn` and `bad` every page has the colors."""
    return element("p", *parts, class_=class_)


def section(heading: object, parts: Iterable[object]) -> Markup:
    """A part of the page under a heading of its own."""
    return element("section", element("h2", heading), *parts)


def table(
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    numeric: Collection[int] = (),
    words: Collection[int] = (),
) -> Markup:
    """A table; the columns with these indexes hold numbers, and stand to the right, or words of ours, never broken.

    On a narrow screen it can be moved sideways, with the keyboard too.
    """
    kinds = {**dict.fromkeys(words, "word"), **dict.fromkeys(numeric, "number")}
    titles = (element("th", each, scope="col", class_=kinds.get(at)) for at, each in enumerate(head))
    body = (element("tr", *(element("td", each, class_=kinds.get(at)) for at, each in enumerate(row))) for row in rows)
    made = element("table", element("thead", element("tr", *titles)), element("tbody", *body))
    return element("div", made, class_="wide", tabindex=0)


def facts(pairs: Iterable[tuple[object, object]]) -> Markup:
    """Names and what there is to say of each."""
    return element("dl", *(part for name, value in pairs for part in (element("dt", name), element("dd", value))))


def command(text: object) -> Markup:
    """Something to type in a terminal."""
    return element("pre", element("code", text))


def page(title: str, parts: Iterable[object], *, style: str = "") -> str:
    """The whole document: `parts` under the title as heading. It fetches nothing and runs nothing.

    It adapts to a dark or a light screen, a telephone and paper. `style` is more CSS, of our own making.
    """
    head = (
        '<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escaped(_POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        '<meta name="robots" content="noindex">\n'
        f"<title>{escaped(title)}</title>\n"
        f"<style>{_STYLE}{style}</style>\n"
    )
    body = element("main", element("h1", title), "\n", Markup("\n".join(map(escaped, parts))))
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}</head>\n<body>\n{body}\n</body>\n</html>\n'
