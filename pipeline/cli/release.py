"""``risorius release``: create, list, show, diff, publish, export."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.context import Session, command

if TYPE_CHECKING:
    from rich.console import Console

    from warehouse.releases import Publication

app = typer.Typer(help="Manage immutable dataset versions.", no_args_is_help=True)

NameArgument = Annotated[str | None, typer.Argument(help="Name of the dataset. Default: faces.")]
VersionOption = Annotated[str, typer.Option("--version", help="v1, v2, … or latest.")]
DropForbiddenOption = Annotated[
    bool, typer.Option("--drop-forbidden", help="Leave forbidden rows out instead of refusing.")
]


@command(app, "create")
def create(
    session: Session,
    name: NameArgument = None,
    drop_flagged: Annotated[
        bool, typer.Option("--drop-flagged", help="Leave out faces that audits flagged.")
    ] = False,
    use: Annotated[
        str | None,
        typer.Option(
            "--use",
            help="commercial, research or public: refuse a release whose licences forbid this use.",
        ),
    ] = None,
    drop_forbidden: DropForbiddenOption = False,
    synthetic: Annotated[
        str | None,
        typer.Option(
            "--synthetic", help="config or train: where synthetic faces go. Default: config."
        ),
    ] = None,
) -> None:
    """Write a new version of the dataset, if anything changed."""
    from pipeline import runs

    settings = session.settings(
        release=name,
        drop_flagged=drop_flagged,
        release_use=use,
        drop_forbidden=drop_forbidden,
        release_synthetic=synthetic,
    )
    with session.watching():
        runs.materialize(settings.place, "audit")
        made = runs.materialize(settings.place, "release_create")["release"]
    session.answer(
        made,
        lambda console: console.print(
            f"{made['name']} {made['version']}: {made['rows']} faces at {made['path']}"
            if made["created"]
            else f"nothing changed since {made['name']} {made['version']}"
        ),
    )


@command(app, "list")
def list_(session: Session) -> None:
    """List every version of every dataset in this home."""
    from rich.table import Table

    from warehouse import releases

    found = releases.list_releases(session.home())

    def show(console: Console) -> None:
        if not found:
            console.print("no release yet; make one with risorius release create")
            return
        table = Table(box=None, pad_edge=False)
        for column in ("name", "version", "faces", "path"):
            table.add_column(column)
        for release in found:
            table.add_row(release.name, release.version, str(release.rows), str(release.path))
        console.print(table)

    session.answer([vars(release) for release in found], show)


@command(app, "show")
def show(
    session: Session,
    name: NameArgument = None,
    version: VersionOption = "latest",
    face: Annotated[
        str | None, typer.Option("--face", help="Trace one face back to its video and votes.")
    ] = None,
) -> None:
    """Show splits, counts per stage and reason, and integrity of a version."""
    from warehouse import releases

    settings = session.settings(release=name)
    if face is not None:
        from pipeline.lineage import trace

        traced = trace(settings, version=version, face=face)
        session.answer(traced, partial(_print_lineage, traced))
        return
    facts = releases.show(settings.place, name=settings.release, version=version)
    session.answer(facts, partial(_print_facts, facts))
    if facts["problems"]:
        sys.exit(1)


@command(app, "diff")
def diff(
    session: Session,
    old: Annotated[str, typer.Argument(help="The earlier version: v1, v2, …")],
    new: Annotated[str, typer.Argument(help="The later version.")] = "latest",
    name: Annotated[str | None, typer.Option("--name", help="Default: faces.")] = None,
) -> None:
    """Show what was added, removed and changed between two versions."""
    from warehouse import releases

    settings = session.settings(release=name)
    found = releases.diff(settings.place, name=settings.release, old=old, new=new)
    session.answer(found.document, lambda console: console.print(found.text(), markup=False))


@command(app, "publish")
def publish(
    session: Session,
    repo: Annotated[str, typer.Option("--repo", help="namespace/name on the Hub.")],
    name: NameArgument = None,
    version: VersionOption = "latest",
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", help="A Hub-compatible server. Default: the Hub.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the files without uploading.")
    ] = False,
) -> None:
    """Upload a version to the Hugging Face Hub and tag it.

    A new repository is private unless --public. A version whose licences or consents do not allow
    passing it on is not uploaded to a public repository. Run the command again to continue an
    interrupted upload. The token is the one of huggingface_hub.
    """
    from pipeline import progress
    from warehouse import releases
    from warehouse.storage import locks

    settings = session.settings(release=name)
    with locks.writing(settings.place.root, waiting=progress.waiting):
        done = releases.publish(
            settings.place,
            name=settings.release,
            version=version,
            repo=repo,
            endpoint=endpoint,
            public=public,
            dry_run=dry_run,
        )
    session.answer(vars(done) | {"url": done.url}, partial(_print_publication, done, dry_run))


@command(app, "export")
def export(
    session: Session,
    to: Annotated[str, typer.Option("--to", help="A folder that is new or empty.")],
    name: NameArgument = None,
    version: VersionOption = "latest",
    layout: Annotated[
        str, typer.Option("--layout", help="A published layout; docs/layouts.md lists them.")
    ] = "folder",
    dialect: Annotated[
        str | None, typer.Option("--dialect", help="A variant of the layout. Default: its first.")
    ] = None,
    label_set: Annotated[
        str | None,
        typer.Option("--label-set", help="SET or SET:ORDER: other classes than the layout's own."),
    ] = None,
    map_file: Annotated[
        str | None,
        typer.Option("--map", help="A file from expression to class (TOML, JSON or CSV)."),
    ] = None,
    size: Annotated[
        int | None, typer.Option("--size", help="Side of the pictures in pixels.")
    ] = None,
    folds: Annotated[
        str | None, typer.Option("--folds", help="A number of folds by subject, or loso.")
    ] = None,
    test_split: Annotated[
        str | None,
        typer.Option("--test-split", help="validation or test, where a layout has two sets."),
    ] = None,
    all_classes: Annotated[
        bool, typer.Option("--all-classes", help="Write empty folders for missing classes.")
    ] = False,
    min_votes: Annotated[
        int, typer.Option("--min-votes", help="Leave out faces with fewer votes.")
    ] = 0,
    need: Annotated[
        list[str] | None, typer.Option("--need", help="A column that must hold a value.")
    ] = None,
    difficulty: Annotated[
        str | None,
        typer.Option("--difficulty", help="Only easy, challenging or hard faces."),
    ] = None,
    landmarks: Annotated[
        str | None,
        typer.Option("--landmarks", help="package.module:function that finds 68 landmarks."),
    ] = None,
    fps: Annotated[
        float | None, typer.Option("--fps", help="curves: rows a second. Default: 60.")
    ] = None,
    crops: Annotated[
        bool, typer.Option("--crops", help="boxes: use aligned crops, not whole frames.")
    ] = False,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Add the version's synthetic faces to train.")
    ] = False,
    machine_text: Annotated[
        bool, typer.Option("--machine-text", help="Write machines' texts too, marked as such.")
    ] = False,
    use: Annotated[
        str | None,
        typer.Option("--use", help="commercial or research: refuse rows that forbid this use."),
    ] = None,
    drop_forbidden: DropForbiddenOption = False,
) -> None:
    """Export a version as the files that a published reader opens.

    Writes source.json (what went in, out and why) and licences.csv beside the data. Run the command
    again to continue an interrupted export.
    """
    from warehouse import releases

    settings = session.settings(release=name)
    frames = None
    if layout == "context-clips" or (layout == "boxes" and not crops):
        from pipeline.faces.whole_frames import reader_of

        frames = reader_of(settings)
    counts = releases.export(
        settings.place,
        name=settings.release,
        version=version,
        to=to,
        layout=layout,
        dialect=dialect,
        frames=frames,
        label_set=label_set,
        map_file=map_file,
        size=size,
        folds=folds,
        test_split=test_split,
        all_classes=all_classes,
        min_votes=min_votes,
        need=tuple(need or ()),
        difficulty=difficulty,
        landmarks=landmarks,
        fps=fps,
        synthetic=synthetic,
        machine_text=machine_text,
        use=use,
        drop_forbidden=drop_forbidden,
    )
    shown = ", ".join(f"{split} {n}" for split, n in counts.items())
    session.answer(
        {"to": to, "layout": layout, "splits": counts},
        lambda console: console.print(f"{to}: {shown}; delete it when a subject is erased"),
    )


def _print_publication(done: Publication, dry_run: bool, console: Console) -> None:
    total = sum(done.files.values()) / 1e6
    if dry_run:
        for path, size in done.files.items():
            console.print(f"{size:>12}  {path}", markup=False)
        console.print(
            f"would upload {len(done.files)} files, {total:.1f} MB, to {done.repo} at "
            f"{done.endpoint}, {done.visibility}, tag {done.tag}",
            markup=False,
        )
        return
    console.print(
        f"{done.tag} is at {done.url}" if done.new else f"{done.tag} existed already: {done.url}"
    )
    console.print(f"visible   {done.visibility}", markup=False)
    console.print(f'[dim]load_dataset("{done.repo}", revision="{done.tag}")[/]')


def _print_lineage(traced: dict[str, Any], console: Console) -> None:
    row, origin, made = traced["released"], traced["origin"], traced["made"]
    console.print(
        f"[bold]{row['face_id']}[/]  {row['split']}, {row['source']}, subject {row['subject_id']}"
    )
    shares = ", ".join(f"{share:.2f}" for share in row["soft_label"] or [])
    console.print(f"label     {row['expression'] or 'none is the largest'}  \\[{shares}]")
    if origin:
        console.print(f"video     {origin['uri']} at {origin['time_s']:.2f} s", soft_wrap=True)
        console.print(f"batch     {origin['batch']}, licence {row['licence']}")
    elif made:
        console.print(f"made by   {made['model']}, seed {made['seed']}, {made['action']}")
    else:
        console.print("video     no longer in the tables")
    console.print(f"raters    {', '.join(traced['machine_raters']) or 'none'} (machine)")
    for model in traced["models"]:
        console.print(f"model     {model['name']}: {model['role']}, {model['licence']}")
    for vote in traced["votes"]:
        answer = "skipped" if vote["was_cancelled"] else " + ".join(vote["expressions"] or [])
        console.print(f"vote      {vote['rater_id']} ({vote['rater_kind']}): {answer}")
    for audit in traced["audits"]:
        flag = "flagged" if audit["flag"] else "passed"
        console.print(f"audit     {audit['audit']}: {flag}, {audit['score']:.3f}")
    release = traced["release"]
    console.print(f"release   {release['name']} {release['version']}, {release['code_version']}")
    for asset, run in traced["runs"].items():
        console.print(f"run       {run}  {asset}")
    if not traced["runs"]:
        console.print("run       no record: made elsewhere, or removed by an erasure")


def _print_facts(facts: dict[str, Any], console: Console) -> None:
    from pipeline.ingest.batches import stage_table

    label = facts.get("label") or f"v{facts['version']}"
    console.print(f"[bold]{facts['name']} {label}[/]  {facts['rows']} faces")
    console.print(f"path      {facts['path']}")
    console.print(f"report    {facts['path']}/report.html")
    sizes = {name: size["rows"] for name, size in facts["splits"]["sizes"].items()}
    console.print(f"votes     {sizes.pop('votes', 0)}")
    console.print("splits    " + ", ".join(f"{split} {rows}" for split, rows in sizes.items()))
    console.print(f"raters    {', '.join(facts['facts'].get('machine_raters', []))}")
    bound = facts["summary"]["licence"]
    console.print(f"terms     {bound['name']}: {bound['note']}")
    if facts.get("replaces"):
        console.print(f"replaces  {facts['replaces']}, which an erased subject was in")
    if checksum := facts.get("checksums", {}).get("default"):
        console.print(
            f"checksum  {checksum} of the faces; equal checksums mean equal training data"
        )
    said = "yes" if not facts["problems"] else f"no: {'; '.join(facts['problems'])}"
    console.print(f"intact    {said}", markup=False)
    columns = ("stage", "verdict", "reason", "n")
    console.print(stage_table([tuple(row[name] for name in columns) for row in facts["counts"]]))
