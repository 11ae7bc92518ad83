"""The lecture's gallery: its table, its runs, and the site that is made of them.

The commands are stubs that leave a page within a fraction of a second.
"""

import base64
import importlib
import io
import itertools
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from absl.testing import flagsaver
from PIL import Image

from cnn_jax.__main__ import commands
from cnn_jax.errors import UsageError
from cnn_jax.lecture import runner, site, source_pages, topics
from cnn_jax.lecture.runner import Experiment, Record
from cnn_jax.lecture.topics import Chapter, Part, Topic
from cnn_jax.programs import layer_table

REPOSITORY = Path(__file__).parents[2]

# The lecture's headings in their order, each once.
SLIDES = """
Introduction
Convolution operation
Convolution in 1D
Convolution in 2D
2D convolution
2D Convolution
2D convolution with stride
Convolution example
Edge detection
Convolution Filter-1
Convolution Filter-2
Advantages
Sparse interaction
Sparse connectivity
Receptive field
Parameter sharing
Equivariance
Pooling
Typical CNN
Max Pool
Invariance of maxpooling
Learned invariances
Pooling with downsampling
Strided convolution
Strided convolution (contd)
Zero padding
Connections
CNN & Backpropagation-1
CNN & Backpropagation-2
CNN & Backpropagation-3
CNN & Backpropagation-4
CNN & Backpropagation-5
CNN Architectures
ImageNet Challenge
AlexNet
ZFNet
VggNet: VGG16
VggNet: Vgg16 vs Vgg19
GoogleNet
Naive inception
Inception
ResNet: Observation
ResNet
Resnet: Skip Connection
Wide Resnet
DenseNet
Comparison of CNN architecture
Computer Vision Tasks
Semantic Segmentation-1
Semantic Segmentation-2
Semantic Segmentation-3
Object identification: R-CNN
Object identification: Fast R-CNN
Object identification: Faster R-CNN
CNN: Visualization
CNN: Visualization of Filters
CNN: Nearest neighbour
t-SNE: Last layer feature
Saliency via Occlusion
CNN: Saliency via Backprop
CNN: Guided Backpropagation
Guided backpropagation
Gradient Ascent
Synthetic images
Fantasy image
Adversarial Perturbations
Universal Adversarial Perturbations
Deep Dream-1
Deep Dream-2
Deep Dream-3
Feature Inversion
Resources
""".strip().split("\n")

ALL = [topic for chapter in topics.CHAPTERS for topic in chapter.topics]


# --- the table --------------------------------------------------------------------------------


def test_every_slide_has_a_topic_and_topics_come_in_the_lectures_order():
    named = [slide for topic in ALL for slide in topic.slides]
    assert set(named) == set(SLIDES)
    firsts = [next(i for i, topic in enumerate(ALL) if slide in topic.slides) for slide in SLIDES]
    assert firsts == sorted(firsts)


def test_the_commands_of_the_table_exist_with_their_flags(command_helps):
    for name, experiment in topics.EXPERIMENTS.items():
        known = command_helps[experiment.command]
        for flag in (*experiment.flags, f"--{experiment.place}=x"):
            flag = flag.removeprefix("--").partition("=")[0]
            assert flag in known or flag.removeprefix("no") in known, (name, flag)


def test_what_an_experiment_looks_into_is_made_before_it():
    seen = set()
    for name, experiment in topics.EXPERIMENTS.items():
        assert experiment.of is None or experiment.of in seen, name
        seen.add(name)


def test_from_nothing_it_takes_twenty_minutes_at_most():
    assert sum(experiment.seconds for experiment in topics.EXPERIMENTS.values()) <= 20 * 60


def test_every_experiment_is_shown_and_every_part_is_a_section_of_a_commands_page():
    covers = [chapter.cover for chapter in topics.CHAPTERS if chapter.cover]
    parts = [part for topic in ALL for part in topic.parts]
    assert {part.experiment for part in parts} == set(topics.EXPERIMENTS)
    reports = [*REPOSITORY.glob("cnn_jax/reports/*.py"), *REPOSITORY.glob("experiments/*.py")]
    reports.append(REPOSITORY / "cnn_jax/lecture/convolution.py")
    texts = "\n".join(file.read_text() for file in reports)
    for part in parts + covers:
        assert f'"{part.section}"' in texts, part


