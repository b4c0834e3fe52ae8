"""`smolt label`: compare pairs in the terminal; statistics, export and import of the labels."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from smolt.cli.options import Format, SkipBad, Split
from smolt.cli.outcomes import INTERRUPTED, Outcome, Stopped, deliver, delivered

LABELLING = "pairs"


class PairsOrCommand(TyperGroup):
    """`smolt label PAIRS ...` beside `smolt label stats`: what begins with no command's name is a labelling."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the labelling's name before its arguments."""
        named = args and (args[0] in self.commands or args[0] in ("--help", "-h"))
        return super().parse_args(ctx, args if named or not args else [LABELLING, *args])


app = typer.Typer(
    no_args_is_help=True,
    cls=PairsOrCommand,
    help="Compare answers in the terminal: smolt label PAIRS --store labels.sqlite --annotator NAME.",
)
Store = Annotated[Path, typer.Option("--store", help="The SQLite file that holds the labels.")]


@app.command(LABELLING, help="Label pairs of answers (the word `pairs` may be left out).")
def label(
    pairs: Annotated[str, typer.Argument(metavar="PAIRS", help="Preferences; which one is chosen is not shown.")],
    store: Store,
    annotator: Annotated[str, typer.Option(help="Who labels.")],
    gold: Annotated[str | None, typer.Option(help="Preferences whose answer is known, mixed in unmarked.")] = None,
    gold_rate: Annotated[float, typer.Option(help="Share of gold questions, 0 to 0.5.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Of the order and the sides.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first so many pairs.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Ask the pairs you skipped again.")] = False,
    record_format: Format = None,
    split: Split = None,
    skip_bad: SkipBad = False,
) -> None:
    """Show pair after pair until the annotator quits."""

    def work() -> Outcome:
        from smolt.cli.progress import moved_on
        from smolt.data import Source, load
        from smolt.preferences.people import LabelStore, Session, make_queue, pair_of
        from smolt.preferences.people.labeller import label_in_terminal, need_terminal

        need_terminal()
        name = named(annotator)
        source = Source(pairs, split=split, format=record_format, limit=limit, skip_bad=skip_bad)
        wanted = [pair_of(record) for record in load(source, "preferences").records]
        known = [pair_of(record, gold=True) for record in load(Source(gold), "preferences").records] if gold else []
        queue, same = make_queue(wanted, known, gold_rate, seed, name)
        with LabelStore(store) as opened:
            if again:
                opened.forget_skips(name)
            session = Session(opened, name, queue, seed)
            moved_on()
            try:
                label_in_terminal(session)
            except KeyboardInterrupt:
                raise Stopped(INTERRUPTED, f"interrupted; {progress(session, same)}") from None
        return Outcome({}, progress(session, same))

    deliver(work, as_json=False)


@app.command(
    "stats",
    help="Each annotator's habits and gold accuracy, agreement (Cohen's kappa), and ratings of the arena's votes.",
)
@delivered
def stats(store: Store) -> Outcome:
    """What the labels are worth."""
    from smolt.preferences.people import LabelStore
    from smolt.preferences.people.annotators import figures_of, label_panel
    from smolt.preferences.people.arena import ratings_of, vote_panel
    from smolt.report.terminal import panel_facts, panel_words

    with LabelStore(store, create=False) as opened:
        figures, votes = figures_of(opened), opened.votes()
    panel = label_panel(figures)
    facts, words = panel_facts(figures, panel), panel_words(panel)
    if votes:
        rated = vote_panel(votes)
        facts["arena"] = panel_facts(ratings_of(votes), rated)
        words += f"\n\n{panel_words(rated)}"
    return Outcome(facts, words)


@app.command("export", help="Write the labels as preferences for `smolt reward` and `smolt dpo`, or one by one.")
@delivered
def export(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines to write.")],
    store: Store,
    form: Annotated[
        str, typer.Option("--format", help="preferences, dpo, hh, or labels (every label).")
    ] = "preferences",
    ties: Annotated[str, typer.Option(help="half (weight 0.5) or drop; no majority is a tie.")] = "half",
    both_bad: Annotated[str, typer.Option(help="The same for pairs of two bad answers.")] = "drop",
    weights: Annotated[str, typer.Option(help="majority, or share: the share of the labels as weight.")] = "majority",
    least: Annotated[int, typer.Option(min=1, help="Only pairs with so many labels.")] = 1,
    replace: Annotated[bool, typer.Option("--replace", help="Write over FILE if it is there.")] = False,
) -> Outcome:
    """Labels to preferences."""
    from smolt.errors import UserError
    from smolt.preferences.people import LabelStore
    from smolt.preferences.people.exchange import export_labels, exporting

    if out.exists() and not replace:
        raise UserError(f"{out}: is there already; choose another name, or write over it with --replace")
    how = exporting(form=form, ties=ties, both_bad=both_bad, weights=weights, least=least)
    with LabelStore(store, create=False) as opened:
        out.parent.mkdir(parents=True, exist_ok=True)
        counts = export_labels(opened, out, how)
    rest = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if name != "written")
    return Outcome({**counts, "out": str(out)}, f"{counts['written']:,} rows in {out}{f' ({rest})' * bool(rest)}")


@app.command("import", help="Take labels in from JSON lines of smolt or another tool.")
@delivered
def import_(
    source: Annotated[str, typer.Argument(metavar="FILE", help="Rows with two answers and a choice, or preferences.")],
    store: Store,
    annotator: Annotated[str | None, typer.Option(help="Whose labels, where the rows do not say.")] = None,
    record_format: Format = None,
) -> Outcome:
    """Labels from elsewhere."""
    from smolt.preferences.people import LabelStore
    from smolt.preferences.people.importing import import_labels, read_labels

    found = read_labels(source, annotator, record_format)
    with LabelStore(store) as opened:
        counts = import_labels(opened, found)
    facts = {"rows": counts.rows, "new": counts.new, "annotators": counts.annotators, "store": str(store)}
    return Outcome(facts, f"{counts.new:,} new labels of {counts.rows:,} rows; the store is {store}")


def named(annotator: str) -> str:
    """The annotator's name without surrounding white space.

    Raises:
        UserError: it is empty.
    """
    from smolt.errors import UserError

    if not annotator.strip():
        raise UserError("annotator: is empty; say who labels")
    return annotator.strip()


def progress(session: Any, same: int) -> str:
    """What was done, and what was left out."""
    labelled = session.done - session.skipped
    words = f"labels this time: {session.labelled:,}; labelled: {labelled:,} of {len(session.queue):,} pairs"
    words += f", skipped: {session.skipped:,} (--again asks them again)" if session.skipped else ""
    equal = f"; {same} pairs with two equal answers were left out" if same else ""
    return f"{words}; the same command continues{equal}" if session.current is not None else f"{words}{equal}"
