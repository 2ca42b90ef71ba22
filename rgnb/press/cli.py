"""The `rgnb` command: list, run and build the book's notebooks. Thin over papermill and jupyter-book."""

import argparse
import ast
import json
import os
import re
import shutil
import sys
import time

import rgnb
from rgnb import checks, files
from rgnb.press import notebooks

EXAMPLES = """examples:
  rgnb list                                        what there is to run
  rgnb run selectivity -p seeds 3 --profile quick  a page with fewer and smaller networks
"""
RUN_EXAMPLES = """examples:
  rgnb run chains -p correlation_length_long 20
  rgnb run selectivity -p correlation_length_long 5 -p seeds 3 --profile quick
"""
REPRODUCED = "reproduced.json"  # where a book that is made again keeps what it gave, in its folder


def _list(args):
    for name in notebooks.names():
        print(f"{name:26}{notebooks.title(name)}")
        for p in notebooks.parameters(name).values():
            print(f"    {p.name:26} {p.default!r:16} {p.help}")
        print()
    sys.stdout.flush()


def _show(args):
    record = notebooks.record(args.notebook)
    for p in notebooks.parameters(args.notebook).values():
        print(f"{p.name} = {p.default!r}\n    {notebooks.KINDS[type(p.default)]}: {p.help}")
    quoted = notebooks.glued(notebooks.executed("network"))
    tokens, none = (float(quoted[name]) for name in ("minutes-tokens", "minutes-none"))
    print(
        f"\nFrom stored results it took {record['seconds']} s on {record['device']}. A network of paper size "
        f"took about {tokens:.0f} minutes to train with token mixing, {none:.1f} without."
    )
    if "profile" in notebooks.parameters(args.notebook):
        print(
            f"One of the quick profile takes about {_quick()} here, with token mixing, as timed now. "
            "`rgnb run` says how many there are to train before it trains any."
        )


def _quick():
    # How long a network of the quick profile takes here, trained alone.
    from rgnb.randomness import resolve_device
    from rgnb.study import Experiment
    from rgnb.study.rehearsal import Clock, duration

    device, clock = resolve_device(), Clock()
    setting = Experiment.profile("quick").settings()[0]
    return duration(clock.training(setting, [0], device) + clock.measuring(setting, device, None))


def _run(args):
    given = [*args.parameter, *([("profile", args.profile)] if args.profile else [])]
    values = notebooks.parse_parameters(args.notebook, given)
    output = notebooks.run_path(args.notebook, values)
    notebooks.check_settings(args.notebook, values)
    notebooks.check_folder(notebooks.ROOT / "build")  # where its page goes
    copy = notebooks.run_path(args.notebook, values, args.output) if args.output else None
    if copy:
        notebooks.check_folder(copy.parent)
    from rgnb.press import plans  # which imports torch: bad input is refused before

    print(f"executing {args.notebook}, to see what it has to train ...", flush=True)
    if (plan := plans.rehearse(args.notebook, output, values)) is None:
        print("All that it needs was stored; building its page ...", flush=True)
    else:
        print(plan, flush=True)
        with plans.Progress(plan) as line:
            notebooks.execute(args.notebook, output, values, progress=False, stderr=line.stderr)
            line.build()
    if copy and copy != output:
        with files.replacing(copy) as partial:
            shutil.copyfile(output, partial)
    page = _build_runs()[output]
    _print_changes(args.notebook, output)
    print(f"executed notebook: {copy or output}\nits page: {page.as_uri()}")


def _print_changes(notebook, output):
    changed = [row for row in notebooks.beside(notebook, output) if row[1] != row[2]]
    print("Verdicts and numbers", "beside the book's own:" if changed else "are the book's own.")
    if changed:
        rows = [("", "book", "here"), *changed]
        wide, narrow = (max(len(row[column]) for row in rows) for column in range(2))
        for name, book, here in rows:
            print(f"    {name:{wide}}   {book:{narrow}}   {here}")
    sys.stdout.flush()


def _compare(names, root):
    from rgnb.press import record
    from rgnb.study.store import results_folder

    theirs = results_folder()
    if theirs.resolve() == notebooks.ROOT / "results":
        return
    found, path = record.reproduction(names, root, theirs), root / REPRODUCED
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\nStored results beside the book's own, largest differences (also in {path}):")
    for name, row in found["deviations"].items():
        of = f"{row['largest difference']:.2g} of {row['largest size']:.2g}"
        print(f"    {name}: {of} in {row['files']} files")
    sys.stdout.flush()


def _build(args):
    known = notebooks.names()
    asked = {checks.choice("notebook", name, known) for name in args.notebooks or known}
    names = [name for name in known if name in asked]
    root, again = notebooks.ROOT, set()
    if args.into:
        root = notebooks.copy_book(args.into, [name for name in known if name not in asked])
        if (root / REPRODUCED).exists():
            again = set(json.loads((root / REPRODUCED).read_text(encoding="utf-8"))["made"]["notebooks"])
        for name in asked - again:
            notebooks.executed(name, root).unlink(missing_ok=True)  # a copy of the book's own
    notebooks.check_folder(root / "_build")
    print(f"executing {len(names)} notebook{'s' * (len(names) > 1)} ...", flush=True)
    started = time.monotonic()
    for done, name in enumerate(notebooks.execute_all(names, root), start=1):
        minutes = (time.monotonic() - started) / 60
        print(f"executed {name} ({done} of {len(names)}), {minutes:.0f} min since the start", flush=True)
        if args.into:
            _print_changes(name, notebooks.executed(name, root))
    if args.into:
        _compare([name for name in known if name in asked | again], root)
    print(f"the book is at {notebooks.build_html(root).as_uri()}")
    if root == notebooks.ROOT and (pages := _build_runs()):
        front = next(iter(pages.values())).parent.parent / "index.html"
        print(f"the book with your {len(pages)} own runs is at {front.as_uri()}")


