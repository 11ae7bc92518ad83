"""The lecture's gallery as a static site: made of what its commands left, in the lecture's order.

Pages refer to files beside them by relative addresses and to nothing else, so that the folder works
from a disk without a network, and can be copied to any server.
"""

import base64
import hashlib
import html as escaping
import importlib.resources
import importlib.util
import io
import json
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from cnn_jax.data import sample_photographs
from cnn_jax.lecture import runner, source_pages
from cnn_jax.lecture.runner import Experiment, Record
from cnn_jax.lecture.topics import CHAPTERS, Chapter, Part, Topic
from cnn_jax.reports import html
from cnn_jax.reports.html import Html

TITLE = "Convolutional networks, computed"

_SECTION = re.compile(r"<section>\n<h2>(.*?)</h2>\n?(.*?)</section>", re.S)
_FIGURE = re.compile(r"<figure[^>]*>.*?<figcaption>(.*?)</figcaption></figure>", re.S)
_TABLE = re.compile(r"<table>.*?</table>", re.S)
_ROW = re.compile(r"<tr>.*?</tr>", re.S)
_CELL = re.compile(r"<t[dh][^>]*>.*?</t[dh]>", re.S)
_EMBEDDED = re.compile(
    r'(<figure>)?<img width="(\d+)"([^>]*?) src="data:image/png;base64,([^"]*)">'
)


class Made(NamedTuple):
    """What is there of an experiment.

    command: as one types it.
    record: how it ended; None where it was not run.
    results: its results.json, with `models` of architectures by their names.
    page: the address of its own page within the site, or None.
    sections: of that page by title, their pictures being files of the site.
    stale: whether it was made of other code or flags than today's.
    """

    command: str
    record: Record | None
    results: Mapping[str, Any]
    page: str | None
    sections: Mapping[str, Html]
    stale: bool = False


def write(
    gallery: Path,
    experiments: Mapping[str, Experiment],
    keys: Mapping[str, str],
    chapters: Sequence[Chapter] = CHAPTERS,
) -> Path:
    """Write the site of what is made so far, in one step, and return its first page.

    Args:
      keys: as runner.keys gives them: of what was made of another, that is said.
    """
    new = gallery / ".site.new"
    shutil.rmtree(new, ignore_errors=True)
    (new / "code").mkdir(parents=True)
    made = {
        name: _gather(gallery, name, experiment, keys[name], new)
        for name, experiment in experiments.items()
    }
    facts = {name: each.results for name, each in made.items()}
    style = importlib.resources.files("cnn_jax.lecture").joinpath("gallery.css").read_text()
    (new / "style.css").write_text(style)
    playground = _playground(new)

    def page(address: str, title: str, current: Chapter | None, *parts: str) -> None:
        depth = address.count("/")
        text = _frame(title, chapters, current, parts, "../" * depth)
        (new / address).write_text(text, encoding="utf-8")

    for number, chapter in enumerate(chapters):
        topics = [_topic(topic, made, facts, playground) for topic in chapter.topics]
        header = f"<h1>{_text(chapter.title)}</h1><p class='lead'>{_text(chapter.text)}</p>"
        page(
            f"{chapter.name}.html",
            chapter.title,
            chapter,
            header,
            *topics,
            _neighbours(chapters, number),
        )
    page("index.html", TITLE, None, *_index(chapters, experiments, made, facts, playground))
    for module in sorted({_module(code) for code in _all_code(chapters)}):
        place = source_pages.find(module)
        heading = (
            f"<h1><code>{place.title}</code></h1><p class='lead'>{_text(place.summary)}</p>"
            f"<p class='slides'>{_text(place.file)}</p>"
        )
        page(f"code/{module}.html", module, None, heading, source_pages.listing(module))
    site = gallery / "site"
    shutil.rmtree(site, ignore_errors=True)
    new.rename(site)
    return site / "index.html"