def test_the_code_that_topics_name_is_there_and_anchored_in_its_listing():
    for code in dict.fromkeys(code for topic in ALL for code in topic.code):
        place = source_pages.find(code)
        if place.name:
            assert f'id="{place.name}"' in source_pages.listing(place.module), code


def test_unknown_code_is_an_error():
    with pytest.raises(LookupError, match="defines no convolve"):
        source_pages.find("cnn_jax.ops.convolution:convolve")
    with pytest.raises(LookupError, match="no module"):
        source_pages.find("cnn_jax.ops.nothing")


def test_a_listing_is_the_source_with_a_number_to_each_line():
    text = (REPOSITORY / "cnn_jax/ops/convolution.py").read_text()
    listing = Texts(source_pages.listing("cnn_jax.ops.convolution"))
    lines = listing.text.rstrip("\n").split("\n")
    assert lines == [f"{n}{line}" for n, line in enumerate(text.rstrip("\n").split("\n"), 1)]


def test_the_ratios_of_googlenets_remark_are_those_of_the_counts():
    alexnet, vgg, googlenet = (
        layer_table.analyse_model(name).parameters for name in ("alexnet", "vgg16", "googlenet")
    )
    (remark,) = (note for topic in ALL for note in topic.differs if "5 million parameters" in note)
    assert f"AlexNet has {round(alexnet / googlenet)} times" in remark
    assert f"VGG-16 {round(vgg / googlenet)} times" in remark
    assert f"{googlenet - 1025 * 1000:,} without it" in remark


# --- running ----------------------------------------------------------------------------------

STUB = """
import json, pathlib, sys, time
from stubs import shared
flags = dict(flag[2:].split("=", 1) for flag in sys.argv[1:])
folder = pathlib.Path(flags.get("output") or flags["workdir"])
folder.mkdir(parents=True, exist_ok=True)
with (folder / "calls").open("a") as file:
    file.write("called\\n")
if "wait" in flags:
    time.sleep(float(flags["wait"]))
if "fail" in flags:
    print("some words\\nerror: the weights are not there", file=sys.stderr)
    sys.exit(2)
png = "{png}"
models = [dict(name="net", params=1234)]
(folder / "results.json").write_text(json.dumps(dict(flags=flags, models=models)))
(folder / "report.html").write_text(f'''<html><body>
<section>
<h2>Numbers</h2>
<p>What came out.</p>
<div class="table"><table>
<caption></caption>
<thead><tr><th class="number">n</th><th>square</th><th>half</th></tr></thead>
<tbody><tr><td>7</td><td>49</td><td>3.5</td></tr></tbody></table></div>
</section>
<section>
<h2>Pictures</h2>
<figure><img width="20" alt="A first &lt;one&gt;" src="data:image/png;base64,{{png}}">\
<figcaption>A first &lt;one&gt;</figcaption></figure>
<figure><img width="20" alt="Another" src="data:image/png;base64,{{png}}"><figcaption>Another\
</figcaption></figure>
</section>
</body></html>''')
"""


@pytest.fixture
def stubs(tmp_path, monkeypatch):
    """A package of commands, their modules by name: worker, and other that does the same."""
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), "red").save(buffer, format="png")
    folder = tmp_path / "commands" / "stubs"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "shared.py").write_text("VALUE = 1\n")
    text = STUB.format(png=base64.b64encode(buffer.getvalue()).decode())
    (folder / "worker.py").write_text(text)
    (folder / "other.py").write_text(text.replace("from stubs import shared", ""))
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setenv("PYTHONPATH", str(folder.parent))
    yield {"worker": "stubs.worker", "other": "stubs.other"}
    runner._imports.cache_clear()


EXPERIMENTS = {
    "trained": Experiment("worker", (), 1, "workdir"),
    "looked": Experiment("other", (), 1, of="trained"),
}


@pytest.fixture
def gallery(tmp_path):
    folder = tmp_path / "gallery"
    folder.mkdir()
    return folder


def keys_of(experiments, stubs):
    runner._imports.cache_clear()
    return runner.keys(experiments, stubs)


def make(gallery, experiments, stubs):
    """Make what is not made, and return which that was."""
    keys = keys_of(experiments, stubs)
    waiting = [name for name in experiments if not runner.is_made(gallery, name, keys[name])]
    for name in waiting:
        for _ in runner.make(gallery, name, experiments, keys[name], stubs):
            pass
    return waiting


def calls(gallery, name):
    return (gallery / "runs" / name / "calls").read_text().count("called")