def _sweep(args):
    from rgnb.study import sweep
    from rgnb.verdicts import hypotheses

    name, values = checks.label("name", args.name), {}
    for key, text in args.parameter:
        if key in values:
            raise checks.BadValue(f'{key} is set twice; give one list, such as -p {key} "[1, 2]"')
        values[key] = _value(text)
    values = {"profile": args.profile} | values
    experiments = sweep.grid(**values)
    print(f"{name}: {sweep.plan(experiments)}", flush=True)
    if args.plan:
        return
    ds = sweep.sweep(name, experiments, scheduler=args.scheduler)
    print(f"{ds.sizes['run']} networks, {int(hypotheses.trained(ds).sum())} of them pass the gate")
    grid = ", ".join(f"{key}={value!r}" for key, value in values.items())
    print(f"in Python: sweep.sweep({name!r}, sweep.grid({grid}))")


def _train(args):
    from rgnb.study import questions

    if args.list:
        names = [checks.choice("question", name, questions.QUESTIONS) for name in args.questions]
        for name, (asked, stored) in questions.coverage().items():
            if name in names or not names:
                print(f"{name:16}{questions.QUESTIONS[name].asks} {stored} of {asked} networks are stored")
        return
    questions.train(args.questions)


def _value(text):
    # A number, a list, True or False as written in Python; anything else is text.
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _build_runs():
    from rgnb.press import runs

    return runs.build()


def _parser():
    layout = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(
        prog="rgnb", description="Run and build the book of executable findings.", epilog=EXAMPLES, **layout
    )
    parser.add_argument("--version", action="version", version=f"rgnb {rgnb.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name, call, help, epilog=None):
        command = commands.add_parser(name, help=help, epilog=epilog, **layout)
        command.set_defaults(call=call)
        command._negative_number_matcher = re.compile(r"-\.?\d")  # argparse itself takes -1e-3 for an option
        return command.add_argument

    pair = {"nargs": 2, "action": "append", "default": [], "metavar": ("NAME", "VALUE")}
    add("list", _list, "the notebooks with their parameters, defaults and help")
    argument = add("show", _show, "what a notebook's parameters are and do, and how long it takes")
    argument("notebook", help="a name that `rgnb list` shows")
    argument = add("run", _run, "execute a notebook with other parameters", RUN_EXAMPLES)
    argument("notebook", help="a name that `rgnb list` shows")
    argument("-p", "--parameter", **pair, help="set a parameter; may be repeated")
    argument("--profile", help="shorthand for -p profile: quick (minutes on a laptop), small or paper")
    kept = "where to write a copy of the executed notebook, which is kept in book/runs/"
    argument("--output", metavar="FILE", help=kept)
    argument = add("build", _build, "execute every notebook, or those named, and build the HTML book")
    argument("notebooks", nargs="*", metavar="NOTEBOOK", help="execute only these")
    argument("--into", metavar="FOLDER", help="execute and build a copy of the book in this folder")
    argument = add("sweep", _sweep, "train a grid of settings; what is stored is not trained again")
    argument("name", help="of the sweep's file in results/: letters, digits and dashes")
    fields = "a field of Experiment, ModelConfig or TrainConfig; a list makes it an axis of the grid"
    argument("-p", "--parameter", **pair, help=fields)
    profile = "where the other fields come from: quick (default), small or paper"
    argument("--profile", default="quick", help=profile)
    cluster = "run on a Dask cluster, such as tcp://10.0.0.1:8786, not on this machine"
    argument("--scheduler", metavar="ADDRESS", help=cluster)
    plan = "only say what is stored, what is missing and how long that takes"
    argument("--plan", action="store_true", help=plan)
    argument = add("train", _train, "train the networks of the second round, all or those of some questions")
    argument("questions", nargs="*", metavar="QUESTION", help="names that --list shows; none: all of them")
    which = "only say which there are, and how many networks each needs"
    argument("--list", action="store_true", help=which)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Entry point. Exit status 0; 1 where a notebook or the build fails; 2 for bad input; 130 when stopped.

    Anything else is a fault and is raised, with its traceback.
    """
    args = _parser().parse_args(arguments)
    try:
        if named := os.environ.get("RGNB_RESULTS"):  # pages are executed in another working folder
            os.environ["RGNB_RESULTS"] = os.path.abspath(os.path.expanduser(named))
        args.call(args)
    except checks.BadInput as error:
        print(f"rgnb: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        whole = "-c constraints.txt -e '.[book]'"
        needed = whole if files.checkout() else "'rgnb[study]', and for the book use a checkout"
        print(f"rgnb: {error}; install what is needed: pip install {needed}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (checks.Failed, OSError) as error:
        print("\n".join([f"rgnb: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nrgnb: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
