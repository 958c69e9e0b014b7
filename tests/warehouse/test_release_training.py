"""Data loading for training: every face once, from any worker."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest
import torch

from warehouse import releases
from warehouse.errors import ReleaseError
from warehouse.releases.dataloader import sample_classes
from warehouse.storage import media
from warehouse.storage.home import Home
from warehouse.vocabulary import EXPRESSIONS

Inputs = Callable[..., dict[str, Any]]


@pytest.fixture
def many(home: Home, inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A release whose train split has several files of several row groups."""
    monkeypatch.setattr("warehouse.releases.shards._GROUP_ROWS", 7)
    given = inputs(home, {"ann": 60, "bob": 6, "cid": 5})
    releases.build(home, **given, shard_bytes=100_000)
    return given


def batches(home: Home, *, workers: int = 0, epoch: int = 0, **options: Any) -> list[Any]:
    faces = releases.torch_dataset("faces", home=home, **options)
    faces.set_epoch(epoch)
    return list(faces.loader(workers=workers))


def whole(found: list[Any], name: str) -> np.ndarray:
    return torch.cat([batch[name] for batch in found]).numpy()


def test_loader__every_face_once(home: Home, many: dict[str, Any]) -> None:
    found = batches(home, batch_size=16)
    assert [len(batch["image"]) for batch in found] == [16, 16, 16, 12]
    assert found[0]["image"].dtype == torch.uint8
    assert found[0]["image"].shape == (16, 3, 48, 48)
    rows = many["rows"].filter(pl.col("subject_id") == "ann")
    known = {media.load(home, row["crop"]).tobytes(): row for row in rows.iter_rows(named=True)}
    images = whole(found, "image").transpose(0, 2, 3, 1)
    seen = set()
    for image, label, weight, au in zip(
        images, *(whole(found, name) for name in ("label", "weight", "au")), strict=True
    ):
        row = known[np.ascontiguousarray(image).tobytes()]
        seen.add(row["face_id"])
        assert label == pytest.approx(row["soft_label"])
        assert weight == pytest.approx(row["label_quality"])
        assert au == pytest.approx(row["au"])
    assert len(seen) == 60


@pytest.mark.parametrize("workers", [0, 2])
def test_loader__epochs_and_seed(home: Home, many: dict[str, Any], workers: int) -> None:
    options = {"batch_size": 8, "workers": workers}
    first = whole(batches(home, **options), "label")
    again = whole(batches(home, **options), "label")
    second = whole(batches(home, **options, epoch=1), "label")
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    assert np.array_equal(np.sort(first, axis=0), np.sort(second, axis=0))
    in_order = whole(batches(home, batch_size=8, shuffle=False), "weight")
    rows = many["rows"].filter(pl.col("subject_id") == "ann").sort("face_id")
    assert in_order == pytest.approx(rows["label_quality"].to_numpy(), abs=1e-6)


def test_loader__persistent_workers(home: Home, many: dict[str, Any]) -> None:
    faces = releases.torch_dataset("faces", home=home, batch_size=8)
    loader, epochs = faces.loader(workers=1), []
    for epoch in (0, 1, 0):
        faces.set_epoch(epoch)
        epochs.append(whole(list(loader), "label"))
    assert np.array_equal(epochs[0], epochs[2])
    assert not np.array_equal(epochs[0], epochs[1])


def test_loader__options(home: Home, many: dict[str, Any]) -> None:
    (first, *_) = batches(home, size=24, gray=True, shuffle=False, batch_size=4)
    assert first["image"].shape == (4, 1, 24, 24)
    row = many["rows"].filter(pl.col("subject_id") == "ann").sort("face_id").to_dicts()[0]
    gray = cv2.imread(str(media.path_of(home, row["crop"])), cv2.IMREAD_GRAYSCALE)
    small = cv2.resize(gray, (24, 24), interpolation=cv2.INTER_AREA)
    assert np.array_equal(first["image"][0, 0].numpy(), small)
    kept = many["rows"].filter(
        (pl.col("subject_id") == "ann") & ~pl.col("is_label_issue") & ~pl.col("is_open_set")
    )
    found = batches(home, drop_flagged=True, batch_size=8)
    assert sum(len(batch["image"]) for batch in found) == kept.height
    last = batches(home, drop_last=True, batch_size=16)
    assert [len(batch["image"]) for batch in last] == [16] * 3
    test = batches(home, split="test")
    assert sum(len(batch["image"]) for batch in test) in (5, 6)


def test_hard_labels__ties_ignored(home: Home, many: dict[str, Any]) -> None:
    soft = whole(batches(home), "label")
    hard = whole(batches(home, labels="hard"), "label")
    top = np.sort(soft, axis=1)
    tied = top[:, -1] == top[:, -2]
    assert np.array_equal(hard, np.where(tied, -100, soft.argmax(axis=1)))
    assert 0 < tied.sum() < len(tied)


def test_sampled_labels__follow_votes(home: Home, many: dict[str, Any]) -> None:
    soft = whole(batches(home, shuffle=False), "label")
    drawn = np.stack(
        [
            whole(batches(home, shuffle=False, labels="sampled", epoch=epoch), "label")
            for epoch in range(60)
        ]
    )
    assert (np.take_along_axis(soft, drawn.T, axis=1) > 0).all()
    disputed = soft.max(axis=1) < 0.5
    assert all(len(set(column)) > 1 for column in drawn.T[disputed])