def test_what_is_made_is_not_made_again(gallery, stubs):
    assert make(gallery, EXPERIMENTS, stubs) == ["trained", "looked"]
    assert make(gallery, EXPERIMENTS, stubs) == []
    assert calls(gallery, "trained") == calls(gallery, "looked") == 1
    record = runner.read_record(gallery, "trained")
    assert record.seconds > 0
    assert record.processor_seconds > 0


def test_what_looks_into_a_network_waits_until_that_is_made():
    experiments = {"trained": Experiment("worker", (), 1), "apart": Experiment("other", (), 1)}
    experiments["looked"] = Experiment("worker", (), 1, of="trained")
    assert runner.ready(["trained", "apart", "looked"], [], experiments) == ["trained", "apart"]
    assert runner.ready(["apart", "looked"], ["trained"], experiments) == ["apart"]
    assert runner.ready(["looked"], ["apart"], experiments) == ["looked"]


def test_an_experiment_gets_the_network_it_looks_into_and_a_folder_of_its_own(gallery, stubs):
    make(gallery, EXPERIMENTS, stubs)
    results = (gallery / "runs/looked/results.json").read_text()
    assert f'"workdir": "{gallery}/runs/trained"' in results
    assert f'"output": "{gallery}/runs/looked"' in results


def test_other_flags_make_an_experiment_anew_and_what_looks_into_it(gallery, stubs):
    make(gallery, EXPERIMENTS, stubs)
    changed = EXPERIMENTS | {"trained": Experiment("worker", ("--steps=2",), 1, "workdir")}
    assert make(gallery, changed, stubs) == ["trained", "looked"]
    assert calls(gallery, "trained") == 1  # in an empty folder


def test_another_source_makes_anew_only_what_imports_it(gallery, stubs, tmp_path):
    apart = EXPERIMENTS | {"apart": Experiment("other", (), 1)}
    make(gallery, apart, stubs)
    (tmp_path / "commands/stubs/shared.py").write_text("VALUE = 2\n")
    assert make(gallery, apart, stubs) == ["trained", "looked"]


def test_a_command_depends_on_what_it_imports_within_functions_and_on_data_beside_them():
    files = runner.sources("experiments.classify")
    names = {str(Path(file).relative_to(REPOSITORY)) for file in files}
    assert {
        "experiments/classify.py",
        "experiments/flags/subject.py",
        "cnn_jax/reports/classified.py",
        "cnn_jax/data/sample_photographs/chelsea.jpg",
        "cnn_jax/data/class_names/imagenet.txt",
    } <= names
    assert "cnn_jax/lecture/topics.py" not in names
    assert "experiments/dream.py" not in names


def test_a_failed_command_is_told_and_what_needs_it_too(gallery, stubs):
    failing = EXPERIMENTS | {"trained": Experiment("worker", ("--fail=1",), 1, "workdir")}
    make(gallery, failing, stubs)
    trained, looked = (runner.read_record(gallery, name) for name in failing)
    assert trained.status == looked.status == "failed"
    assert trained.message == "error: the weights are not there"
    assert looked.message == "trained, whose network it looks into, was not made"
    assert make(gallery, EXPERIMENTS, stubs) == ["trained", "looked"]  # mended


def test_a_command_that_is_killed_is_told_by_which_signal(gallery, stubs, tmp_path):
    killed = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    (tmp_path / "commands/stubs/worker.py").write_text(killed)
    make(gallery, EXPERIMENTS, stubs)
    message = runner.read_record(gallery, "trained").message
    assert message == "it was ended by SIGKILL, as where memory runs out"


def test_an_interrupted_command_is_ended_and_goes_on_in_its_folder(gallery, stubs):
    slow = {"trained": Experiment("worker", ("--wait=60",), 1, "workdir")}
    key = keys_of(slow, stubs)["trained"]
    run = runner.make(gallery, "trained", slow, key, stubs)
    while not (gallery / "runs/trained/calls").exists():
        next(run)
    run.close()
    assert runner.read_record(gallery, "trained") == Record(key, "begun")
    assert not runner.is_made(gallery, "trained", key)
    again = runner.make(gallery, "trained", slow, key, stubs)
    while calls(gallery, "trained") < 2:  # the first call's file is still there
        next(again)
    again.close()


def test_results_that_vanished_are_made_again(gallery, stubs):
    make(gallery, EXPERIMENTS, stubs)
    shutil.rmtree(gallery / "runs/looked")
    assert make(gallery, EXPERIMENTS, stubs) == ["looked"]


