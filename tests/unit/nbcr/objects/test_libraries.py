"""Settings of single libraries, saved in one process and loaded in another, and rolled back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from nbcr.objects import surroundings

CASES = {
    "mpmath": ("from mpmath import mp, pi", "mp.dps, mp.pretty = 40, True", "(mp.dps, mp.pretty, str(pi))"),
    "pandas": (
        "import pandas as pd, datetime, matplotlib.units as units, matplotlib.dates",
        "pd.plotting.register_matplotlib_converters()",
        "type(units.registry[datetime.date]).__module__",
    ),
    "seaborn": (
        "import seaborn as sns, matplotlib as mpl",
        "sns.palettes._patch_colormap_display()",
        "mpl.colormaps['magma']._repr_html_()",
    ),
    "control": (
        "import control as ct, os",
        "ct.set_defaults('freqplot', dB=True); s = ct.ss(-1, 1, 1, 0)",
        "(ct.config.defaults['freqplot.dB'], ct.ss(-2, 1, 1, 0).name)",
    ),
    "plotly": ("import plotly.io as pio", "pio.templates.default = 'plotly_dark'", "pio.templates.default"),
    "altair": (
        "import altair as alt",
        "_ = alt.data_transformers.disable_max_rows()",
        "(alt.data_transformers.active, alt.data_transformers.options)",
    ),
}
"""What a cell imports, what it changes, and what later cells see of it."""

REGISTERED = {
    "colour map": (
        "import matplotlib as mpl, matplotlib.colors as mc",
        "mpl.colormaps.register(mc.ListedColormap(['red', 'lime'], name='mine'))",
        "[mpl.colormaps[name].colors for name in mpl.colormaps if name == 'mine']",
    ),
    "projection and scale": (
        "import matplotlib.pyplot as plt, matplotlib.projections as mp, matplotlib.scale as ms",
        "class Mine(mp.PolarAxes): name = 'mine'\nmp.register_projection(Mine)\n"
        "class Own(ms.LinearScale): name = 'own'\nms.register_scale(Own)",
        "('mine' in mp.get_projection_names(), 'own' in ms.get_scale_names())",
    ),
    "plotly": (
        "import plotly.io as pio, plotly.graph_objects as go",
        "pio.templates['mine'] = go.layout.Template(layout_font_size=31); pio.templates['none'].layout.font.size = 29\n"
        "pio.templates.default = 'mine'",
        "[('mine' in pio.templates and pio.templates['mine'].layout.font.size), pio.templates['none'].layout.font.size,"
        " pio.templates.default]",
    ),
    "altair": (
        "import altair as alt",
        "@alt.theme.register('own', enable=False)\ndef own(): return alt.theme.ThemeConfig({'width': 77})",
        "'own' in alt.theme.names() and str(alt.theme.enable('own')) and alt.theme.get()()",
    ),
}
"""What a cell registers with a library; what came later stays."""

HEAVY = {"altair", "control", "plotly"}  # slow to import


def _library(cell: str) -> str:
    return cell.removeprefix("from ").removeprefix("import ").replace(".", " ").replace(";", " ").split()[0]


def _each(cases: dict[str, Any]) -> list[Any]:
    return [pytest.param(case, marks=[pytest.mark.long] if _library(case) in HEAVY else []) for case in cases]


CANNOT_GO_BACK = {"seaborn": "colour maps by seaborn could not all be set"}


def run(code: str, place: Path) -> str:
    begun = f"from pathlib import Path\nfrom nbcr import objects\nplace = Path({str(place)!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", begun + dedent(code)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.either("library")
@pytest.mark.parametrize("library", _each(CASES | REGISTERED))
def test_later_cells_see_what_was_set_in_another_process(library: str, place: Path) -> None:
    imports, change, seen = (CASES | REGISTERED)[library]
    cell = f"{imports}\n{change}"
    save = f"ns = {{'__name__': '__main__'}}; exec({cell!r}, ns)\n"
    save += f"assert not objects.save(ns, place, hidden=()).wait(60).lost; print(eval({seen!r}, ns))"
    load = "ns = {'__name__': '__main__'}; report = objects.load(place, ns)\n"
    load += f"assert not report.lines(), report.lines()\nprint(eval({seen!r}, ns))"
    untouched = f"ns = {{}}; exec({imports!r}, ns); print(eval({seen!r}, ns))"
    before = run(save, place)
    assert run(load, place) == before
    assert run(untouched, place) != before, "or this test cannot fail"


def test_fonts_that_cells_have_added_come_back(place: Path) -> None:
    """Their files are where matplotlib does not look; one that is gone is told."""
    fonts = [place.parent / "one.ttf", place.parent / "other.ttf"]
    add = f"""
        import shutil
        import matplotlib.font_manager as fm
        for font in {[str(font) for font in fonts]}:
            shutil.copy(fm.findfont("DejaVu Sans"), font)
            fm.fontManager.addfont(font)
        ns = {{'fm': fm}}
        assert not objects.save(ns, place, hidden=()).wait(60).lines()
    """
    run(add, place)
    fonts[1].unlink()
    told = run(
        "ns = {}; print(objects.load(place, ns).lines(), [e.fname for e in ns['fm'].fontManager.ttflist])", place
    )
    assert f"fonts could not all be set: there is no font {fonts[1]}'" in told
    assert repr(str(fonts[0])) in told


@pytest.mark.either("library")
@pytest.mark.parametrize("library", _each(CASES))
def test_what_was_set_since_is_rolled_back(library: str, place: Path) -> None:
    imports, change, seen = CASES[library]
    told = run(
        f"""
        ns = {{'__name__': '__main__'}}
        exec({imports!r}, ns)
        objects.save(ns, place, hidden=()).wait(60)
        before = {{}}
        exec({change!r}, ns)
        report = objects.load(place, ns, remove_new=True, hidden=())
        print(report.lines(), eval({seen!r}, ns))
        """,
        place,
    )
    if library in CANNOT_GO_BACK:
        assert CANNOT_GO_BACK[library] in told
    else:
        untouched = run(f"ns = {{}}; exec({imports!r}, ns); print([], eval({seen!r}, ns))", place)
        assert told.replace("['removed, because they came later: s'] ", "[] ") == untouched


LOGS = """
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="root %(message)s")
log = logging.getLogger("own.part")
log.addHandler(logging.StreamHandler(sys.stdout))
log.info("said")
"""


def test_cells_that_set_up_logging_are_run_again_after_a_rollback(place: Path) -> None:
    """Handlers that stayed would make `basicConfig` do nothing, and other loggers say everything twice."""
    shown = run(
        f"""
        import logging, sys
        kept = logging.StreamHandler(sys.stdout)
        logging.getLogger("kept").addHandler(kept)
        ns = {{"__name__": "__main__"}}
        objects.save(ns, place, hidden=()).wait(60)
        exec({LOGS!r}, ns)
        report = objects.load(place, ns, remove_new=True, hidden=())
        exec({LOGS!r}, ns)
        print(report.removed, logging.getLogger("kept").handlers == [kept])
        """,
        place,
    )
    assert shown == "said\nroot said\nsaid\nroot said\n('log',) True\n"


def test_the_names_of_pylab_come_back(place: Path) -> None:
    """IPython hides them, as if the notebook did not have them."""
    begin = """
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance()
        shell.enable_gui = lambda gui=None: None
        ns = shell.user_ns
    """
    save = "shell.run_line_magic('pylab', 'agg'); ns['linspace'] = 'mine'; objects.save(ns, place).wait(60)"
    load = "assert not objects.load(place, ns).lines()"
    seen = "print(len(ns['arange'](3)), ns['plt'].__name__, ns['linspace'], 'arange' in shell.user_ns_hidden)"
    run(f"{dedent(begin)}\n{save}", place)
    assert run(f"{dedent(begin)}\n{load}\n{seen}", place) == "3 matplotlib.pyplot mine True\n"


def test_what_changes_cells_and_is_lost_is_told(place: Path) -> None:
    """Magics of an own class, whose object knows the shell; and in a rollback nothing is there twice."""
    begin = """
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance()
        ns = shell.user_ns
    """
    cell = """
        from IPython.core.magic import Magics, line_magic, magics_class
        @magics_class
        class Counting(Magics):
            @line_magic
            def counted(self, line):
                return 1
        get_ipython().register_magics(Counting)
        gone = (number for number in [1])
        class Held:
            def __init__(self, held): self.held = held
            def visit(self, node): return node
        changes = Held(gone)
        get_ipython().ast_transformers.append(changes)
    """
    again = "get_ipython().ast_transformers.append(changes); get_ipython().set_custom_exc((KeyError,), print)"
    save = f"shell.run_cell({dedent(cell)!r}); objects.save(ns, place).wait(60); shell.run_cell({again!r})\n"
    load = "print(*objects.load(place, ns).remarks, sep='; ')\n"
    seen = "print(len(shell.ast_transformers), shell.custom_exceptions)\n"
    assert run(f"{dedent(begin)}\n{save}{load}{seen}", place) == "\n1 ()\n"
    assert run(f"{dedent(begin)}\n{load}", place) == (
        "what changes cells could not all be set: run the cell again that added changes; "
        "magics of the session's classes could not all be set: run the cell again that registered %counted\n"
    )


@pytest.mark.parametrize("backend", ["svg", "notebook"])
def test_figures_come_back_for_the_backend_that_cells_chose(backend: str, place: Path) -> None:
    """It is chosen before they are made, as they get the canvas that it has then; nothing is due to be shown."""
    begin = """
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance()
        shell.enable_gui = lambda gui=None: None
        ns = shell.user_ns
    """
    save = f"shell.run_line_magic('matplotlib', {backend!r})\n"
    save += "exec('import matplotlib.pyplot as plt; figure = plt.figure()', ns); objects.save(ns, place).wait(60)\n"
    load = "assert not objects.load(place, ns).lines()\n"
    rolled_back = "shell.run_line_magic('matplotlib', 'agg')\n" + load
    seen = "print(type(ns['figure'].canvas).__name__, type(ns['plt'].figure().canvas).__name__)\n"
    wanted = {"svg": "FigureCanvasSVG", "notebook": "FigureCanvasNbAgg"}[backend]
    assert run(f"{dedent(begin)}\n{save}{rolled_back}{seen}", place).splitlines()[-1] == f"{wanted} {wanted}"
    assert run(f"{dedent(begin)}\n{load}{seen}", place).splitlines()[-1] == f"{wanted} {wanted}"


def test_what_init_printing_of_sympy_chose_comes_back(place: Path) -> None:
    """Also for lists of Python's, and in a rollback as it was."""
    begin = """
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance()
        ns = shell.user_ns
        def shown():
            formats = shell.display_formatter.format
            return [formats(ns["e"], ["text/plain", "text/latex"])[0], formats([ns["e"]], ["text/plain"])[0]]
    """
    cell = "import sympy; x = sympy.Symbol('x'); sympy.init_printing(order='rev-lex'); e = sympy.Integral(x**2 + x)"
    save = f"shell.run_cell({cell!r}); assert not objects.save(ns, place).wait(60).lines(); print(shown())\n"
    load = "print(objects.load(place, ns).lines(), shown())\n"
    since = "shell.run_cell('sympy.init_printing(pretty_print=False, use_latex=False)'); print(shown())\n"
    before, changed, rolled_back = run(f"{dedent(begin)}\n{save}{since}{load}", place).splitlines()
    assert before != changed
    assert rolled_back == f"[] {before}"
    assert run(f"{dedent(begin)}\n{load}", place) == f"[] {before}\n"


