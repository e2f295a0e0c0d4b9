"""Shell completion, generated from the command line's parsers.

`_offer` says what to offer for an argument; each shell's text defines a function of that name which does it.
"""

from __future__ import annotations

from typing import Final

from wgpy.cli.arguments import Argument, Command, commands


def _offer(command: Command, argument: Argument) -> str:
    """The name of the shell functions that offer values of an argument; empty if nothing can be offered."""
    match command.name, argument.value:
        case "show", "INTERFACE":
            return "_wgpy_shown"
        case _, "INTERFACE":
            return "_wgpy_interfaces"
        case "down", "CONFIG":
            return "_wgpy_running"
        case _, "CONFIG":
            return "_wgpy_configs"
        case "client", "NAME":
            return "_wgpy_clients"
        case "set", "SETTING":
            return "_wgpy_settings"
        case "exec", "COMMAND":
            return "_wgpy_programs"
        case _, "FILE":
            return "_wgpy_files" if argument.flags else "_wgpy_conf_files"
        case _, "DIR":
            return "_wgpy_directories"
    return ""


def _names() -> str:
    return " ".join(command.name for command in commands())


def _flags_with_value() -> list[str]:
    options = (option for command in commands() for option in command.options)
    return sorted({flag for option in options if option.value for flag in option.flags})


def bash() -> str:
    """A completion for bash, with or without bash-completion."""
    cases = []
    for command in commands():
        flags = " ".join(flag for option in command.options for flag in option.flags)
        cases.append(f"    {command.name},-) words='{flags}' ;;")
        places = [(flag, option) for option in command.options if option.value for flag in option.flags]
        places += [("*" if each.rest else str(place), each) for place, each in enumerate(command.positionals)]
        for place, argument in places:
            does = f"words='{' '.join(argument.choices)}'" if argument.choices else _offer(command, argument)
            if does:
                cases.append(f"    {command.name},{place}) {does} ;;")
    return _BASH.format(valued="|".join(_flags_with_value()), names=_names(), cases="\n".join(cases))


# What a function offers is in `words`, and in `files`: a pattern of compgen -X, or - for any file.
_BASH: Final = r"""# bash completion of wgpy
_wgpy_interfaces() {{
    words=$(wgpy show interfaces 2>/dev/null)
}}

_wgpy_shown() {{
    _wgpy_interfaces
    words+=' all interfaces'
}}

_wgpy_configs() {{
    local path
    for path in /etc/wireguard/*.conf; do
        path=${{path##*/}}
        [[ $path == '*.conf' ]] || words+=" ${{path%.conf}}"
    done
    _wgpy_conf_files
}}

_wgpy_running() {{
    _wgpy_interfaces
    _wgpy_configs
}}

# The clients in the file that --config names.
_wgpy_clients() {{
    local index config=
    for index in "${{!COMP_WORDS[@]}}"; do
        [[ ${{COMP_WORDS[index]}} != --config ]] || config=${{COMP_WORDS[index + 1]-}}
    done
    [[ ! $config || ${{COMP_WORDS[*]}} == *' add '* ]] ||
        words=$(wgpy client list --config "$config" --json 2>/dev/null | sed -n 's/.*"name": "\(.*\)",/\1/p')
}}

# What may follow the words of `wgpy set INTERFACE`.
_wgpy_settings() {{
    case ${{COMP_WORDS[COMP_CWORD - 1]}} in
    peer) words=$(wgpy show "${{COMP_WORDS[2]}}" peers 2>/dev/null) ;;
    private-key | preshared-key) _wgpy_files ;;
    fwmark | persistent-keepalive) words=off ;;
    listen-port | endpoint | allowed-ips) ;;
    *)
        if [[ " ${{COMP_WORDS[*]:3:COMP_CWORD-3}} " == *' peer '* ]]; then
            words='peer remove preshared-key endpoint persistent-keepalive allowed-ips'
        else
            words='listen-port fwmark private-key peer'
        fi
        ;;
    esac
}}

_wgpy_programs() {{
    ((place > 1)) || words=$(compgen -c -- "$current")
    _wgpy_files
}}

_wgpy_conf_files() {{
    files='!*.conf'
}}

_wgpy_files() {{
    files=-
}}

_wgpy_directories() {{
    files='*'
}}

_wgpy() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} place=0 index words= files=
    COMPREPLY=()
    for ((index = 2; index < COMP_CWORD; index++)); do
        case ${{COMP_WORDS[index]}} in
        {valued}) ((index++)) ;;
        -*) ;;
        *) ((place++)) ;;
        esac
    done
    if ((COMP_CWORD == 1)); then
        words='{names} --help --version'
    else
        ((index == COMP_CWORD)) || place=${{COMP_WORDS[COMP_CWORD - 1]}}  # the value of an option
        ((index > COMP_CWORD)) || [[ $current != -* ]] || place=-
        case ${{COMP_WORDS[1]}},$place in
{cases}
        esac
    fi
    words=${{words//[!a-zA-Z0-9_=+.\/ $'\n'-]/}}  # compgen -W would expand a $(command) in a name
    mapfile -t COMPREPLY < <(
        compgen -W "$words" -- "$current"
        [[ ! $files ]] || compgen -f -X "${{files#-}}" -- "$current"
        [[ ! $files ]] || compgen -d -- "$current"
    )
}}
complete -o filenames -F _wgpy wgpy
"""


