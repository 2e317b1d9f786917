"""`fullrank --print-completion SHELL`: commands, options and their choices."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

import tyro

from fullrank.cli.train_help import COMMAND_TEXTS, attribute_texts
from fullrank.errors import UnknownNameError

SHELLS = ("bash", "fish", "zsh")


@dataclasses.dataclass(frozen=True)
class Flag:
    """An option: its choices, whether it stands alone, and what it is for."""

    name: str
    choices: tuple[str, ...] = ()
    alone: bool = False
    text: str = ""


@dataclasses.dataclass(frozen=True)
class Command:
    """A command, the words after it, and its options; `own` are methods'."""

    name: str
    about: str
    words: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()
    own: Mapping[str, tuple[Flag, ...]] = dataclasses.field(default_factory=dict)


def print_completion(shell: str, abouts: Mapping[str, str]) -> None:
    """Print the completion for a shell.

    Args:
        shell: bash, zsh or fish.
        abouts: the commands, each with a line about it.

    Raises:
        UnknownNameError: another shell.
    """
    if shell not in SHELLS:
        raise UnknownNameError("shell", shell, SHELLS)
    commands = [_command(name, about) for name, about in abouts.items()]
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](commands), end="")


def _command(name: str, about: str) -> Command:
    module = importlib.import_module(f"fullrank.cli.{'listing' if name == 'list' else name}")
    if name in ("train", "sweep"):
        from fullrank.methods import METHODS
        from fullrank.training.config import TrainConfig
        from fullrank.training.recipes import recipe_names

        own = {key: tuple(_flags(method.Config, "options.")) for key, method in METHODS.items()}
        settings = (flag for flag in _flags(TrainConfig) if flag.name not in ("--method", "--options"))
        flags = (*settings, *_flags_of_the_command_line())
        if name == "sweep":
            flags = (*_flags(module.Sweep), *flags)
        return Command(name, about, (*METHODS, *recipe_names()), tuple(_unique(flags)), own)
    kinds = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type)
        and dataclasses.is_dataclass(kind)
        and kind.__module__ == module.__name__
        and "Example:" in (kind.__doc__ or "")  # as every command's options have; others are no options
    ]
    return Command(name, about, _words(name), tuple(_unique(flag for kind in kinds for flag in _flags(kind))))


def _words(name: str) -> tuple[str, ...]:
    """Words that may follow a command, besides files."""
    if name == "list":
        from fullrank.cli.listing import LISTS

        return tuple(LISTS)
    if name == "lab":
        from fullrank.labs import LABS

        return (*LABS, "forecast")
    if name == "evaluate":
        from fullrank.cli.evaluate import PROBES

        return tuple(PROBES)
    return ("loss",) if name == "explain" else ()


def _flags_of_the_command_line() -> Iterator[Flag]:
    for name, text in COMMAND_TEXTS.items():
        choices = ("auto", "never") if name == "resume" else ()
        yield Flag(f"--{name}", choices, name not in ("resume", "profile"), text)
    yield Flag("--help-all", alone=True, text="every option with its text.")


def _flags(kind: type[Any], under: str = "") -> Iterator[Flag]:
    """Options of a dataclass; a switch has its opposite, too."""
    texts, hints = attribute_texts(kind), get_type_hints(kind, include_extras=True)
    for name in (field.name for field in dataclasses.fields(kind)):
        hint = hints[name]
        bare = get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
        if tyro.conf.Positional in getattr(hint, "__metadata__", ()) or bare == Mapping[str, Any]:
            continue
        if dataclasses.is_dataclass(bare) and isinstance(bare, type):
            yield from _flags(bare, f"{under}{name}.")
            continue
        option, text = f"{under}{name}".replace("_", "-"), texts.get(name, "")
        yield Flag(f"--{option}", _choices(name, bare), bare is bool, text)
        if bare is bool:
            no = f"{under}no-{name}".replace("_", "-")
            yield Flag(f"--{no}", (), True, text)