# --- the site ---------------------------------------------------------------------------------

CHAPTERS = (
    Chapter(
        "first",
        "First & foremost",
        "Of a `code`.",
        (
            Topic(
                "Numbers",
                ("A <slide>",),
                ("The net has {trained[net][params]:,} parameters.",),
                ("cnn_jax.ops.convolution:conv", "cnn_jax.models.resnet"),
                (Part("trained", "Numbers"),),
                differs=("The slide says {looked[net][params]}, not more.",),
            ),
            Topic(
                "Pictures",
                ("Another slide",),
                ("Text.",),
                ("cnn_jax.ops.geometry",),
                (Part("trained", "Pictures", ("A first <one>",)), Part("looked", "Pictures")),
            ),
        ),
        Part("trained", "Pictures"),
    ),
    Chapter("last", "Last", "The end.", (Topic("Play", ("Resources",), ("Play.",), ()),)),
)


class Texts(HTMLParser):
    """A page's text, tags and anchors."""

    def __init__(self, page):
        super().__init__()
        self.text, self.tags, self.ids = "", [], set()
        self.feed(page)

    def handle_data(self, data):
        self.text += data

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if "id" in attributes:
            assert attributes["id"] not in self.ids, attributes["id"]
            self.ids.add(attributes["id"])


def faults(folder):
    """Return what is amiss in a site: requests to others, dead links, pictures without words."""
    pages = {file: Texts(file.read_text()) for file in folder.rglob("*.html")}
    found = []
    for file, page in pages.items():
        for tag, attributes in page.tags:
            if tag == "script":
                found.append(f"{file.name} runs a script")
            if tag == "img" and not attributes.get("alt"):
                found.append(f"{file.name} has a picture without a text: {attributes}")
            for name in ("src", "href"):
                address = urlsplit(attributes.get(name, "data:"))
                if address.scheme == "data":
                    continue
                if address.scheme or address.netloc:
                    found.append(f"{file.name} refers to {attributes[name]}")
                    continue
                target = file.parent / unquote(address.path) if address.path else file
                target = target.resolve()
                if not target.exists():
                    found.append(f"{file.name} refers to {attributes[name]}, which is not there")
                elif address.fragment and address.fragment not in pages[target].ids:
                    found.append(f"{file.name} refers to {attributes[name]}, an unknown anchor")
    style = (folder / "style.css").read_text()
    return found + re.findall(r"url\([^)]*\)|@import[^;]*", style)


@pytest.fixture
def no_playground(monkeypatch):
    monkeypatch.setattr(site, "_playground", lambda new: None)


def write(gallery, experiments, stubs, chapters=CHAPTERS):
    keys = keys_of(experiments, stubs)
    return site.write(gallery, experiments, keys, chapters).parent


def test_a_site_refers_to_itself_alone_and_every_link_and_picture_is_there(
    gallery, stubs, no_playground
):
    make(gallery, EXPERIMENTS, stubs)
    folder = write(gallery, EXPERIMENTS, stubs)
    assert faults(folder) == []
    pages = {str(file.relative_to(folder)) for file in folder.rglob("*.html")}
    assert {"index.html", "first.html", "last.html", "code/cnn_jax.models.resnet.html"} <= pages
    assert {"pages/trained/report.html", "pages/looked/report.html"} <= pages


def test_the_lectures_own_site_is_whole_before_anything_was_made(gallery, no_playground):
    keys = dict.fromkeys(topics.EXPERIMENTS, "key")
    folder = site.write(gallery, topics.EXPERIMENTS, keys).parent
    assert faults(folder) == []
    page = Texts((folder / "architectures.html").read_text())
    assert "(not computed yet)" in page.text
    assert "./launch.sh architectures --model=vgg16" in page.text


def test_the_playground_is_a_page_of_the_site_that_its_chapter_links_to(gallery, stubs):
    make(gallery, EXPERIMENTS, stubs)
    folder = write(gallery, EXPERIMENTS, stubs)
    assert '<a href="playground.html">' in (folder / "last.html").read_text()
    assert "<title>" in (folder / "playground.html").read_text()


