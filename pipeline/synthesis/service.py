"""Faces to order, into a folder: pictures, a sheet, and a record of what was asked and measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.synthesis.generator import BATCH, Maker, Order, faceless, read, readers, slug
from pipeline.synthesis.options import Wish
from warehouse.errors import MediaError, SettingsError
from warehouse.storage import atomic
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

RECORD = "faces.json"
_MOST_COLUMNS = 8


@dataclass(frozen=True)
class Delivery:
    """What was drawn and where it lies."""

    facts: dict[str, Any]

    def show(self, console: Console) -> None:
        facts = self.facts
        console.print(f"faces     {len(facts['faces'])}, {facts['drawn']} of them drawn now")
        console.print(f"sheet     {facts['sheet']}")
        console.print(f"record    {facts['record']}   (asked and measured, face by face)")
        console.print(f"raters    {', '.join(facts['raters'])}")
        for unit in facts["untaught"]:
            console.print(f"[yellow]note[/]      AU{unit} was never learned; it was left open")
        for unit, row in facts["measured"]["au"].items():
            seen = "no rater knows it" if row["seen"] is None else f"seen {row['seen']:.2f}"
            console.print(f"{unit:<9} asked {row['asked']:.2f}, {seen} on average")
        first = sorted(facts["measured"]["expression"].items(), key=lambda pair: -pair[1])[:3]
        console.print("seen as   " + ", ".join(f"{name} {share:.2f}" for name, share in first))
        console.print("labels    " + ", ".join(f"{n} {a}" for a, n in facts["actions"].items()))


def deliver(
    wish: Wish,
    maker: Maker,
    out: Path,
    *,
    rater: str = "default",
    say: Callable[[str, str, int, int], None] | None = None,
) -> Delivery:
    """Draw what is not in ``out`` yet, measure it, and write sheet and record.

    The record is replaced after every batch: a run that is killed and started again draws what
    was missing and nothing else.

    Raises:
        SettingsError: ``out`` cannot be written, or its record cannot be read.
    """
    orders = wish.orders
    raters = readers(rater, guide_id=maker.guide_id)
    names = [one.rater_id for one in raters]
    record, drawn = _known(out, names), 0
    ids = [maker.face_id(order) for order in orders]
    owed = [pair for pair in zip(ids, orders, strict=True) if pair[0] not in record]
    try:
        for start in range(0, len(owed), BATCH):
            part = owed[start : start + BATCH]
            base = (len(orders) - len(owed) + start) * maker.steps

            def steps(done: int, part: Any = part, base: int = base) -> None:
                if say:
                    item = f"{len(part)} faces"
                    say("drawing", item, base + done * len(part), len(orders) * maker.steps)

            record |= _drawn(part, maker, raters, out, steps)
            _write_record(out, record, maker)
            drawn += len(part)
        place = out / f"sheet-{slug(wish.title)[:80]}.png"
        _write_sheet(place, wish, [record[one] for one in ids], out)
    except OSError as error:
        raise SettingsError(
            f"room and the right to write {out}",
            got=error.strerror or str(error),
            hint="free space or name another folder with --out; what is there is kept",
        ) from error
    faces = [record[one] for one in ids]
    taught = maker.taught
    asked = {unit for order in orders for unit in order.au}
    return Delivery(
        {
            "model": maker.model,
            "out": str(out),
            "sheet": str(place),
            "record": str(out / RECORD),
            "drawn": drawn,
            "raters": names,
            "untaught": sorted(asked - set(taught)),
            "measured": _summary(faces),
            "actions": {
                action: sum(face["action"] == action for face in faces)
                for action in ("kept", "relabelled", "dropped")
            },
            "faces": faces,
        }
    )


def _drawn(
    part: list[tuple[str, Order]],
    maker: Maker,
    raters: list[Any],
    out: Path,
    steps: Callable[[int], None],
) -> dict[str, dict[str, Any]]:
    """Entries of the record for faces drawn now; their pictures are written."""
    import numpy as np

    from synthesis import action_units, image_grid
    from synthesis.pseudo_labels import rectify

    orders = [order for _, order in part]
    crops = maker.draw(orders, say=steps)
    eye = np.eye(len(EXPRESSIONS))
    nothing = np.full(len(EXPRESSIONS), np.nan)
    verdict = rectify(
        np.array(
            [eye[EXPRESSIONS.index(o.expression)] if o.expression else nothing for o in orders]
        ),
        np.stack([action_units.vector(order.au) for order in orders]),
        read(crops, raters),
        faceless=faceless(crops),
    )
    found = {}
    for (face, order), crop, row in zip(part, crops, verdict.to_dicts(), strict=True):
        image_grid.write(out / "images" / f"{face}.png", crop)
        found[face] = _entry(face, order, row, maker, [rater.rater_id for rater in raters])
    return found


def _entry(
    face: str, order: Order, row: dict[str, Any], maker: Maker, raters: list[str]
) -> dict[str, Any]:
    au = {
        unit.code: round(value, 4)
        for unit, value in zip(ACTION_UNITS, row["measured_au"], strict=True)
        if value == value  # NaN: no rater knows the unit
    }
    label = {
        name: round(share, 4) for name, share in zip(EXPRESSIONS, row["soft_label"], strict=True)
    }
    return {
        "face_id": face,
        "file": f"images/{face}.png",
        "asked": {
            "au": {f"AU{unit}": value for unit, value in order.au.items()},
            "expression": order.expression,
            "seed": order.seed,
        },
        "model": maker.model,
        "measured": {"au": au},
        "soft_label": label,
        "action": row["action"],
        "reason": row["reason"],
        "raters": raters,
    }


def _known(out: Path, raters: list[str]) -> dict[str, dict[str, Any]]:
    """Entries of an earlier run whose picture is there and that the same raters have read."""
    path = out / RECORD
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text())["faces"]
        return {
            entry["face_id"]: entry
            for entry in entries
            if entry["raters"] == raters and (out / entry["file"]).is_file()
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"a readable {path}",
            got=type(error).__name__,
            hint="move it away or name another --out",
        ) from error


def _write_record(out: Path, record: dict[str, dict[str, Any]], maker: Maker) -> None:
    entries = [record[face] for face in sorted(record)]
    atomic.write_text(out / RECORD, json.dumps({"faces": entries}, indent=1) + "\n")


def _write_sheet(place: Path, wish: Wish, faces: list[dict[str, Any]], out: Path) -> None:
    import numpy as np

    from synthesis import image_grid
    from synthesis.evaluation import LEVELS

    images = np.stack([_pixels(out / face["file"]) for face in faces])
    if wish.sweep is not None:
        code = f"AU{wish.sweep}"
        seen = [face["measured"]["au"].get(code) for face in faces]
        captions = ["" if value is None else f"seen {value:.2f}" for value in seen]
        heads = [f"{code}={level:g}" for level in LEVELS]
        rows = [f"seed {wish.seed + at}" for at in range(wish.n)]
        picture = image_grid.faces(
            images, columns=len(LEVELS), captions=captions, heads=heads, rows=rows
        )
    else:
        captions = [_first(face) for face in faces]
        picture = image_grid.faces(
            images, columns=min(_MOST_COLUMNS, len(faces)), captions=captions
        )
    image_grid.write(place, picture)


def _pixels(path: Path) -> np.ndarray:
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise MediaError(
            f"a picture at {path}", got="damaged bytes", hint="delete it and run the command again"
        )
    return image[..., ::-1]


def _first(face: dict[str, Any]) -> str:
    name, share = max(face["soft_label"].items(), key=lambda pair: pair[1])
    return f"{name[:9]} {share:.2f}"


def _summary(faces: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the faces: per asked unit asked and seen, and the label."""
    codes = sorted(
        {code for face in faces for code in face["asked"]["au"]}, key=lambda c: int(c[2:])
    )
    au = {}
    for code in codes:
        rows = [face for face in faces if code in face["asked"]["au"]]
        seen = [face["measured"]["au"][code] for face in rows if code in face["measured"]["au"]]
        au[code] = {
            "asked": sum(face["asked"]["au"][code] for face in rows) / len(rows),
            "seen": sum(seen) / len(seen) if seen else None,
        }
    label = {
        name: sum(face["soft_label"][name] for face in faces) / len(faces) for name in EXPRESSIONS
    }
    return {"au": au, "expression": label}
