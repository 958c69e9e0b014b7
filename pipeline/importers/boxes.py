"""Read pictures with boxes and classes: COCO, YOLO, VOC, FER-YOLO."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.importers import text
from pipeline.importers.lists import listed
from pipeline.importers.samples import (
    IMAGES,
    Dataset,
    Folder,
    Format,
    Sample,
    foreign,
    split_of,
)

Box = tuple[float, float, float, float]


def _boxed(
    dataset: Dataset, name: str, label: str, split: str | None, box: Box, *roots: Path
) -> Sample:
    found = listed(dataset, name, label, split, *roots)
    return Sample(**{**vars(found), "box": box})


def _split_in(stem: str) -> str | None:
    return next((split for part in stem.split("_") if (split := split_of(part))), None)


# COCO


def _coco_files(folder: Folder) -> list[Path]:
    return [path for path in folder.ending(".json") if path.stem.startswith("instances_")]


def _identify_coco(folder: Folder) -> str | None:
    found = _coco_files(folder)
    return f"{found[0].name} is a COCO file" if found else None


def _read_coco(dataset: Dataset) -> Iterator[Sample]:
    roots = [one for name in ("JPEGImages", "images") if (one := dataset.folder.folder(name))]
    for path in _coco_files(dataset.folder):
        split = _split_in(path.stem.removeprefix("instances_"))
        try:
            found: Any = json.loads(path.read_text(encoding="utf-8"))
            words = {one["id"]: str(one["name"]) for one in found["categories"]}
            pictures = {one["id"]: str(one["file_name"]) for one in found["images"]}
            faces = [
                (pictures[one["image_id"]], words[one["category_id"]], _four(one["bbox"]))
                for one in found["annotations"]
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise foreign(path, got=f"{type(error).__name__}: {error}", what="a COCO file") \
                from None  # fmt: skip
        named = dataset.folder.folder(path.stem.removeprefix("instances_"))
        for name, word, box in faces:
            places = [*roots, *([named] if named else [])]
            yield _boxed(dataset, name, word, split, box, *places)


def _four(numbers: Any) -> Box:
    x, y, w, h = (float(value) for value in numbers)
    return x, y, w, h


# YOLO


def _yolo_labels(folder: Folder) -> list[Path]:
    return [path for path in folder.ending(".txt") if "labels" in
            path.relative_to(folder.path).parts[:-1]]  # fmt: skip


def _identify_yolo(folder: Folder) -> str | None:
    found = folder.find("data.yaml")
    return "data.yaml stands beside labels/" if found and _yolo_labels(folder) else None


def _read_yolo(dataset: Dataset) -> Iterator[Sample]:
    import yaml

    tables = dataset.folder.find("data.yaml")
    if not tables:
        raise foreign(dataset.path, got="no data.yaml", what="a data set of YOLO")
    table = tables[0]
    try:
        names = yaml.safe_load(table.read_text(encoding="utf-8"))["names"]
        words = dict(names.items() if isinstance(names, dict) else enumerate(names))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise foreign(table, got=str(error), what="a data.yaml of YOLO") from None
    for path in _yolo_labels(dataset.folder):
        parts = list(path.relative_to(dataset.path).with_suffix("").parts)
        place = len(parts) - 1 - parts[::-1].index("labels")
        parts[place] = "images"
        stem = "/".join(parts)
        picture = next(
            (one for suffix in IMAGES if (one := dataset.folder.locate(stem + suffix))), None
        )
        if picture is None:
            dataset.leave("label files without a picture", dataset.name_of(path))
            continue
        size = size_of(picture)
        if size is None:
            dataset.leave("pictures that cannot be read", dataset.name_of(picture))
            continue
        width, height = size
        for line, content in text.lines(path):
            cells = content.split()
            if len(cells) != 5:
                raise foreign(path, got=f"line {line}: {content[:80]!r}", what="a YOLO label file")
            number = text.integer(cells[0], path, line, "class")
            x, y, w, h = (text.real(cell, path, line, "box") for cell in cells[1:])
            box = ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height)
            word = str(words.get(number, number))
            split = next((s for part in parts if (s := split_of(part))), None)
            yield _boxed(dataset, dataset.name_of(picture), word, split, box)


def size_of(path: Path) -> tuple[int, int] | None:
    """Return width and height of a picture, None if it cannot be read."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, UnidentifiedImageError, ValueError):
        return None