def _quoted(text: str, special: str) -> str:
    """Escape a text for single quotes of a shell, and characters that are special to the completion system."""
    return "".join(f"\\{c}" if c in special else c for c in text).replace("'", "’")


def zsh() -> str:
    """A completion function for zsh's fpath."""

    def does(command: Command, argument: Argument) -> str:
        return f"({' '.join(argument.choices)})" if argument.choices else _offer(command, argument) or " "

    cases = []
    for command in commands():
        specs = []
        for option in command.options:
            value = f":{_quoted(option.value, '[]:')}:{does(command, option)}" if option.value else ""
            specs += [f"'*{flag}[{_quoted(option.help, '[]:' + chr(92))}]{value}'" for flag in option.flags]
        for argument in command.positionals:
            name = _quoted(argument.value, "[]:")
            specs.append(f"'{'*' if argument.rest else ''}:{name}:{does(command, argument)}'")
        cases.append(f"        {command.name}) _arguments {' '.join(specs)} ;;")
    names = "\n".join(f"        '{c.name}:{_quoted(c.summary, ':')}'" for c in commands())
    return _ZSH.format(names=names, cases="\n".join(cases))


_ZSH: Final = r"""#compdef wgpy
_wgpy_interfaces() {{
    compadd -- ${{=$(wgpy show interfaces 2>/dev/null)}}
}}

_wgpy_shown() {{
    _wgpy_interfaces
    compadd all interfaces
}}

_wgpy_configs() {{
    local -a names=(/etc/wireguard/*.conf(N:t:r))
    compadd -a names
    _wgpy_conf_files
}}

_wgpy_running() {{
    _wgpy_interfaces
    _wgpy_configs
}}

# The clients in the file that --config names.
_wgpy_clients() {{
    local config=${{(Q)opt_args[--config]-}}
    [[ -n $config ]] && ((! $words[(Ie)add])) || return
    compadd -- ${{(f)"$(
        wgpy client list --config $config --json 2>/dev/null | sed -n 's/.*"name": "\(.*\)",/\1/p'
    )"}}
}}

# What may follow the words of `wgpy set INTERFACE`.
_wgpy_settings() {{
    case $words[CURRENT-1] in
    peer) compadd -- ${{=$(wgpy show $words[2] peers 2>/dev/null)}} ;;
    private-key | preshared-key) _wgpy_files ;;
    fwmark | persistent-keepalive) compadd off ;;
    listen-port | endpoint | allowed-ips) ;;
    *)
        if (($words[(Ie)peer])); then
            compadd peer remove preshared-key endpoint persistent-keepalive allowed-ips
        else
            compadd listen-port fwmark private-key peer
        fi
        ;;
    esac
}}

_wgpy_programs() {{
    ((CURRENT > 3)) || _command_names -e
    _wgpy_files
}}

_wgpy_conf_files() {{
    _files -g '*.conf'
}}

_wgpy_files() {{
    _files
}}

_wgpy_directories() {{
    _files -/
}}

_wgpy() {{
    local -a names=(
{names}
    )
    if ((CURRENT == 2)); then
        _describe command names
        compadd -- --help --version
    else
        shift words
        ((CURRENT--))
        case $words[1] in
{cases}
        esac
    fi
}}

_wgpy "$@"
"""


