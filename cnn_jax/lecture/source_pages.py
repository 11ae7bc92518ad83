"""The sources as pages with numbered lines, so that a link to a function works offline."""

import ast
import html
import io
import keyword
import tokenize
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

_KINDS = {tokenize.COMMENT: "comment", tokenize.STRING: "string"}
# what Python 3.12 and later make of f"..."
_KINDS |= {
    getattr(tokenize, name): "string"
    for name in ("FSTRING_START", "FSTRING_MIDDLE", "FSTRING_END")
    if hasattr(tokenize, name)
}


class Place(NamedTuple):
    """Where a function or module is defined.

    module: its dotted name; name: of the function or class, empty for the module as a whole.
    line: counted from one.
    summary: the first line of its docstring.
    """

    module: str
    name: str
    line: int
    summary: str

    @property
    def file(self) -> str:
        """The path within the repository."""
        return str(Path("cnn_jax", _path(self.module).relative_to(ROOT)).as_posix())

    @property
    def address(self) -> str:
        """The page of the source, within the site."""
        return f"code/{self.module}.html" + (f"#{self.name}" if self.name else "")

    @property
    def title(self) -> str:
        """The dotted name."""
        return f"{self.module}.{self.name}" if self.name else self.module


def find(code: str) -> Place:
    """Return the place of module:name, or of a module.

    Raises:
      LookupError: there is no such module, or no such definition in it.
    """
    module, _, name = code.partition(":")
    tree = ast.parse(_path(module).read_text())
    nodes = {"": tree} | _definitions(tree)
    if name not in nodes:
        raise LookupError(f"{module} defines no {name}")
    node = nodes[name]
    documented = isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef))
    text = (ast.get_docstring(node) if documented else None) or ""
    return Place(module, name, getattr(node, "lineno", 1), text.partition("\n")[0])


def _path(module: str) -> Path:
    top, *rest = module.split(".")
    place = ROOT.joinpath(*rest)
    for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
        if top == "cnn_jax" and file.exists():
            return file
    raise LookupError(f"there is no module {module}")


def _definitions(tree: ast.Module) -> dict[str, ast.stmt]:
    """Return what a module defines at its top level, by name."""
    found = {}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {each.id: node for each in targets if isinstance(each, ast.Name)}
    return found


def listing(module: str) -> str:
    """Return the source as HTML: a line of its own for each, numbered, definitions as anchors."""
    text = _path(module).read_text()
    anchors = {node.lineno: name for name, node in _definitions(ast.parse(text)).items()}
    rows = []
    for number, line in enumerate(_marked(text).split("\n"), 1):
        anchor = f' id="{anchors[number]}"' if number in anchors else ""
        rows.append(
            f'<span class="line"{anchor}><a class="n" id="L{number}" href="#L{number}" '
            f'aria-label="line {number}">{number}</a>{line}\n</span>'
        )
    return '<pre class="code" tabindex="0"><code>' + "".join(rows) + "</code></pre>"


def _marked(text: str) -> str:
    """Return the text escaped, comments, strings and keywords marked within each line."""
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    parts, done = [], 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = _KINDS.get(token.type)
        if token.type == tokenize.NAME and keyword.iskeyword(token.string):
            kind = "keyword"
        begin = starts[token.start[0] - 1] + token.start[1]
        end = starts[token.end[0] - 1] + token.end[1]
        if kind is None or begin < done:
            continue
        parts.append(html.escape(text[done:begin]))
        parts += _span(kind, html.escape(text[begin:end]))
        done = end
    return "".join([*parts, html.escape(text[done:])]).rstrip("\n")


def _span(kind: str, escaped: str) -> list[str]:
    """Mark each line of a token by itself, as every line is an element of its own."""
    return [
        f'<span class="{kind}">{line}</span>' + "\n" * (i < escaped.count("\n"))
        for i, line in enumerate(escaped.split("\n"))
    ]