# VOC


def _voc_files(folder: Folder) -> list[Path]:
    return [path for path in folder.ending(".xml") if path.parent.name == "Annotations"]


def _identify_voc(folder: Folder) -> str | None:
    found = _voc_files(folder)
    return f"Annotations/{found[0].name} is a VOC file" if found else None


def _read_voc(dataset: Dataset) -> Iterator[Sample]:
    from xml.etree import ElementTree

    splits: dict[str, str] = {}
    for path in dataset.folder.ending(".txt"):
        if path.parent.name == "Main" and (split := split_of(path.stem)):
            splits |= {name.split()[0]: split for _, name in text.lines(path)}
    roots = [root for name in ("JPEGImages", "images") if (root := dataset.folder.folder(name))]
    for path in _voc_files(dataset.folder):
        try:
            if b"<!ENTITY" in (data := path.read_bytes()):
                raise ValueError("entities, which no VOC file needs")
            tree = ElementTree.fromstring(data)
            picture = tree.findtext("filename") or ""
            for one in tree.iter("object"):
                x, y, right, bottom = (
                    float(one.findtext(f"bndbox/{name}") or "")
                    for name in ("xmin", "ymin", "xmax", "ymax")
                )
                # Counted from 1, the last pixel included.
                box = (x - 1, y - 1, right - x + 1, bottom - y + 1)
                split = splits.get(path.stem)
                yield _boxed(dataset, picture, one.findtext("name") or "", split, box, *roots)
        except (OSError, ValueError, ElementTree.ParseError) as error:
            raise foreign(path, got=str(error), what="a VOC annotation") from None


# FER-YOLO


def _box_lists(folder: Folder) -> list[Path]:
    return [path for path in folder.ending(".txt") if path.name.startswith("2007_")]


def _identify_fer_yolo(folder: Folder) -> str | None:
    found = _box_lists(folder)
    return f"{found[0].name} has a path and boxes per line" if found else None


def _read_fer_yolo(dataset: Dataset) -> Iterator[Sample]:
    names = dataset.folder.find("classes.txt")
    words = [content for _, content in text.lines(names[0])] if names else []
    for path in _box_lists(dataset.folder):
        for line, content in text.lines(path):
            name, *boxes = content.split()
            for one in boxes:
                cells = [text.integer(cell, path, line, "box") for cell in one.split(",")]
                if len(cells) != 5:
                    raise foreign(path, got=f"line {line}: {one!r}", what="a list of boxes")
                x, y, right, bottom, number = cells
                word = words[number] if number < len(words) else str(number)
                box = (float(x), float(y), float(right - x), float(bottom - y))
                yield _boxed(dataset, name, word, _split_in(path.stem), box)


COCO = Format(
    "coco", "COCO instances: a box and a class per face", _identify_coco, _read_coco,
    labels="basic7:alpha7", layouts=("boxes",),
)  # fmt: skip
YOLO = Format(
    "yolo", "YOLO labels: class and relative box per face", _identify_yolo, _read_yolo,
    labels="basic7:alpha7", layouts=("boxes",),
)  # fmt: skip
VOC = Format(
    "voc", "VOC annotations: a box and a class per face", _identify_voc, _read_voc,
    labels="basic7:alpha7", layouts=("boxes",),
)  # fmt: skip
FER_YOLO = Format(
    "fer-yolo", "lists of paths with boxes and class numbers", _identify_fer_yolo, _read_fer_yolo,
    labels="basic7:alpha7", layouts=("boxes",),
)  # fmt: skip
