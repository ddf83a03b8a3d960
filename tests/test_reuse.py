"""The same command again: every line of the table, and refusals that say what to type."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.columns import Columns
from moe_bulk.config import Credentials
from moe_bulk.errors import RunRefused
from moe_bulk.reuse import Action, Found, IfChanged, decide, differences, settings_that_matter

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path("/data/d.csv.run")
CHANGED = ["d.csv"]
DIFFERING = ["begun with --format csv, now --format auto"]
CREDENTIALS = Credentials("WS", "hunter2hunter2", base_url="http://127.0.0.1:8123")


def refusal(found: Found, if_changed: IfChanged = "refuse") -> str:
    """Tell why the command is refused."""
    with pytest.raises(RunRefused) as caught:
        decide(found, fresh=False, if_changed=if_changed)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(("fresh", "if_changed"), list(product([False, True], get_args(IfChanged))))
def test_a_folder_without_a_run(if_changed: IfChanged, *, fresh: bool) -> None:
    """A new run starts, whatever was asked for."""
    assert Action.START == decide(None, fresh=fresh, if_changed=if_changed)


@pytest.mark.parametrize("if_changed", get_args(IfChanged))
def test_an_unfinished_run_of_the_same_bytes_and_settings(if_changed: IfChanged) -> None:
    """It goes on."""
    assert Action.GO_ON == decide(Found(FOLDER), fresh=False, if_changed=if_changed)


@pytest.mark.parametrize("if_changed", get_args(IfChanged))
def test_a_finished_run_of_the_same(if_changed: IfChanged) -> None:
    """Nothing is sent."""
    assert Action.DONE == decide(Found(FOLDER, finished=True), fresh=False, if_changed=if_changed)


@pytest.mark.parametrize(("differing", "if_changed"), list(product([[], DIFFERING], get_args(IfChanged))))
def test_a_finished_run_of_other_bytes(differing: list[str], if_changed: IfChanged) -> None:
    """It makes room by itself: today's file is not yesterday's, with today's settings."""
    found = Found(FOLDER, finished=True, changed=CHANGED, differing=differing)

    assert Action.MOVE_ASIDE == decide(found, fresh=False, if_changed=if_changed)


@pytest.mark.parametrize("differing", [[], DIFFERING])
def test_an_unfinished_run_of_other_bytes(differing: list[str]) -> None:
    """Rows of it wait to be sent: only who says so leaves them."""
    found = Found(FOLDER, changed=CHANGED, differing=differing)

    assert refusal(found) == (
        "/data/d.csv.run holds an unfinished run of other data (changed: d.csv). To finish that run, give it the data "
        "that it began with. To leave it and start over, add --fresh, or --if-changed fresh where this is usual; it "
        "will be moved aside"
    )
    assert Action.MOVE_ASIDE == decide(found, fresh=False, if_changed="fresh")


@pytest.mark.parametrize(
    ("finished", "state", "way"),
    [(True, "a finished", "see its results again"), (False, "an unfinished", "go on")],
)
@pytest.mark.parametrize("if_changed", get_args(IfChanged))
def test_a_run_with_other_settings_that_matter(if_changed: IfChanged, state: str, way: str, *, finished: bool) -> None:
    """The settings are named as they are typed, with every way out."""
    assert refusal(Found(FOLDER, finished=finished, differing=DIFFERING), if_changed) == (
        f"/data/d.csv.run holds {state} run of the same data, begun with other settings: begun with --format csv, now "
        f"--format auto. To {way}, use the settings that it began with. To start over, add --fresh; it will be moved "
        "aside. To keep both, choose another folder with --out"
    )


@pytest.mark.parametrize(
    ("finished", "changed", "differing", "if_changed"),
    list(product([False, True], [[], CHANGED], [[], DIFFERING], get_args(IfChanged))),
)
def test_any_of_these_with_fresh(
    changed: list[str], differing: list[str], if_changed: IfChanged, *, finished: bool
) -> None:
    """It is moved aside, and nothing else is asked."""
    found = Found(FOLDER, finished=finished, changed=changed, differing=differing)

    assert Action.MOVE_ASIDE == decide(found, fresh=True, if_changed=if_changed)


