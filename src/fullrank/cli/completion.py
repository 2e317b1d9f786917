"""`fullrank --print-completion SHELL`: commands, options and their choices."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_type_hints

import tyro

from fullrank.cli.completion_values import ALSO_FILES, COMMAS, choices
from fullrank.cli.train_help import COMMAND_TEXTS, attribute_texts
from fullrank.errors import UnknownNameError

SHELLS = ("bash", "fish", "zsh")


@dataclasses.dataclass(frozen=True)
class Flag:
    """An option; `alone` without a value, `several` with commas, `files` beside names."""

    name: str
    choices: tuple[str, ...] = ()
    alone: bool = False
    text: str = ""
    several: bool = False
    files: bool = False


@dataclasses.dataclass(frozen=True)
class Command:
    """A command; `own` are the options of a method or lab that is named."""

    name: str
    about: str
    words: tuple[str, ...] = ()
    names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
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
        from fullrank.training.recipes import load_recipe, recipe_names

        own = {key: tuple(_flags(method.Config, "options.")) for key, method in METHODS.items()}
        settings = (flag for flag in _flags(TrainConfig) if flag.name not in ("--method", "--options"))
        flags = (*settings, *_flags_of_the_command_line())
        if name == "sweep":
            flags = (*_flags(module.Sweep), *flags)
        recipes = recipe_names()
        methods = {
            recipe: load_recipe(recipe).settings.get("method", TrainConfig.method) for recipe in recipes
        }
        own |= {recipe: own[method] for recipe, method in methods.items() if method in own}
        return Command(name, about, (*METHODS, *recipes), {}, tuple(_unique(flags)), own)
    kinds = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type)
        and dataclasses.is_dataclass(kind)
        and kind.__module__ == module.__name__
        and "Example:" in (kind.__doc__ or "")  # as every command's options have; others are no options
    ]
    names = _names_by_list() if name == "list" else {}
    own = _of_labs() if name == "lab" else {}
    owned = {flag.name for flags in own.values() for flag in flags}
    free = (flag for kind in kinds for flag in _flags(kind) if flag.name not in owned)
    return Command(name, about, _words(name), names, tuple(_unique(free)), own)


def _of_labs() -> dict[str, tuple[Flag, ...]]:
    """Options whose choices are those of a lab."""
    from fullrank.labs import LABS

    return {
        name: (
            Flag("--parts", tuple(lab.parts), text="the lab's own, with commas between.", several=True),
            Flag("--preset", tuple(lab.presets), text="how large the lab is."),
        )
        for name, lab in LABS.items()
    }


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


def _names_by_list() -> dict[str, tuple[str, ...]]:
    """What each list of `fullrank list` has."""
    from fullrank.cli.listing import LISTS, listed

    return {name: tuple(listed(name)) for name in LISTS}


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
        found = choices(name, bare)
        yield Flag(
            f"--{option}", found, bare is bool, text, name in COMMAS, bool(found) and name in ALSO_FILES
        )
        if bare is bool:
            no = f"{under}no-{name}".replace("_", "-")
            yield Flag(f"--{no}", (), True, text)


def _unique(flags: Any) -> Iterator[Flag]:
    yield from {flag.name: flag for flag in flags}.values()
    yield Flag("--help", alone=True, text="the options, with an example.")


BASH = r"""# completion of fullrank for {shell}; see docs/completion.md
_fullrank() {{
  local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}"
  local words="" flags="" own="" values=""
  local before="" several="" files=""
  if [[ $cur == "=" ]]; then cur=""
  elif [[ $prev == "=" ]]; then prev="${{COMP_WORDS[COMP_CWORD-2]}}"
  elif [[ $cur == --*=* ]]; then prev="${{cur%%=*}}" before="${{cur%%=*}}=" cur="${{cur#*=}}"; fi
  COMPREPLY=()
  if [[ $COMP_CWORD -eq 1 ]]; then
    COMPREPLY=($(compgen -W "{commands} --help --version --print-completion" -- "$cur"))
    return
  fi
  if [[ ${{COMP_WORDS[1]}} == --print-completion ]]; then
    COMPREPLY=($(compgen -P "$before" -W "{shells}" -- "$cur"))
    return
  fi
  if [[ $before == --print-completion= ]]; then
    COMPREPLY=($(compgen -P "$before" -W "{shells}" -- "$cur"))
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  case "${{COMP_WORDS[1]}}:${{COMP_WORDS[2]}}:$prev" in
{values}
  esac
  if [[ $COMP_CWORD -eq 3 && $cur != -* ]]; then
    case "${{COMP_WORDS[1]}}:${{COMP_WORDS[2]}}" in
{names}
    esac
  fi
  if [[ -n $several && $cur == *,* ]]; then before="$before${{cur%,*}}," cur="${{cur##*,}}"; fi
  if [[ -n $values ]]; then
    COMPREPLY=($(compgen -P "$before" -W "$values" -- "$cur"))
    if [[ -n $files && -z $before && ${{#COMPREPLY[@]}} -gt 0 ]]; then
      type compopt >/dev/null 2>&1 && compopt -o filenames 2>/dev/null
      local IFS=$'\n'
      COMPREPLY+=($(compgen -d -- "$cur"))
    fi
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
    cases, values, names = [], [], []
    for command in commands:
        lines = [f'      words="{" ".join(command.words)}"', f'      flags="{_names(command.flags)}"']
        if command.own:
            lines.append('      case "${COMP_WORDS[2]}" in')
            groups = _grouped(command.own)
            lines += [f'        {"|".join(names)}) own="{_names(own)}" ;;' for own, names in groups.items()]
            every_own = dict.fromkeys(flag.name for own in command.own.values() for flag in own)
            lines += [f'        *) own="{" ".join(every_own)}" ;;', "      esac"]
        cases.append(f"    {command.name})\n" + "\n".join(lines) + " ;;")
        names += [
            f'      {command.name}:{word}) values="{" ".join(found)}" ;;'
            for word, found in command.names.items()
        ]
        values += [_values_of(f"{command.name}:*", flag) for flag in command.flags if flag.choices]
        values += _own_values(command)
    return BASH.format(
        shell=shell,
        commands=" ".join(command.name for command in commands),
        shells=" ".join(SHELLS),
        cases="\n".join(cases),
        values="\n".join(dict.fromkeys(values)),
        names="\n".join(names),
    )


def _own_values(command: Command) -> list[str]:
    """Choices of own options: after any word where all have the same."""
    by_choices: dict[str, dict[Flag, list[str]]] = {}
    for word, own in command.own.items():
        for flag in own:
            if flag.choices:
                bare = dataclasses.replace(flag, text="")
                by_choices.setdefault(flag.name, {}).setdefault(bare, []).append(word)
    lines = []
    for kinds in by_choices.values():
        for flag, words in kinds.items():
            after = words if len(kinds) > 1 else ["*"]
            lines.append(_values_of("|".join(f"{command.name}:{word}" for word in after), flag))
    return lines


def _values_of(places: str, flag: Flag) -> str:
    """A case for bash: the choices of an option after any of the places."""
    pattern = "|".join(f"{place}:{flag.name}" for place in places.split("|"))
    extra = " several=1" * flag.several + " files=1" * flag.files
    return f'    {pattern}) values="{" ".join(flag.choices)}"{extra} ;;'


def _grouped(own: Mapping[str, tuple[Flag, ...]]) -> dict[tuple[Flag, ...], list[str]]:
    """Methods and recipes by the options that they have."""
    groups: dict[tuple[Flag, ...], list[str]] = {}
    for name, flags in own.items():
        groups.setdefault(flags, []).append(name)
    return groups


def _names(flags: tuple[Flag, ...]) -> str:
    return " ".join(flag.name for flag in flags)


def _zsh(commands: list[Command]) -> str:
    """The function for bash, which zsh runs by its own bashcompinit."""
    return f"autoload -Uz compinit bashcompinit && compinit && bashcompinit\n{_bash(commands, 'zsh')}"


FISH = """# completion of fullrank for fish; see docs/completion.md
function __fullrank_first
    test (count (commandline -opc)) -eq 1
end
function __fullrank_in
    set -l words (commandline -opc)
    test "$words[2]" = $argv[1]
end
function __fullrank_after
    set -l words (commandline -opc)
    test "$words[2..-1]" = "$argv"
end
function __fullrank_own
    set -l words (commandline -opc)
    test "$words[2]" = $argv[1]; or return 1
    switch "$words[3]"
{cases}
    end
end
function __fullrank_list
    for word in (__fish_append , $argv)
        echo $word\\t
    end
end
complete -c fullrank -e
complete -c fullrank -n __fullrank_first -l help -d 'the commands.'
complete -c fullrank -n __fullrank_first -l version -d 'the version.'
complete -c fullrank -n 'not __fish_seen_subcommand_from {commands}' -l print-completion -x -a '{shells}'
"""


def _fish(commands: list[Command]) -> str:
    """Conditions on the words before the cursor; choices without their option's text."""
    groups = _grouped({name: flags for command in commands for name, flags in command.own.items()})
    start = FISH.format(
        cases="\n".join(
            f"        case {' '.join(names)}\n            contains {names[0]} $argv"
            for names in groups.values()
        ),
        commands=" ".join(command.name for command in commands),
        shells=_choices_of_fish(SHELLS),
    )
    lines = []
    for command in commands:
        name = command.name
        lines.append(f"complete -c fullrank -f -n __fullrank_first -a {name} -d {_quoted(command.about)}")
        if command.words:
            bare = "" if name in ("train", "sweep") else " -f"  # a recipe may be a file
            lines.append(_after(name, command.words) + bare)
        lines += [_after(f"{name} {word}", found) + " -f" for word, found in command.names.items()]
        lines += [_option(f"__fullrank_in {name}", flag) for flag in command.flags]
        by_flag: dict[Flag, list[str]] = {}
        for flags, methods in _grouped(command.own).items():
            for flag in flags:
                by_flag.setdefault(flag, []).append(methods[0])
        lines += [
            _option(f"__fullrank_own {name} {' '.join(methods)}", flag) for flag, methods in by_flag.items()
        ]
        if name == "explain":
            lines.append(f"complete -c fullrank -f -n '__fullrank_in {name}'")
    return start + "\n".join(lines) + "\n"


def _after(words: str, found: tuple[str, ...]) -> str:
    return f"complete -c fullrank -n '__fullrank_after {words}' -a {_quoted(' '.join(found))}"


def _option(here: str, flag: Flag) -> str:
    takes = " -r"
    if flag.alone:
        takes = ""
    elif flag.several:
        takes = f" -x -a '(__fullrank_list {' '.join(flag.choices)})'"
    elif flag.choices:
        takes = f" {'-r -F' if flag.files else '-x'} -a '{_choices_of_fish(flag.choices)}'"
    text = _quoted(flag.text.partition(". ")[0][:80])
    return f"complete -c fullrank -n {_quoted(here)} -l {flag.name.removeprefix('--')}{takes} -d {text}"


def _choices_of_fish(choices: tuple[str, ...]) -> str:
    """Words with an empty text each, in place of their option's."""
    return " ".join(f"{choice}\\t" for choice in choices)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