SINGLE = {
    "from matplotlib import rcParams as rc, colormaps as m": "rc is matplotlib.rcParams and m is matplotlib.colormaps",
    "import matplotlib; mine = {'rc': matplotlib.rcParams}": "mine['rc'] is matplotlib.rcParams",
    "from mpmath import mp, iv, pi": "mp is mpmath.mp and iv is mpmath.iv and pi is mpmath.pi",
    "from mpmath import sin, matrix; m = matrix([[1, 2]])": "m.ctx is mpmath.mp and str(sin(m[0]))[:6] == '0.8414'",
    "from sympy import S, RR": "S is sympy.S and RR is sympy.RR",
    "from pandas import options": "options is pandas.options",
    "import matplotlib; copied = matplotlib.rcParams.copy()": "copied is not matplotlib.rcParams and len(copied) > 99",
    "from control.config import defaults": "defaults is control.config.defaults",
    "from plotly.io import templates": "templates is plotly.io.templates",
    "import random; inner = random._inst; own = random.Random(4)": "inner is random._inst and own is not random._inst",
    "from scipy.stats import norm; rv = norm(1, 2)": (
        "norm._random_state is rv.dist._random_state is __import__('numpy').random.mtrand._rand"
    ),
}
"""What cells import, or keep of a library, and what holds where it comes back."""