def fish() -> str:
    """A completion for fish's vendor_completions.d."""

    def does(command: Command, argument: Argument) -> str:
        offer = _offer(command, argument)
        return " ".join(argument.choices) or (f"({offer})" if offer else "")

    lines = []
    for command in commands():
        text = _quoted(command.summary, "\\")
        lines.append(f"complete -c wgpy -n __fish_use_subcommand -a {command.name} -d '{text}'")
        for option in command.options:
            flags = " ".join(f"-l {f[2:]}" if f.startswith("--") else f"-s {f[1:]}" for f in option.flags)
            offer = f" -a '{does(command, option)}'" if does(command, option) else ""
            takes = f" -x{offer}" if option.value else ""
            text = _quoted(option.help, "\\")
            lines.append(f"complete -c wgpy -n '_wgpy_at {command.name}' {flags}{takes} -d '{text}'")
        for place, argument in enumerate(command.positionals):
            if offer := does(command, argument):
                where = f"{command.name} {'-ge' if argument.rest else '-eq'} {place}"
                lines.append(f"complete -c wgpy -n '_wgpy_at {where}' -a '{offer}'")
    return _FISH.format(valued=" ".join(_flags_with_value()), lines="\n".join(lines))


_FISH: Final = r"""# fish completion of wgpy
function _wgpy_interfaces
    wgpy show interfaces 2>/dev/null | string split -n ' '
end

function _wgpy_shown
    _wgpy_interfaces
    printf '%s\n' all interfaces
end

function _wgpy_configs
    for path in /etc/wireguard/*.conf
        string replace -r '.*/(.*)\.conf$' '$1' $path
    end
    _wgpy_conf_files
end

function _wgpy_running
    _wgpy_interfaces
    _wgpy_configs
end

# The clients in the file that --config names.
function _wgpy_clients
    set -l words (commandline -opc)
    set -l place (contains -i -- --config $words); or return
    contains -- add $words; and return
    wgpy client list --config $words[(math $place + 1)] --json 2>/dev/null | string replace -fr '.*"name": "(.*)",' '$1'
end

# What may follow the words of `wgpy set INTERFACE`.
function _wgpy_settings
    set -l words (commandline -opc)
    switch $words[-1]
        case peer
            wgpy show $words[3] peers 2>/dev/null
        case private-key preshared-key
            _wgpy_files
        case fwmark persistent-keepalive
            echo off
        case listen-port endpoint allowed-ips
        case '*'
            if contains peer $words
                printf '%s\n' peer remove preshared-key endpoint persistent-keepalive allowed-ips
            else
                printf '%s\n' listen-port fwmark private-key peer
            end
    end
end

function _wgpy_programs
    _wgpy_at exec -gt 1; or complete -C (commandline -ct)
    _wgpy_files
end

function _wgpy_conf_files
    _wgpy_files | string match -r '^[^\t]*(?:\.conf|/)(?:\t.*)?$'
end

function _wgpy_files
    __fish_complete_path (commandline -ct)
end

function _wgpy_directories
    __fish_complete_directories (commandline -ct)
end

# The words before the cursor, without `wgpy`, options and their values.
function _wgpy_words
    set -l value_follows
    for word in (commandline -opc)[2..]
        if set -q value_follows[1]
            set -e value_follows
        else if contains -- $word {valued}
            set value_follows yes
        else if not string match -q -- '-*' $word
            echo $word
        end
    end
end

# Whether the cursor is at the arguments of a command, or at one of them: _wgpy_at show -eq 1
function _wgpy_at
    set -l words (_wgpy_words)
    test "$words[1]" = $argv[1]; or return
    set -q argv[2]; or return 0
    test (math (count $words) - 1) $argv[2..]
end

complete -c wgpy -f
complete -c wgpy -n __fish_use_subcommand -l help -d 'show the commands'
complete -c wgpy -n __fish_use_subcommand -l version -d 'show the version'
{lines}
"""