def slug(title: str) -> str:
    """Return the anchor of a topic."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _all_code(chapters: Sequence[Chapter]) -> list[str]:
    return [code for chapter in chapters for topic in chapter.topics for code in topic.code]


def _module(code: str) -> str:
    return code.partition(":")[0]


# --- what the commands left -------------------------------------------------------------------


def _gather(gallery: Path, name: str, experiment: Experiment, key: str, new: Path) -> Made:
    """Read an experiment's results, and copy its pages and pictures into the site."""
    command = shlex.join(["./launch.sh", *runner.arguments(experiment, gallery)])
    record = runner.read_record(gallery, name)
    folder = runner.folder_of(gallery, name)
    if record is None or record.status != "made" or not (folder / "results.json").exists():
        return Made(command, record, {}, None, {})
    results = json.loads((folder / "results.json").read_text())
    if isinstance(results.get("models"), list):
        results = {row["name"]: row for row in results["models"] if "name" in row}
    sections: dict[str, Html] = {}
    for file in sorted(folder.rglob("report.html")):
        inside = file.relative_to(folder)
        address = Path("pages", name, inside)
        (new / address).parent.mkdir(parents=True, exist_ok=True)
        up = "../" * len(address.parent.parts)
        text = _pictures_as_files(file.read_text(), new, f"pictures/{name}", up)
        back = f'<p><a href="{up}index.html">{escaping.escape(TITLE)}</a></p>'
        (new / address).write_text(text.replace("<body>", f"<body>\n{back}", 1))
        if inside == Path("report.html"):
            sections = {
                escaping.unescape(title): Html(body.replace(f'"{up}pictures/', '"pictures/'))
                for title, body in _SECTION.findall(text)
            }
    page = f"pages/{name}/report.html" if sections else None
    return Made(command, record, results, page, sections, record.key != key)


def _pictures_as_files(text: str, new: Path, folder: str, up: str) -> str:
    """Write a page's embedded pictures into the site's folder, and let the page refer to them."""

    def picture(found: re.Match) -> str:
        figure, width, other, data = found.groups()
        png = base64.b64decode(data)
        name = f"{folder}/{hashlib.sha256(png).hexdigest()[:16]}.png"
        (new / folder).mkdir(parents=True, exist_ok=True)
        (new / name).write_bytes(png)
        with Image.open(io.BytesIO(png)) as image:
            height = round(int(width) * image.height / image.width)
        # a caption is as wide as its picture, and a picture that is clicked opens in its full size
        figure = f'<figure style="--width: {width}px">' if figure else ""
        return (
            f'{figure}<a href="{up}{name}"><img width="{width}" height="{height}" loading="lazy"'
            f'{other} src="{up}{name}"></a>'
        )

    return _EMBEDDED.sub(picture, text)


def _playground(new: Path) -> str | None:
    """Write the page that trains in the browser, and return its address; None without that part."""
    if importlib.util.find_spec("cnn_jax.playground") is None:
        return None
    from cnn_jax.playground import page

    (new / "playground.html").write_text(page.render(), encoding="utf-8")
    return "playground.html"


# --- a topic ----------------------------------------------------------------------------------


class _Unknown:
    """What a text says of a result that is not there."""

    def __getitem__(self, key: Any) -> "_Unknown":
        return self

    def __format__(self, form: str) -> str:
        return "(not computed yet)"


class _Facts(dict):
    def __missing__(self, key: Any) -> Any:
        return _Unknown()


def _filled(text: str, facts: Mapping[str, Any]) -> str:
    """Put results into a text."""
    known = {name: _Facts(results) for name, results in facts.items()}
    return text.format_map(_Facts(known))


