"""Reads Python files without running them: our docstrings in their parts, a function's options, lines of code."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path

_SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Source): ?")
_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


@dataclass(frozen=True)
class Docstring:
    """A docstring in our Google style.

    Attributes:
        paragraphs: What stands before the sections; the first is the summary.
        sections: Section -> its text, as it is indented.
    """

    paragraphs: tuple[str, ...]
    sections: dict[str, str]

    @classmethod
    def read(cls, text: str) -> Docstring:
        """Take a cleaned docstring apart."""
        paragraphs: list[str] = []
        sections: dict[str, str] = {}
        for part in re.split(r"\n\s*\n", text.strip()):
            found = _SECTION.match(part)
            if found:
                sections[found[1]] = part[found.end():].strip("\n")
            elif sections:
                sections[list(sections)[-1]] += f"\n\n{part}"
            else:
                paragraphs.append(part)
        return cls(tuple(paragraphs), sections)

    def arguments(self) -> dict[str, str]:
        """Argument -> what it says of it, on one line."""
        said: dict[str, list[str]] = {}
        for line in self.sections.get("Args", "").splitlines():
            named = re.match(r"(?: {4})?(\w+): (.*)", line)
            if named:
                said[named[1]] = [named[2]]
            elif said and line.strip():
                said[list(said)[-1]].append(line.strip())
        return {name: " ".join(lines) for name, lines in said.items()}

    def source(self) -> tuple[str, str]:
        """The reference, up to its arXiv number or its first full stop, and what is said of it beyond."""
        text = " ".join(self.sections.get("Source", "").split())
        number = re.search(r"arXiv:\d{4}\.\d+", text)
        end = re.compile(r"; |\. (?=[A-Z])|\.$|$").search(text, number.end() if number else 0)
        assert end is not None
        return text[:end.start()], text[end.end():]


@dataclass(frozen=True)
class Option:
    """A keyword argument of a method's function, as it is written.

    Attributes:
        name: The keyword.
        kind: Its annotation.
        default: Its default; None for none.
        about: What the docstring says of it.
    """

    name: str
    kind: str
    default: str | None
    about: str


@dataclass(frozen=True)
class Function:
    """A function in a file.

    Attributes:
        module: The file's docstring.
        own: The function's.
        options: Its keyword arguments.
    """

    module: Docstring
    own: Docstring
    options: tuple[Option, ...]

    @classmethod
    def read(cls, file: Path, name: str) -> Function:
        """Find a function in a file."""
        tree = ast.parse(file.read_text())
        found = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
        own = Docstring.read(ast.get_docstring(found) or "")
        said, given = own.arguments(), found.args
        options = [Option(argument.arg, ast.unparse(argument.annotation) if argument.annotation else "",
                          ast.unparse(default) if default else None, said.get(argument.arg, ""))
                   for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
        return cls(Docstring.read(ast.get_docstring(tree) or ""), own, tuple(options))


def code_lines(file: Path) -> int:
    """Lines of a file that hold code: no blank ones, no comments, no docstrings; imports count."""
    text = file.read_text()
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {line for token in tokens if token.type not in _NO_CODE for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def has_parts(file: Path) -> bool:
    """Whether a method's file has parts of its own: a class, a function beside the method's, modules, stages, turns."""
    tree = ast.parse(file.read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    parts = len(functions) > 1 or any(isinstance(node, ast.ClassDef) for node in tree.body)
    return parts or bool(names & {"nn", "Stage", "Turn"})
