"""What the docs show runs, and the site builds without a warning."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import warnings
from pathlib import Path

import jax
import pytest
from helpers import little

import allmodes as am
from allmodes.diffusion.sampler import DiffusionSampler
from allmodes.methods import Method

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]
BLOCKS = {
    f"{page.name}-{i}": code
    for page in PAGES
    for i, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
}
TINY = little(
    steps=40, cooldown=10, batch=64, buffer=256, every=20, path_steps=8, local_every=20, sample_steps=20,
)  # fmt: skip


WRAPPED = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

HOME = "https://github.com/allmodes/allmodes/blob/main/"
RAW = "https://raw.githubusercontent.com/allmodes/allmodes/main/"


def test_links_of_the_readme_are_absolute_and_lead_to_what_is_there():
    """So that they hold on a package index too; those into the repository are held against its
    files."""
    links = re.findall(r"\]\(([^)]*)\)", (ROOT / "README.md").read_text())
    assert all(link.startswith("https://") for link in links)
    ours = [link.removeprefix(prefix) for prefix in (HOME, RAW) for link in links if link.startswith(prefix)]
    assert len(ours) > 10
    assert not [link for link in links if "allmodes/allmodes" in link and not link.startswith((HOME, RAW))]
    for path, _, anchor in (link.partition("#") for link in ours):
        assert (ROOT / path).is_file(), path
        headings = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w\- ]", "", h).lower().replace(" ", "-") for h in headings]


def prose(text):
    """The lines of a page that are to be wrapped, with their numbers: no code, tables, headings,
    images."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        fenced ^= line.lstrip().startswith("```")
        if fenced or line.startswith(("#", "|", "![", "    ", "```")):
            continue
        # A code span or a link's address cannot be broken: alone in its line, it may be long.
        if len(re.sub(r"`[^`]*`|\]\([^)]*\)", "-", line).split()) > 2:
            yield number, line


@pytest.mark.parametrize("page", WRAPPED, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_is_wrapped_at_100(page):
    """In characters, not in bytes."""
    assert not [f"{page.name}:{number}" for number, line in prose(page.read_text()) if len(line) > 100]


def test_the_method_of_contributing_is_a_method():
    """The sketch runs as it stands, and has all that the protocol asks for."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    (sketch,) = (block for block in blocks if "class Mine" in block)
    space = {"__name__": "block"}
    exec(sketch, space)
    assert isinstance(space["Mine"](), Method)


def test_the_source_distribution_holds_all_that_its_tests_and_docs_need(tmp_path):
    pytest.importorskip("setuptools", reason="setuptools is not installed: no source distribution is built")
    ignored = shutil.ignore_patterns(".*", "runs", "site", "build", "dist", "*.egg-info", "__pycache__")
    tree = tmp_path / "tree"
    shutil.copytree(ROOT, tree, ignore=ignored)
    build = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / done.stdout.splitlines()[-1]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    needed = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
    needed = {path for path in needed if ".egg-info" not in path}
    assert {"tests/test_docs.py", "docs/index.md", "Makefile", "requirements.lock"} <= needed
    assert needed <= held


def test_what_is_imported_is_declared():
    """Each package that the library imports is a dependency of it, or of an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {re.match(r"[\w-]+", text).group().lower() for group in groups for text in group}
    core = {re.match(r"[\w-]+", text).group().lower() for text in project["dependencies"]}
    hosts = {"bilby", "cobaya"}  # import the module of their own name, which nothing else does
    others = {"torch", "pandas", "arviz"}  # large, or what pymc brings
    names = importlib.metadata.packages_distributions()
    for path in (ROOT / "src").rglob("*.py"):
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        for where, nodes in (("at once", top), ("ever", ast.walk(ast.parse(path.read_text())))):
            for node in nodes:
                if isinstance(node, ast.Import):
                    modules = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    modules = [node.module]
                else:
                    continue
                for root in {module.partition(".")[0] for module in modules}:
                    if root in sys.stdlib_module_names or root == "allmodes":
                        continue
                    found = {name.lower() for name in names.get(root, [root])}
                    here = core | hosts & {path.stem} if where == "at once" else declared | others
                    assert found & here, (path, root)


def test_there_are_blocks_to_run():
    assert {"README.md-0", "index.md-0", "models.md-0"} <= set(BLOCKS)


@pytest.mark.trains
@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_runs(name, tmp_path, monkeypatch):
    """As it stands, in a fresh namespace; only training is cut short, and so is drawing."""
    if "numpyro" in BLOCKS[name]:
        pytest.importorskip("numpyro", reason="NumPyro is not installed: its block is not run")
    if "pymc" in BLOCKS[name]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its ArviZ about the next, of PyTensor without BLAS
            pytest.importorskip("pymc", reason="PyMC is not installed: its block is not run")
            import pytensor

            assert pytensor.config.blas__ldflags is not None
    if "interop.stan" in BLOCKS[name]:
        pytest.importorskip("httpstan", reason="httpstan is not installed: its block is not run")
        warnings.filterwarnings("ignore", "path is deprecated", DeprecationWarning)  # its own way to find stanc
    if "openmm" in BLOCKS[name]:
        pytest.importorskip("openmm", reason="OpenMM is not installed: its block is not run")
    if "bilby" in BLOCKS[name]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it imports
            pytest.importorskip("bilby", reason="bilby is not installed: its block is not run")
    fit, sample = am.fit, DiffusionSampler.sample

    def short(target, method=None, *, key, **more):
        tiny = None if "start" in more else TINY
        return fit(target, tiny if method is None else method, key=key, **more)

    monkeypatch.setattr(am, "fit", short)
    monkeypatch.setattr("allmodes.interop.hosted.fit", short)
    monkeypatch.setattr(DiffusionSampler, "sample", lambda self, n, **more: sample(self, min(n, 500), **more))
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[name], name, "exec"), {"__name__": "block"})
    jax.effects_barrier()


def test_a_formula_that_has_no_mathml_is_an_error(monkeypatch):
    pytest.importorskip("latex2mathml", reason="latex2mathml is not installed: formulas are not converted")
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "hooks"))
    from mathml import on_page_content

    def page(tex):
        return on_page_content(rf'<p>of <span class="arithmatex">\({tex}\)</span></p>')

    assert "<mo>&#x0003C;</mo>" in page("x &lt; 1")
    assert "<mi>log</mi><mspace" in page(r"\log p")
    assert "<mspace" not in page(r"\log_2(p)")
    with pytest.raises(ValueError, match=r"'\\\\nosuch x' has \\nosuch"):
        page(r"\nosuch x")


def test_the_site_builds_without_a_warning(tmp_path):
    """And can be read offline: formulas are MathML, and no page asks for a file from elsewhere."""
    pytest.importorskip("mkdocs", reason="MkDocs is not installed: the site is not built")
    pytest.importorskip("latex2mathml", reason="latex2mathml is not installed: the site is not built")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    api = (tmp_path / "site" / "api" / "index.html").read_text()
    for name in ("Target", "Draws", "IWSM", "audit"):
        assert f'id="allmodes.{name}"' in api
    pages = {page: page.read_text() for page in (tmp_path / "site").rglob("*.html")}
    assert sum(text.count("<math") for text in pages.values()) > 100
    for page, text in pages.items():
        shown = re.sub(r"<(pre|code|script)\b.*?</\1>", "", text, flags=re.DOTALL)
        assert "$" not in shown, page
        assert "arithmatex" not in shown, page
        assert not re.search(r'<(script|link|img|source)\b[^>]*(src|href)="(https?:)?//', text), page