def test_a_topic_shows_its_slides_its_numbers_the_command_and_the_code(
    gallery, stubs, no_playground
):
    make(gallery, EXPERIMENTS, stubs)
    folder = write(gallery, EXPERIMENTS, stubs)
    page = (folder / "first.html").read_text()
    text = Texts(page).text
    assert "Slides: A <slide>" in text
    assert "The net has 1,234 parameters." in text
    assert "What came out." in text
    assert "./launch.sh worker" in text
    assert f"./launch.sh other --workdir={gallery}/runs/trained" in text
    assert "cnn_jax/ops/convolution.py, line " in text
    assert '<a href="code/cnn_jax.ops.convolution.html#conv">' in page
    assert "The slide says 1234, not more." in text


def test_only_the_figures_that_are_asked_for_are_shown(gallery, stubs, no_playground):
    make(gallery, EXPERIMENTS, stubs)
    page = (write(gallery, EXPERIMENTS, stubs) / "first.html").read_text()
    assert re.findall("<h3>(Pictures.*?)</h3>", page) == ["Pictures: trained", "Pictures: looked"]
    first, second = re.findall(
        r'<section class="part"><h3>Pictures: .*?</h3>(.*?)</section>', page, re.S
    )
    assert first.count("<img") == 1
    assert 'alt="A first &lt;one&gt;"' in first
    assert second.count("<img") == 2
    assert 'width="20" height="10"' in first


def test_only_the_columns_that_are_asked_for_are_shown(gallery, stubs, no_playground):
    part = Part("trained", "Numbers", columns=("n", "half"))
    course = [Chapter("first", "First", "", (Topic("Numbers", (), (), (), (part,)),))]
    make(gallery, EXPERIMENTS, stubs)
    page = (write(gallery, EXPERIMENTS, stubs, course) / "first.html").read_text()
    rows = re.findall("<tr>(.*?)</tr>", page)
    assert [re.findall(">([^<]+)<", row) for row in rows] == [["n", "half"], ["7", "3.5"]]


def test_of_what_was_made_by_other_code_or_flags_that_is_said(gallery, stubs, no_playground):
    make(gallery, EXPERIMENTS, stubs)
    changed = EXPERIMENTS | {"trained": Experiment("worker", ("--steps=2",), 1, "workdir")}
    folder = write(gallery, changed, stubs)
    text = Texts((folder / "first.html").read_text()).text
    assert text.count("was made before the code or the flags changed") == 3
    assert "What came out." in text
    text = Texts((folder / "index.html").read_text()).text
    assert "0 of 2 commands" in text
    assert re.search(r"took 0\.\d minutes, 0\.\d processor minutes\.", text)


def test_a_failure_is_shown_on_its_topic_and_the_others_are_kept(gallery, stubs, no_playground):
    failing = EXPERIMENTS | {"looked": Experiment("other", ("--fail=1",), 1, of="trained")}
    make(gallery, failing, stubs)
    folder = write(gallery, failing, stubs)
    text = Texts((folder / "first.html").read_text()).text
    assert "The command failed" in text
    assert "error: the weights are not there" in text
    assert "What came out." in text
    assert "1 of 2 commands" in Texts((folder / "index.html").read_text()).text


def test_an_old_site_is_replaced_as_a_whole(gallery, stubs, no_playground):
    folder = write(gallery, EXPERIMENTS, stubs)
    (folder / "stale.html").write_text("old")
    assert not (write(gallery, EXPERIMENTS, stubs) / "stale.html").exists()


def test_headings_descend_without_a_gap_and_tables_are_reached_by_the_keyboard(
    gallery, stubs, no_playground
):
    make(gallery, EXPERIMENTS, stubs)
    folder = write(gallery, EXPERIMENTS, stubs)
    for name in ("index.html", "first.html", "last.html"):
        page = Texts((folder / name).read_text())
        levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
        tables = [a for tag, a in page.tags if tag == "div" and a.get("class") == "table"]
        assert all(a["tabindex"] == "0" for a in tables)
        assert any(tag == "html" and a["lang"] == "en" for tag, a in page.tags)


COLOURS = {  # text -> what it stands on
    "text": ("page", "card", "soft", "warm-page", "bad-page"),
    "quiet": ("page", "card"),
    "accent": ("page", "card", "soft"),
    "warm": ("warm-page",),
    "bad": ("bad-page",),
    **dict.fromkeys(("comment", "string", "keyword"), ("soft", "warm-page")),
}