def _choices(name: str, hint: Any) -> tuple[str, ...]:
    if get_origin(hint) is tuple:
        hint = get_args(hint)[0]
    if get_origin(hint) is Literal:
        return tuple(map(str, get_args(hint)))
    if name in ("views", "view_preset") and hint is str:
        from fullrank.views.presets import VIEWS

        return tuple(VIEWS)
    if name == "metrics":
        from fullrank.collapse.metrics import METRICS

        return tuple(METRICS)
    return ()


def _unique(flags: Any) -> Iterator[Flag]:
    yield from {flag.name: flag for flag in flags}.values()
    yield Flag("--help", alone=True, text="the options, with an example.")


BASH = r"""# completion of fullrank for {shell}; see docs/completion.md
_fullrank() {{
  local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}"
  local words="" flags="" own="" values=""
  if [[ $cur == "=" ]]; then cur=""
  elif [[ $prev == "=" ]]; then prev="${{COMP_WORDS[COMP_CWORD-2]}}"; fi
  COMPREPLY=()
  if [[ $COMP_CWORD -eq 1 ]]; then
    COMPREPLY=($(compgen -W "{commands} --help --version --print-completion" -- "$cur"))
    return
  fi
  if [[ ${{COMP_WORDS[1]}} == --print-completion ]]; then
    COMPREPLY=($(compgen -W "{shells}" -- "$cur"))
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  case "${{COMP_WORDS[1]}}:$prev" in
{values}
  esac
  if [[ -n $values ]]; then
    COMPREPLY=($(compgen -W "$values" -- "$cur"))
  elif [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W "$flags $own" -- "$cur"))
  elif [[ $COMP_CWORD -eq 2 && -n $words ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
  fi
}}
complete -o default -F _fullrank fullrank
"""


def _bash(commands: list[Command], shell: str = "bash") -> str:
    """One function; where it finds nothing, bash completes names of files."""
    cases, values = [], []
    for command in commands:
        lines = [f'      words="{" ".join(command.words)}"', f'      flags="{_names(command.flags)}"']
        if command.own:
            lines.append('      case "${COMP_WORDS[2]##*/}" in')
            lines += [f'        {method}) own="{_names(own)}" ;;' for method, own in command.own.items()]
            names = dict.fromkeys(flag.name for own in command.own.values() for flag in own)
            lines += [f'        *) own="{" ".join(names)}" ;;', "      esac"]
        cases.append(f"    {command.name})\n" + "\n".join(lines) + " ;;")
        every = (*command.flags, *(flag for own in command.own.values() for flag in own))
        values += [
            f'    {command.name}:{flag.name}) values="{" ".join(flag.choices)}" ;;'
            for flag in every
            if flag.choices
        ]
    return BASH.format(
        shell=shell,
        commands=" ".join(command.name for command in commands),
        shells=" ".join(SHELLS),
        cases="\n".join(cases),
        values="\n".join(dict.fromkeys(values)),
    )


def _names(flags: tuple[Flag, ...]) -> str:
    return " ".join(flag.name for flag in flags)


def _zsh(commands: list[Command]) -> str:
    """The function for bash, which zsh runs by its own bashcompinit."""
    return f"autoload -Uz compinit bashcompinit && compinit && bashcompinit\n{_bash(commands, 'zsh')}"


def _fish(commands: list[Command]) -> str:
    lines = ["# completion of fullrank for fish; see docs/completion.md", "complete -c fullrank -e"]
    start = "not __fish_seen_subcommand_from " + " ".join(command.name for command in commands)
    for command in commands:
        here = f"__fish_seen_subcommand_from {command.name}"
        lines.append(
            f"complete -c fullrank -f -n {_quoted(start)} -a {command.name} -d {_quoted(command.about)}"
        )
        if command.words:
            lines.append(f"complete -c fullrank -n {_quoted(here)} -a {_quoted(' '.join(command.words))}")
        own = (flag for flags in command.own.values() for flag in flags)
        for flag in {flag.name: flag for flag in (*command.flags, *own)}.values():
            takes = (
                "" if flag.alone else f" -x -a {_quoted(' '.join(flag.choices))}" if flag.choices else " -r"
            )
            words = f"complete -c fullrank -n {_quoted(here)} -l {flag.name.removeprefix('--')}"
            lines.append(f"{words}{takes} -d {_quoted(flag.text.partition('. ')[0][:80])}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