def _text(text: str) -> str:
    """Return plain text as HTML, `code` marked."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escaping.escape(text))


def _topic(
    topic: Topic, made: Mapping[str, Made], facts: Mapping[str, Any], playground: str | None
) -> str:
    anchor = slug(topic.title)
    slides = " · ".join(map(escaping.escape, topic.slides))
    parts = [
        f'<article class="topic" id="{anchor}" aria-labelledby="{anchor}-title">',
        f'<p class="slides">Slides: {slides}</p>',
        f'<h2 id="{anchor}-title"><a href="#{anchor}">{_text(topic.title)}</a></h2>',
        *(f"<p>{_text(_filled(each, facts))}</p>" for each in topic.text),
    ]
    if "Resources" in topic.slides:
        parts.append(_link_to_playground(playground))
    if topic.differs:
        notes = "".join(f"<p>{_text(_filled(each, facts))}</p>" for each in topic.differs)
        parts.append(
            f'<aside class="differs" aria-label="Where the slide differs">'
            f"<h3>Where the slide differs</h3>{notes}</aside>"
        )
    told: set[str] = set()
    sections = [part.section for part in topic.parts]
    for part in topic.parts:
        twice = sections.count(part.section) > 1
        title = f"{part.section}: {part.experiment}" if twice else part.section
        parts.append(_part(part, title, made[part.experiment], part.experiment in told))
        told.add(part.experiment)
    used = list(dict.fromkeys(part.experiment for part in topic.parts))
    if topic.networks:
        parts.append(_networks(topic.networks, made["architectures"]))
        used = list(dict.fromkeys([*used, "architectures"]))
    parts += [_how([made[name] for name in used], topic.code), "</article>"]
    return "\n".join(parts)


def _part(part: Part, title: str, made: Made, told: bool) -> str:
    """Return a section of an experiment's page, or why it is not there, told once a topic."""
    title = escaping.escape(title)
    if made.record is not None and made.record.status == "failed":
        why = f"<p>{escaping.escape(made.record.message)}</p>"
        return "" if told else _failed("The command failed", why)
    if not made.sections:
        return "" if told else _failed("Not computed yet", _BELOW)
    body = made.sections.get(part.section)
    if body is None:
        return _failed(title, "<p>The command's page has no such section.</p>")
    note = "" if told or not made.stale else _STALE
    if part.figures:
        figures = [
            found.group()
            for beginning in part.figures
            for found in _FIGURE.finditer(body)
            if found.group(1).startswith(escaping.escape(beginning))
        ]
        body = html.figures(*map(Html, dict.fromkeys(figures)))
    if part.columns:
        body = _TABLE.sub(lambda table: _columns(table.group(), part.columns), body)
    return f'{note}<section class="part"><h3>{title}</h3>\n{_reachable(body)}\n</section>'


def _columns(table: str, names: Sequence[str]) -> str:
    """Return a table without the columns of other headers."""

    def row(found: re.Match) -> str:
        cells = _CELL.findall(found.group())
        return (
            "<tr>" + "".join(cell for cell, kept in zip(cells, keep, strict=True) if kept) + "</tr>"
        )

    headers = re.findall(r"<th(?: [^>]*)?>(.*?)</th>", table, re.S)
    keep = [escaping.unescape(header) in names for header in headers]
    return _ROW.sub(row, table)


_STALE = (
    '<p class="slides">What follows was made before the code or the flags changed; '
    "<code>./launch.sh lecture</code> makes it anew.</p>"
)

_BELOW = "<p>The command below computes it.</p>"


def _failed(title: str, body: str) -> str:
    return f'<section class="failed"><h3>{title}</h3>{body}</section>'


def _reachable(body: str) -> str:
    """Let wide tables be scrolled by the keyboard, and their headers be known as such."""
    body = body.replace(
        '<div class="table">', '<div class="table" role="region" aria-label="Table" tabindex="0">'
    )
    return body.replace("<th>", '<th scope="col">').replace("<th class", '<th scope="col" class')


def _networks(names: Sequence[str], made: Made) -> str:
    rows = []
    for name in names:
        row = made.results.get(name)
        if row is None:
            continue
        published = row["published"] or {}
        rows.append(
            (
                name,
                row["params"],
                round(row["macs"] / 1e9, 3),
                row["layers"],
                "x".join(map(str, row["receptive_field"])),
                published.get("top1_error"),
                published.get("source", "\N{EN DASH}"),
            )
        )
    if not rows:
        return ""
    header = ["network", "parameters", "multiply-accumulates, G", "layers", "receptive field"]
    header += ["top-1 error, %", "of"]
    return (
        '<section class="part"><h3>Counted, and published</h3>'
        f"{_reachable(html.table(header, rows))}</section>"
    )