@pytest.mark.either("cell")
@pytest.mark.parametrize("cell", _each(SINGLE))
def test_what_a_library_has_one_of_is_no_copy(cell: str, place: Path) -> None:
    """A library looks into its own: what later cells do to a copy has no effect."""
    library = _library(cell)
    save = f"ns = {{'__name__': '__main__'}}; exec({cell!r}, ns)\n"
    run(save + "report = objects.save(ns, place, hidden=()).wait(60); assert not report.lost, report.lines()", place)
    load = "ns = {'__name__': '__main__'}; report = objects.load(place, ns); assert not report.lost, report.lines()\n"
    check = SINGLE[cell]
    assert run(f"{load}import {library}; ns['{library}'] = {library}; print(eval({check!r}, ns))", place) == "True\n"


def test_where_bokeh_and_holoviews_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of stand-ins, as they are large."""
    numbers, outputs = ModuleType("bokeh.util.serialization"), ModuleType("bokeh.io.state")
    holoviews = ModuleType("holoviews")
    in_use = SimpleNamespace(_notebook=True, _notebook_type="jupyter", _file=None)
    vars(numbers)["_simple_id"] = 1040
    vars(outputs)["curstate"] = lambda: in_use
    vars(holoviews)["Store"] = SimpleNamespace(renderers={"bokeh": 1, "matplotlib": 2}, current_backend="matplotlib")
    for module in (numbers, outputs, holoviews):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    wanted = ("numbers of bokeh's models", "outputs of bokeh", "extension of holoviews")
    states = {name: state for name, state in surroundings.read(before_fork=False).items() if name in wanted}
    vars(numbers)["_simple_id"], in_use._notebook = 1000, False
    holoviews.Store.current_backend = "bokeh"
    assert surroundings.apply(states, before_names=False) == []
    assert (vars(numbers)["_simple_id"], in_use._notebook, holoviews.Store.current_backend) == (
        1040,
        True,
        "matplotlib",
    )
    vars(numbers)["_simple_id"] = 1050  # in a rollback: models of the present may be on the page
    holoviews.Store.renderers.pop("matplotlib")
    (told,) = surroundings.apply(states, before_names=False)
    assert "run the cell again that called holoviews.extension('bokeh', 'matplotlib')" in told
    assert vars(numbers)["_simple_id"] == 1050