def luminance(colour):
    """Of WCAG 2.2, of #rgb or #rrggbb."""
    digits = colour.removeprefix("#")
    digits = digits if len(digits) == 6 else "".join(digit * 2 for digit in digits)
    values = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return sum(weight * v for weight, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_what_they_stand_on(scheme):
    style = (REPOSITORY / "cnn_jax/lecture/gallery.css").read_text()
    roots = re.findall(r":root \{(.*?)\}", style, re.S)
    colours = dict(re.findall(r"--([\w-]+): (#\w+);", roots[scheme == "dark"]))
    for text, grounds in COLOURS.items():
        for ground in grounds:
            light = sorted((luminance(colours[text]), luminance(colours[ground])))
            assert (light[1] + 0.05) / (light[0] + 0.05) >= 4.5, (text, ground)


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def lecture(monkeypatch, stubs, no_playground, own_flags):
    """The command, its experiments and chapters being the stubs'."""
    sys.modules.pop("experiments.lecture", None)  # its flags were undone behind the last test
    lecture = importlib.import_module("experiments.lecture")
    runner._imports.cache_clear()
    monkeypatch.setattr(lecture, "commands", lambda: stubs)
    monkeypatch.setattr(lecture, "EXPERIMENTS", EXPERIMENTS)
    monkeypatch.setattr(lecture, "CHAPTERS", CHAPTERS)
    if not lecture.flags.FLAGS.is_parsed():
        lecture.flags.FLAGS.mark_as_parsed()
    return lecture


def call(lecture, folder, only=None):
    with flagsaver.flagsaver((lecture._WORKDIR, str(folder)), (lecture._ONLY, only)):
        lecture.main(["lecture"])


def test_the_command_makes_the_site_and_says_where_it_is(lecture, gallery, capsys):
    call(lecture, gallery)
    assert f"{gallery}/site/index.html" in capsys.readouterr().out
    assert faults(gallery / "site") == []
    call(lecture, gallery)
    assert "made 0 of 0" in capsys.readouterr().out


def test_after_a_failure_the_exit_status_is_one_and_the_site_is_there(
    lecture, gallery, capsys, monkeypatch
):
    failing = EXPERIMENTS | {"trained": Experiment("worker", ("--fail=1",), 1, "workdir")}
    failing["apart"] = Experiment("other", (), 1)
    monkeypatch.setattr(lecture, "EXPERIMENTS", failing)
    with pytest.raises(SystemExit) as ended:
        call(lecture, gallery)
    assert ended.value.code == 1
    assert "failed: trained, looked" in capsys.readouterr().err
    assert (gallery / "site/index.html").exists()
    assert (gallery / "runs/apart/results.json").exists()


def test_only_makes_what_is_named_and_what_that_looks_into(lecture, gallery):
    call(lecture, gallery, ["looked"])
    assert calls(gallery, "trained") == 1
    with pytest.raises(UsageError, match="unknown experiment 'loked'"):
        call(lecture, gallery, ["loked"])


def test_a_folder_of_something_else_is_left_as_it_is(lecture, gallery):
    (gallery / "config.json").write_text('{"model": "resnet20"}')
    with pytest.raises(UsageError, match="another configuration"):
        call(lecture, gallery)
    assert [file.name for file in gallery.iterdir()] == ["config.json"]


def test_the_command_is_one_of_the_commands():
    assert "lecture" in commands()


# --- in a browser -----------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-sync", "--disable-background-networking", "--disable-component-update"]
FLAGS += ["--enable-logging=stderr", "--dump-dom"]

# The page as a phone shows it, in a frame that may be looked into.
PHONE = """<!doctype html><iframe width="390" height="800" style="border:0"></iframe><script>
const frame = document.querySelector("iframe");
frame.onload = () => {
  const page = frame.contentDocument.documentElement;
  const broken = [...frame.contentDocument.images].filter(i => i.complete && !i.naturalWidth);
  document.title = `width ${page.scrollWidth}, broken ${broken.length}`;
};
frame.srcdoc = TEXT;
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_on_a_phone_a_page_is_as_wide_as_the_screen_and_tells_no_errors(
    gallery, stubs, no_playground, tmp_path
):
    make(gallery, EXPERIMENTS, stubs)
    folder = write(gallery, EXPERIMENTS, stubs)
    text = (folder / "first.html").read_text().replace("</", "<\\/")
    phone = folder / "phone.html"
    phone.write_text(PHONE.replace("TEXT", repr(text)))
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", phone.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "<title>width 390, broken 0</title>" in done.stdout
    assert "CONSOLE" not in done.stderr