def test_sampled_labels__shares() -> None:
    soft = np.array([[0.2, 0.5, 0.3, 0, 0, 0, 0, 0], [0] * 7 + [1.0], [np.nan] * 8])
    rng = np.random.default_rng(0)
    drawn = np.stack([sample_classes(soft, rng) for _ in range(4000)])
    shares = np.bincount(drawn[:, 0], minlength=8) / 4000
    # Three standard errors of a share of one half in 4,000 draws.
    assert shares == pytest.approx(soft[0], abs=0.024)
    assert set(drawn[:, 1]) == {7}
    assert set(drawn[:, 2]) == {-100}


def test_labels__outside_classes(home: Home, inputs: Inputs) -> None:
    given = inputs(home, {"ann": 3})
    bare = pl.col("face_id") == "ann-0000-1"
    given["rows"] = given["rows"].with_columns(
        pl.when(~bare).then("soft_label").alias("soft_label"),
        pl.when(~bare).then("au").alias("au"),
        label_quality=pl.lit(None, dtype=pl.Float64),
    )
    releases.build(home, **given)
    (batch,) = batches(home, shuffle=False)
    assert batch["label"].isnan().all(dim=1).tolist() == [False, True, False]
    assert batch["au"].isnan().all(dim=1).tolist() == [False, True, False]
    assert batch["weight"].tolist() == [1.0] * 3


def test_training__soft_labels(home: Home, inputs: Inputs) -> None:
    given = inputs(home, {"ann": 60})
    light = [float(media.load(home, key).mean()) for key in given["rows"]["crop"]]
    # The label depends on the brightness of the face, so that it can be learned.
    share = np.clip((np.array(light) - np.mean(light)) / (3 * np.std(light)) + 0.5, 0, 1)
    soft = np.zeros((60, 8))
    soft[:, 1], soft[:, 3] = share, 1 - share
    given["rows"] = given["rows"].with_columns(soft_label=pl.Series(soft.tolist()))
    releases.build(home, **given)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(24 * 24, len(EXPRESSIONS)))
    faces = releases.torch_dataset("faces", home=home, batch_size=16, size=24, gray=True)
    losses, loader = [], faces.loader()
    for epoch in range(10):
        faces.set_epoch(epoch)
        total = 0.0
        for batch in loader:
            answer = network(batch["image"].float() / 255 - 0.5).log_softmax(dim=1)
            loss = (-(batch["label"] * answer).sum(dim=1) * batch["weight"]).mean()
            # Plain gradient descent: the first use of torch.optim imports for seconds.
            weights = list(network.parameters())
            for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight.data -= 0.02 * slope
            total += loss.item()
        losses.append(total)
    assert losses[-1] < 0.6 * losses[0]


def test_training__snippet_of_card(home: Home, inputs: Inputs) -> None:
    given = inputs(home, {"ann": 5})
    bare = pl.col("face_id") == "ann-0000-1"
    given["rows"] = given["rows"].with_columns(
        pl.when(~bare).then(name).alias(name) for name in ("soft_label", "label_quality")
    )
    made = releases.build(home, **given)
    card = (made.path / "README.md").read_text()
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(len(EXPRESSIONS)))
    uses = card.split("## Uses")[1]
    for number, text in enumerate(re.findall(r"```python\n(.*?)```", uses, re.DOTALL)):
        for name in ("<this folder or repository>", "<this folder>"):
            text = text.replace(name, str(made.path))
        # Each reads pictures of its own size.
        lines: dict[str, Any] = {"network": copy.deepcopy(network)}
        exec(text, lines)
        assert torch.isfinite(lines["loss"]).all(), number
    assert number == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"split": "validation"}, "only train"),
        ({"labels": "firm"}, "not one of soft, hard, sampled"),
        ({"version": "v4"}, "only v1"),
    ],
)
def test_open__missing(home: Home, inputs: Inputs, options: dict[str, Any], says: str) -> None:
    releases.build(home, **inputs(home, {"ann": 2}))
    with pytest.raises(ReleaseError, match=says):
        releases.torch_dataset("faces", **{"home": home} | options)


def test_loader__two_image_sizes(
    home: Home, inputs: Inputs, draw: Callable[..., np.ndarray]
) -> None:
    given = inputs(home, {"ann": 2})
    large = media.store(home, "crops", draw(1, 64))
    first = pl.col("face_id") == "ann-0000-0"
    crop = pl.when(first).then(pl.lit(large)).otherwise("crop")
    given["rows"] = given["rows"].with_columns(crop=crop)
    releases.build(home, **given)
    with pytest.raises(ReleaseError, match="not of one size"):
        batches(home)
    assert batches(home, size=48)[0]["image"].shape == (2, 3, 48, 48)


def test_load__with_votes(home: Home, inputs: Inputs) -> None:
    given = inputs(home, {"ann": 3, "bob": 1})
    releases.build(home, **given)
    asked = given["votes"].group_by("face_id").agg("rater_id", "expressions").to_dicts()
    wanted = {row["face_id"]: dict(zip(row["rater_id"], row["expressions"], strict=True))
              for row in asked}  # fmt: skip
    for part in releases.load("faces", home=home, votes=True).values():
        for row in part:
            said = {vote["rater_id"]: vote["expressions"] for vote in row["votes"]}
            assert said == wanted[row["face_id"]]
