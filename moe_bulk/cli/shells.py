"""Completion scripts for bash, zsh and fish: plain text that needs neither this program nor others at the Tab key."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its names with dashes, what it is for, and what follows it: nothing, one of `choices`, a file."""

    names: tuple[str, ...]
    about: str
    takes_value: bool = False
    choices: tuple[str, ...] = ()
    files: bool = False
    repeatable: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """One command, and whether files or one of `choices` follow it."""

    name: str
    about: str
    options: Sequence[Option] = field(default_factory=list)
    files: bool = False
    choices: tuple[str, ...] = ()


def bash(commands: Sequence[Command]) -> str:
    """For bash 3.2 (macOS) and newer."""
    lines = [
        "# Completion of moe-bulk for bash: moe-bulk completion bash",
        "_moe_bulk() {",
        '  local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" said="" files="" word',
        "  # --pace=host is three words to bash",
        '  if [[ $cur == "=" ]]; then cur=""; elif [[ $prev == "=" ]]; then prev="${COMP_WORDS[COMP_CWORD-2]}"; fi',
        "  if (( COMP_CWORD == 1 )); then",
        f'    said="{" ".join([*(each.name for each in commands), "--help", "--version"])}"',
        '  else case "${COMP_WORDS[1]}" in',
    ]
    for command in commands:
        lines += _bash_command(command)
    lines += [
        "  esac; fi",
        "  COMPREPLY=()",
        '  while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -W "$said" -- "$cur")',
        "  # Where files have a place, readline's own completion of them goes on.",
        "  [[ -n $files ]] || compopt +o default +o bashdefault 2>/dev/null",
        "  return 0",
        "}",
        "complete -o bashdefault -o default -F _moe_bulk moe-bulk",
    ]
    return "\n".join(lines)


def _bash_command(command: Command) -> list[str]:
    lines = [f'    {command.name}) case "$prev" in']
    for option in command.options:
        if option.takes_value:
            names = "|".join(option.names)
            lines.append(f'      {names}) said="{" ".join(option.choices)}" files="{"y" if option.files else ""}" ;;')
    names = " ".join(name for option in command.options for name in option.names if name.startswith("--"))
    lines += [
        f'      *) if [[ $cur == -* ]]; then said="{names} --help"',
        f'         else said="{" ".join(command.choices)}" files="{"y" if command.files else ""}"; fi ;;',
        "    esac ;;",
    ]
    return lines


def zsh(commands: Sequence[Command]) -> str:
    """For zsh with its completion system: to be read by `eval`, or put into a folder of `$fpath` as `_moe-bulk`."""
    lines = [
        "#compdef moe-bulk",
        "# Completion of moe-bulk for zsh: moe-bulk completion zsh",
        "_moe_bulk() {",
        "  if (( CURRENT == 2 )); then",
        "    local -a commands",
        "    commands=(",
        *(f"      {_quoted(each.name + ':' + each.about.replace(':', chr(92) + ':'))}" for each in commands),
        "    )",
        "    _describe -t commands command commands",
        "    return",
        "  fi",
        "  shift words; (( CURRENT-- ))",
        '  case "$words[1]" in',
    ]
    for command in commands:
        last = "*:file:_files" if command.files else f"*:word:({' '.join(command.choices)})" if command.choices else ""
        told = [*map(_zsh_option, command.options), "(- *)--help[Show this help.]", *([last] if last else [])]
        lines += [f"    {command.name}) _arguments -S : \\"]
        lines += [f"      {_quoted(each)} \\" for each in told[:-1]] + [f"      {_quoted(told[-1])} ;;"]
    lines += [
        "  esac",
        "}",
        'if [[ "$funcstack[1]" == _moe-bulk ]]; then _moe_bulk "$@"; else compdef _moe_bulk moe-bulk; fi',
    ]
    return "\n".join(lines)


def _zsh_option(option: Option) -> str:
    # `=` after a name: the value may follow it there, or as the next word. Of -v and --verbose one is enough.
    name = next(name for name in option.names if name.startswith("--"))
    about = re.sub(r"([\[\]:\\])", r"\\\1", option.about)
    if not option.takes_value:
        return f"{name}[{about}]"
    action = f"({' '.join(option.choices)})" if option.choices else " "
    if option.files:
        action = "_files" if not option.choices else f"_alternative 'a:a:({' '.join(option.choices)})' 'f:file:_files'"
    return f"{'*' if option.repeatable else ''}{name}=[{about}]:{name.lstrip('-')}:{action}"


def fish(commands: Sequence[Command]) -> str:
    """For fish 3.0 and newer."""
    lines = [
        "# Completion of moe-bulk for fish: moe-bulk completion fish",
        "complete -c moe-bulk -f",
        "complete -c moe-bulk -n __fish_use_subcommand -l help -d 'Show this help.'",
        "complete -c moe-bulk -n __fish_use_subcommand -l version -d 'Show the version.'",
    ]
    for command in commands:
        lines.append(f"complete -c moe-bulk -n __fish_use_subcommand -a {command.name} -d {_fish(command.about)}")
        here = f"complete -c moe-bulk -n '__fish_seen_subcommand_from {command.name}'"
        if command.files:
            lines.append(f"{here} -F")
        if command.choices:
            lines.append(f"{here} -a {_fish(' '.join(command.choices))}")
        lines += [f"{here} {_fish_option(option)} -d {_fish(option.about)}" for option in command.options]
        lines.append(f"{here} -l help -d 'Show this help.'")
    return "\n".join(lines)


def _fish_option(option: Option) -> str:
    names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
    if not option.takes_value:
        return names
    value = "-r -F" if option.files else "-x"
    return f"{names} {value} -a {_fish(' '.join(option.choices))}" if option.choices else f"{names} {value}"


def _quoted(text: str) -> str:
    """In single quotes, as bash and zsh read them."""
    return "'" + text.replace("'", "'\\''") + "'"


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
