"""`moe-bulk completion`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from moe_bulk.cli import shells
from moe_bulk.cli.app import app, examples
from moe_bulk.config import DATA_CENTERS
from moe_bulk.options import PACES
from moe_bulk.streams import Unbreakable

if TYPE_CHECKING:
    from cyclopts.argument import Argument

_FILES = frozenset({"file", "bundle", "config", "out", "state", "preset", "folder", "dir"})
"""The last words in the names of options that take a file or a folder."""


@app.command(
    help_epilogue=examples(
        'bash, in ~/.bashrc:                  eval "$(moe-bulk completion bash)"',
        'zsh, in ~/.zshrc, behind compinit:   eval "$(moe-bulk completion zsh)"',
        "fish, once:",
        "  moe-bulk completion fish > ~/.config/fish/completions/moe-bulk.fish",
    )
)
def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="Which shell is to complete.")], /
) -> int:
    """Print a script with which a shell completes commands, options, values and files."""
    script = getattr(shells, shell)([described(name) for name in app if not name.startswith("-")])
    Unbreakable(sys.stdout).say(script)
    return 0


def described(name: str) -> shells.Command:
    """A command as the scripts need it: from its own arguments, so that a new one is completed, too."""
    arguments = [each for each in app[name].assemble_argument_collection() if each.parameter.help]
    words = [each for each in arguments if not any(label.startswith("-") for label in each.names)]
    options = [_option(each) for each in arguments if each not in words]
    choices = tuple(choice for each in words for choice in each.get_choices() or ())
    if name == "config":
        choices = tuple(each for each in app if not each.startswith("-"))
    return shells.Command(name, _sentence(app[name].help), options, bool(words) and not choices, choices)


def _option(argument: Argument) -> shells.Option:
    names = tuple(argument.names)
    long = next(name for name in names if name.startswith("--")).lstrip("-")
    choices = tuple(argument.get_choices() or ())
    if long == "preset":
        from moe_bulk.presets import names as presets  # noqa: PLC0415  for this command only

        choices = tuple(presets())
    if long == "pace":
        choices = PACES
    if long == "data-center":
        choices = DATA_CENTERS
    kind = argument.hint
    return shells.Option(
        names=names,
        about=_sentence(argument.parameter.help or ""),
        takes_value=kind is not bool,
        choices=choices,
        files=long.rpartition("-")[2] in _FILES,
        repeatable=isinstance(argument.field_info.default, tuple),
    )


def _sentence(text: str) -> str:
    """The first line, without the full stop of its only sentence."""
    return text.strip().partition("\n")[0].rstrip(".")
