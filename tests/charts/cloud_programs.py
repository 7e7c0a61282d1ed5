"""Commands of the pages for operators, and what the programs that they call know.

Helm and kubectl are asked in tests (scripts/chart_parts installs them). The others' commands and options stand in
`program_options.yaml`, as their own help names them:
`python -m tests.charts.cloud_programs` asks those that are on the PATH and writes them anew. Programs that could not be
had are named in `READ_BY_HAND`.
"""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import yaml

from tests.charts.rendering import HOME, ROOT, tool

CLOUDS = sorted((ROOT / "docs/clouds").glob("*.md"))
PAGES = [
    *CLOUDS,
    *(
        ROOT / f"docs/{name}.md"
        for name in ("operations", "install", "identity", "tls", "models", "documents", "backup", "capacity")
    ),
    ROOT / "docs/upgrades.md",
    ROOT / "docs/day-2.md",
    *sorted((ROOT / "docs/runbooks").glob("*.md")),
]
BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
RECORD = Path(__file__).parent / "program_options.yaml"
INSTALLED = {"helm": ("helm3", "helm4"), "kubectl": ("kubectl32", "kubectl36")}
ASKED = ("az", "aws", "cosign", "docker", "gh")
"""The programs whose help is in the record."""
READ_BY_HAND = {
    "gcloud container clusters create": (
        "--region --release-channel --enable-dataplane-v2 --gateway-api --addons --workload-pool --machine-type "
        "--num-nodes"
    ),
    "gcloud container clusters get-credentials": "--region",
    "gcloud container node-pools create": (
        "--cluster --region --machine-type --accelerator --node-labels --node-taints --num-nodes --enable-autoscaling "
        "--total-min-nodes --total-max-nodes"
    ),
    "gcloud artifacts repositories create": "--repository-format --location",
    "gcloud auth configure-docker": "",
    "eksctl create cluster": "-f",
}
"""Commands of programs that no package index here carries: their options as the programs' published sources name them
(Google Cloud CLI, `lib/surface`; eksctl, `pkg/ctl`), read on 2026-11-28; `--gateway-api`, `--region`, `--location`
and `auth configure-docker` were not in what could be read. This list may only become shorter."""
PROGRAMS = {*INSTALLED, *ASKED, *(name.partition(" ")[0] for name in READ_BY_HAND)}
INLINE = re.compile(rf"`((?:{'|'.join(sorted(PROGRAMS))}) [^`\n]+)`")


def blocks(page: Path, language: str) -> list[str]:
    """Return the texts of a page's blocks in a language."""
    return [text for kind, text in BLOCK.findall(page.read_text("utf-8")) if kind == language]


def simple_commands(script: str) -> Iterator[list[str]]:
    """Yield the words of a shell script's commands: of pipes, lists and loops too, without redirections."""
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        redirected = False
        for word in [*lexer, ";"]:
            if redirected:
                redirected = False
            elif set(word) <= set("<>&") and set(word) & set("<>"):
                redirected = True
            elif set(word) <= set("();|&"):
                while words and words[0] in {"do", "then", "else", "if", "while", "!"}:
                    words = words[1:]
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def called(page: Path) -> Iterator[list[str]]:
    """Yield the commands of a page's blocks, and those of our programs between its lines."""
    for script in (*blocks(page, "sh"), *INLINE.findall(page.read_text("utf-8"))):
        yield from simple_commands(script)


def commands(page: Path, program: str) -> Iterator[list[str]]:
    """Yield the words that follow a program's name in the page's commands of it."""
    return (words[1:] for words in called(page) if words[0] == program)


def options_of(words: Sequence[str]) -> set[str]:
    """Return the options of a command, `-it` as two, without their values; what follows `--` is another program's."""
    words = words[: words.index("--")] if "--" in words else words
    long = {word.partition("=")[0] for word in words if word.startswith("--")}
    return long | {f"-{c}" for word in words if re.fullmatch(r"-[a-zA-Z]+", word) for c in word[1:]}


def named(words: Sequence[str], options_with_a_value: Sequence[str] = ("-n", "--namespace")) -> list[str]:
    """Return the words before the command's own options that may be its name: `aks create`, `rollout status`."""
    found: list[str] = []
    before = ""
    for word in words:
        if before not in options_with_a_value and not word.startswith("-"):
            found.append(word)
        elif word.startswith("-") and word not in options_with_a_value:
            break
        before = word
    return found


