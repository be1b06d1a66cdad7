"""`harp completion SHELL`: the script with which a shell completes `harp` on the tab key."""

from __future__ import annotations

import argparse

from harp.commands.outline import CommandOutline, outline_of

HOW = {
    "bash": 'add to ~/.bashrc: eval "$(harp completion bash)"',
    "zsh": 'add to ~/.zshrc, after compinit: eval "$(harp completion zsh)"',
    "fish": "harp completion fish > ~/.config/fish/completions/harp.fish",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("shell", choices=HOW, help="; ".join(f"{shell}: {how}" for shell, how in HOW.items()))


def main(options: argparse.Namespace) -> int:
    """Print the script; return the exit code."""
    from harp.__main__ import whole_parser  # noqa: PLC0415 - it finds this module

    print(script(options.shell, outline_of(whole_parser())), end="")
    return 0


def script(shell: str, outline: CommandOutline) -> str:
    """Return the script for `shell`."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](outline)


def _cases(outline: CommandOutline) -> str:
    """Return, for each sequence of commands, the words that may follow; every sequence begins with "harp"."""
    lines = [
        f"        {quoted(' '.join(('harp', *command.path)))}) words={quoted(' '.join(command.words))} ;;"
        for command in outline.walk()
    ]
    values = {
        name: " ".join(option.choices)
        for command in outline.walk()
        for option in command.options
        for name in option.names
        if option.choices
    }
    chosen = [f"        {name}) words={quoted(words)} ;;" for name, words in values.items()]
    return "\n".join(
        (
            '    case "$way" in',
            *lines,
            "    esac",
            '    case "$before" in',
            *chosen,
            "    esac",
        )
    )


_WAY = """\
    local way=harp before="" words="" word
    for word in "${given[@]}"; do
        case "$word" in
        -*) ;;
        *) case " $known " in *" $way $word;"*) way="$way $word" ;; esac ;;
        esac
        before="$word"
    done
"""


def _known(outline: CommandOutline) -> str:
    """Return the sequences of commands, each between a space and a semicolon."""
    return " ".join(f"{' '.join(('harp', *command.path))};" for command in outline.walk() if command.path)


def _bash(outline: CommandOutline) -> str:
    return f"""\
# Completion of harp for bash.
_harp() {{
    local known={quoted(_known(outline))}
    local given=("${{COMP_WORDS[@]:1:COMP_CWORD-1}}")
{_WAY}{_cases(outline)}
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _harp harp
"""


def _zsh(outline: CommandOutline) -> str:
    return f"""\
#compdef harp
# Completion of harp for zsh.
_harp() {{
    local known={quoted(_known(outline))}
    local -a given
    given=("${{(@)words[2,CURRENT-1]}}")
{_WAY.replace("words=", "found=")}{_cases(outline).replace("words=", "found=")}
    compadd -- ${{=found}} || _files
}}
compdef _harp harp
"""


def _fish(outline: CommandOutline) -> str:
    lines = ["# Completion of harp for fish.", "complete -c harp -f"]
    for command in outline.walk():
        if command.path:
            seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.path)
            below = " ".join(part.path[-1] for part in command.parts)
            condition = f"{seen}; and not __fish_seen_subcommand_from {below}" if below else seen
        else:
            condition = "__fish_use_subcommand"
        start = f"complete -c harp -n {quoted(condition)}"
        lines += [f"{start} -a {part.path[-1]} -d {quoted(first_words(part.text))}" for part in command.parts]
        for option in command.options:
            follows = " -r" if option.value else ""
            choices = f" -a {quoted(' '.join(option.choices))}" if option.choices else ""
            text = quoted(first_words(option.text))
            if option.names:
                lines += [
                    f"{start} -l {name[2:]}{follows}{choices} -d {text}" for name in option.names if name[:2] == "--"
                ]
            elif option.choices:
                lines.append(f"{start}{choices}")
    return "\n".join(lines) + "\n"


def first_words(text: str) -> str:
    """Return the start of a text, for a line in a menu."""
    start = text.partition(" (")[0].partition("; ")[0]
    return start if len(start) <= 60 else start[:57].rsplit(" ", 1)[0] + "..."


def quoted(text: str) -> str:
    """Return a word, quoted for any of these shells."""
    escaped = text.replace("'", "'\\''")
    return f"'{escaped}'"