def test_many_changed_sources_are_not_all_told() -> None:
    """A glob may match thousands of files, some with names that are no UTF-8."""
    said = refusal(Found(FOLDER, changed=["a\udc80", *map(str, range(2000))]))

    assert "(changed: a\\udc80, 0, 1 and 1,998 more)" in said


def test_settings_that_matter() -> None:
    """What the contract names, in the form that JSON gives back; neither the key nor the port is among it."""
    columns = Columns.parse(["customer_id=u id"], ["platform=iOS"], ["z=1", "a=2"], validate="basic")

    settings = settings_that_matter(CREDENTIALS, columns, "csv")

    assert settings == {
        "workspace_id": "WS",
        "destination": "127.0.0.1",
        "format": "csv",
        "columns": {"customer_id": "u id"},
        "constants": {"platform": "iOS"},
        "where": [["a", "2"], ["z", "1"]],
        "validate": "basic",
        "include_superseded": False,
        "changed_only": False,
    }
    assert settings == orjson.loads(orjson.dumps(settings))


def test_settings_that_are_no_utf8_survive_their_way_through_json() -> None:
    """Words of a command line may hold any bytes."""
    columns = Columns.parse(["customer_id=u\udc80"], ["platform=\udc81"], ["z\udc82=\udc83"])
    settings = settings_that_matter(CREDENTIALS, columns, "auto")

    assert () == differences(orjson.loads(orjson.dumps(settings)), settings)


def test_what_does_not_matter_is_no_setting() -> None:
    """The order of filters changes no row's result."""
    first = settings_that_matter(CREDENTIALS, Columns.parse(where=["a=1", "b=2"]), "auto")
    second = settings_that_matter(CREDENTIALS, Columns.parse(where=["b=2", "a=1"]), "auto")

    assert () == differences(first, second)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"workspace_id": "A"}, {"workspace_id": "B"}, "begun with --workspace-id A, now --workspace-id B"),
        (
            {"destination": "api-01.moengage.com"},
            {"destination": "127.0.0.1"},
            "begun with destination api-01.moengage.com, now destination 127.0.0.1",
        ),
        (
            {"columns": {"customer_id": "u id"}},
            {"columns": {}},
            "begun with --column 'customer_id=u id', now no --column",
        ),
        ({}, {"constants": {"platform": "iOS"}}, "begun with no --set, now --set platform=iOS"),
        ({"where": [["a", "1"], ["b", "2"]]}, {}, "begun with --where a=1 --where b=2, now no --where"),
        ({"changed_only": True}, {"changed_only": False}, "begun with --changed-only, now no --changed-only"),
        ({"format": "a\x1b[31m"}, {"format": "csv"}, "begun with --format 'a\\x1b[31m', now --format csv"),
        ({"o\x07dd": ["x"]}, {}, "begun with --'o\\x07dd' x, now no --'o\\x07dd'"),
    ],
)
def test_differences_are_told_as_they_are_typed(
    before: Mapping[str, object], now: Mapping[str, object], expected: str
) -> None:
    """Ready to be typed again, and harmless in a terminal whatever a damaged checkpoint says."""
    assert (expected,) == differences(before, now)


@pytest.mark.parametrize("empty", [None, False, "", [], {}])
def test_a_missing_setting_is_an_empty_one(empty: object) -> None:
    """A run of an older version, which did not know a setting, goes on where it is not in use."""
    assert () == differences({}, {"changed_only": empty})
    assert () == differences({"changed_only": empty}, {})


def test_all_differences_are_told() -> None:
    """In the order in which the run has them, then what is new."""
    told = differences({"format": "csv", "validate": "basic", "same": "x"}, {"same": "x", "preset": "p"})

    assert told == (
        "begun with --format csv, now no --format",
        "begun with --validate basic, now no --validate",
        "begun with no --preset, now --preset p",
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), JSON), st.dictionaries(st.text(max_size=5), JSON))
def test_differences_of_anything(before: dict[str, object], now: dict[str, object]) -> None:
    """Whatever a checkpoint holds is told in one printable line, and nothing differs from itself."""
    assert () == differences(before, before)
    assert all(told.isprintable() for told in differences(before, now))
    assert len(differences(before, now)) == len(differences(now, before))