def in_help(program: str, text: str) -> frozenset[str]:
    """Return the options that a help text defines; what its sentences mention is none."""
    if program == "aws":
        text = text.partition("\nSYNOPSIS\n")[2].partition("\nOPTIONS\n")[0]
        return frozenset(re.findall(r"^ +\[?(--[-a-z0-9]+)", text, re.MULTILINE))
    defined = r"^ {4}(-[^:\[]+?) +[:\[]" if program == "az" else r"^ {2,6}((?:-\w, )?--[-a-zA-Z0-9]+|-\w\b)"
    return frozenset(re.findall(r"--?[a-zA-Z][-a-zA-Z0-9]*", " ".join(re.findall(defined, text, re.MULTILINE))))


@cache
def ask(*argv: str) -> str:
    """Return what a program prints, without the marks of a terminal; empty where it fails."""
    home = {**HOME, "PAGER": "cat", "AZURE_CORE_COLLECT_TELEMETRY": "0"}
    completed = subprocess.run(argv, env=home, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
    return re.sub(r"\x1b\[[0-9;]*m", "", completed.stdout) if completed.returncode == 0 else ""


def understood(program: str, path: str, words: Sequence[str]) -> tuple[str, frozenset[str]]:
    """Return the command that a program takes the words for, and its options; ("", none) where it knows none.

    What is no word of a command is its first argument: `rollout status deployment/x`.
    """
    text = ask(path, *words, "help" if program == "aws" else "--help")
    if program == "az":
        usage = re.search(r"\nCommand\n +az ((?:[-a-z]+ )+) *:", text)
    elif program == "aws":
        usage = re.search(r"\nSYNOPSIS\n +([-a-z]+)\n", text)
        return (" ".join(words), in_help(program, text)) if usage and usage[1] == words[-1] else ("", frozenset())
    else:
        usage = re.search(rf"(?i:usage):?\s+{program}((?: [a-z][-a-z0-9]*)+)(?! \W?(?i:sub|command))", text)
    name = usage[1].strip() if usage else ""
    return (name, in_help(program, text)) if name.split() == [*words][: len(name.split())] else ("", frozenset())


@cache
def live(program: str, path: str, words: tuple[str, ...]) -> tuple[str, frozenset[str]]:
    """Ask a program that the tests have (Helm, kubectl): for the first words that have no commands below them."""
    lengths = range(1, len(words))
    length = next((n for n in lengths if "\nAvailable Commands:\n" not in ask(path, *words[:n], "--help")), len(words))
    name, options = understood(program, path, words[:length])
    return name, options | (of_every_command(path) if program == "kubectl" else frozenset())


@cache
def of_every_command(kubectl: str) -> frozenset[str]:
    return in_help("kubectl", ask(kubectl, "options"))


def known(program: str, words: Sequence[str]) -> tuple[str, frozenset[str]]:
    """Return the command that these words name, and its options; ("", none) where the program has no such command."""
    plain = named(words)
    if program in INSTALLED:
        both = [live(program, tool(path), tuple(plain)) for path in INSTALLED[program]]
        later = {"--force-conflicts"} if program == "helm" else set[str]()  # Helm 4's, where a page says so
        return both[1][0], both[0][1] & both[1][1] | both[1][1] & later
    record = of_record().get(program, {}).get("commands", {})
    by_hand = {k.removeprefix(f"{program} "): v for k, v in READ_BY_HAND.items() if k.startswith(f"{program} ")}
    for length in range(len(plain), 0, -1):
        name = " ".join(plain[:length])
        if name in record | by_hand:
            return name, frozenset((record | by_hand)[name].split())
    return "", frozenset()


@cache
def of_record() -> dict[str, dict[str, dict[str, str]]]:
    read: dict[str, dict[str, dict[str, str]]] = yaml.safe_load(RECORD.read_text("utf-8"))
    return read


def recorded() -> dict[str, dict[str, object]]:
    """Ask the programs on the PATH for the commands of the pages."""
    record: dict[str, dict[str, object]] = {}
    for program in ASKED:
        path = shutil.which(program)
        if path is None:
            raise SystemExit(f"{program} is not on the PATH")
        found: dict[str, str] = {}
        for words in (words for page in PAGES for words in commands(page, program)):
            plain = [word for word in named(words) if re.fullmatch(r"[a-z][-a-z]*", word)]
            name, options = understood(program, path, plain)
            if not name:
                raise SystemExit(f"{program} {' '.join(words)}: no such command")
            found[name] = " ".join(sorted(options))
        said = ask(path, "--version") or ask(path, "version")
        version = re.search(r"GitVersion: +(\S+)|\d+\.\d+\.\d+", said)
        record[program] = {"version": version[1] or version[0] if version else "unknown", "commands": found}
    return record


if __name__ == "__main__":
    head = "# Written by `python -m tests.charts.cloud_programs`: the options that each program's own help defines.\n"
    RECORD.write_text(head + yaml.safe_dump(recorded(), sort_keys=True, width=120), "utf-8")