def _command(made: Made) -> str:
    return f'<pre tabindex="0"><code>{escaping.escape(made.command)}</code></pre>'


def _duration(record: Record) -> str:
    used = record.processor_seconds
    processors = "" if used is None else f", {used:.0f} processor seconds"
    return f"{record.seconds:.0f} seconds{processors}"


def _number(value: float | None) -> str:
    text = "\N{EN DASH}" if value is None else f"{value:.0f}"
    return f'<td class="number">{text}</td>'


def _how(made: Sequence[Made], codes: Sequence[str]) -> str:
    """Return the commands, their pages, and the functions."""
    parts = ['<footer class="how">']
    if made:
        parts.append("<h3>The command</h3>" if len(made) == 1 else "<h3>The commands</h3>")
    for each in made:
        parts.append(_command(each))
        if each.page is not None:
            seconds = f" It took {_duration(each.record)}." if each.record else ""
            parts.append(
                f'<p><a href="{each.page}">The whole page</a> of this command, with its '
                f"configuration.{seconds}</p>"
            )
    places = [source_pages.find(code) for code in codes]
    items = [
        f'<li><a href="{place.address}"><code>{place.title}</code></a> '
        f'<span class="where">{escaping.escape(place.file)}'
        + (f", line {place.line}" if place.name else "")
        + "</span></li>"
        for place in places
    ]
    return "\n".join([*parts, "<h3>The code</h3>", "<ul>", *items, "</ul>", "</footer>"])


def _link_to_playground(playground: str | None) -> str:
    if playground is None:
        return "<p>This installation does not carry the playground's page.</p>"
    return f'<p><a href="{playground}">Open the playground</a>; it needs no network.</p>'


# --- the pages around the topics --------------------------------------------------------------


def _frame(
    title: str, chapters: Sequence[Chapter], current: Chapter | None, parts: Sequence[str], up: str
) -> str:
    items = []
    for number, chapter in enumerate(chapters, 1):
        here = chapter is current
        topics = ""
        if here:
            links = [
                f'<li><a href="#{slug(topic.title)}">{_text(topic.title)}</a></li>'
                for topic in chapter.topics
            ]
            topics = f"<ol>{''.join(links)}</ol>"
        mark = ' aria-current="page"' if here else ""
        items.append(
            f'<li><a href="{up}{chapter.name}.html"{mark}>{number} '
            f"<span>{_text(chapter.title)}</span></a>{topics}</li>"
        )
    full = title if title == TITLE else f"{title} · {TITLE}"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escaping.escape(full)}</title>",
            '<link rel="icon" href="data:,">',  # or a server would be asked for one
            f'<link rel="stylesheet" href="{up}style.css">\n</head>\n<body>',
            '<a class="skip" href="#content">To the content</a>',
            '<div class="frame">',
            '<nav class="chapters" aria-label="Chapters">',
            f'<a class="home" href="{up}index.html">{escaping.escape(TITLE)}</a>',
            f"<ol>{''.join(items)}</ol>\n</nav>",
            '<main id="content" tabindex="-1">',
            *parts,
            '<footer class="site"><p>Made by <code>./launch.sh lecture</code> of cnn_jax.</p>',
            "</footer>",
            "</main>\n</div>\n</body>\n</html>\n",
        ]
    )


def _neighbours(chapters: Sequence[Chapter], number: int) -> str:
    links = []
    for step, arrow in ((-1, "← {}"), (1, "{} →")):
        if 0 <= number + step < len(chapters):
            other = chapters[number + step]
            text = arrow.format(_text(other.title))
            links.append(f'<a href="{other.name}.html">{text}</a>')
    return f'<nav class="next" aria-label="Neighbouring chapters">{"".join(links)}</nav>'


def _index(
    chapters: Sequence[Chapter],
    experiments: Mapping[str, Experiment],
    made: Mapping[str, Made],
    facts: Mapping[str, Any],
    playground: str | None,
) -> list[str]:
    topics = sum(len(chapter.topics) for chapter in chapters)
    done = sum(each.page is not None and not each.stale for each in made.values())
    parts = [
        f"<h1>{escaping.escape(TITLE)}</h1>",
        f'<p class="lead">A university lecture on convolutional networks, in its own order: '
        f"{topics} topics, each with what this project's code computed for it, the command "
        "that made it, and the function behind it.</p>",
    ]
    if done < len(experiments):
        parts.append(
            _failed(
                "Not all of it is there",
                f"<p>{done} of {len(experiments)} commands have been run to their end "
                "by the code as it is; <code>./launch.sh lecture</code> makes the others.</p>",
            )
        )
    cards = [_card(number, chapter, made) for number, chapter in enumerate(chapters, 1)]
    parts += ['<ol class="cards">', *cards, "</ol>"]
    if playground is not None:
        parts.append(_link_to_playground(playground))
    return [*parts, _differences(chapters, facts), _commands(made), _photographs()]


def _card(number: int, chapter: Chapter, made: Mapping[str, Made]) -> str:
    links = "".join(
        f'<li><a href="{chapter.name}.html#{slug(topic.title)}">{_text(topic.title)}</a></li>'
        for topic in chapter.topics
    )
    return (
        f'<li class="card">{_cover(chapter, made)}<div class="inner">'
        f'<h2><span class="count">{number}</span>'
        f'<a href="{chapter.name}.html">{_text(chapter.title)}</a></h2>'
        f"<p>{_text(chapter.text)}</p><ul>{links}</ul></div></li>"
    )


def _cover(chapter: Chapter, made: Mapping[str, Made]) -> str:
    if chapter.cover is None:
        return ""
    body = made[chapter.cover.experiment].sections.get(chapter.cover.section, "")
    for found in _FIGURE.finditer(body):
        image = re.search(r"<img [^>]*>", found.group())
        beginnings = tuple(map(escaping.escape, chapter.cover.figures)) or ("",)
        if image and found.group(1).startswith(beginnings):
            return image.group().replace("<img ", '<img class="cover" ')
    return ""


def _differences(chapters: Sequence[Chapter], facts: Mapping[str, Any]) -> str:
    items = [
        f'<li><a href="{chapter.name}.html#{slug(topic.title)}">{_text(topic.title)}</a>: '
        f"{_text(_filled(note, facts))}</li>"
        for chapter in chapters
        for topic in chapter.topics
        for note in topic.differs
    ]
    return (
        '<section class="topic" id="differences"><h2>Where the slides differ from what is '
        f"computed</h2><ul>{''.join(items)}</ul></section>"
    )


def _commands(made: Mapping[str, Made]) -> str:
    rows = []
    for each in made.values():
        status = "not run" if each.record is None else each.record.status
        status = "made before the last change" if each.stale else status
        took = (each.record.seconds, each.record.processor_seconds) if each.page else (None, None)
        page = f'<a href="{each.page}">page</a>' if each.page else ""
        rows.append(
            f"<tr><td><code>{escaping.escape(each.command)}</code></td>"
            f"<td>{status}</td>{''.join(map(_number, took))}<td>{page}</td></tr>"
        )
    table = (
        '<div class="table"><table><thead><tr><th>command</th><th>status</th>'
        '<th class="number">seconds</th><th class="number">processor seconds</th>'
        "<th>results</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    ended = [each.record for each in made.values() if each.page]
    minutes = f"{sum(each.seconds for each in ended) / 60:.1f} minutes"
    used = [each.processor_seconds for each in ended if each.processor_seconds is not None]
    if len(used) == len(ended):
        minutes += f", {sum(used) / 60:.1f} processor minutes"
    return (
        '<section class="topic" id="commands"><h2>The commands</h2><p>Each can be called by '
        "itself, with other flags, images or networks; <code>--help</code> lists them. "
        "<code>./launch.sh lecture</code> calls all of them, two at a time by default. Counted one "
        f"by one, what is made took {minutes}.</p>{_reachable(table)}</section>"
    )


def _photographs() -> str:
    rows = [
        (each.file, each.author, each.license, each.source) for each in sample_photographs.EVERY
    ]
    table = _reachable(html.table(["file", "by", "licence", "source"], rows))
    return f'<section class="topic" id="photographs"><h2>Photographs</h2>{table}</section>'
