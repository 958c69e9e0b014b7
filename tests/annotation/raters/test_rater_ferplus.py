from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from annotation.raters.training import augment, ferplus
from annotation.raters.training.ferplus import Faces
from tests.annotation.raters import drawn_ferplus
from warehouse.errors import ModelError, TableError

FINDER = f"{drawn_ferplus.__name__}:find_drawn"


def test_prepare__faces_have_arcface_geometry(drawn: tuple[Faces, Faces]) -> None:
    faces = drawn[0]
    assert len(faces) == 120
    assert faces.found.all()
    assert faces.gray.shape == (120, 112, 112)
    # The drawn eyes are the darkest spots of the upper half.
    upper = faces.gray[0, :70].astype(float)
    for x in (38, 73):
        assert upper[48:55, x - 3 : x + 4].mean() < 80
    assert upper[10:30, 50:60].mean() > 120


def test_align__same_crop_as_insightface(drawn: tuple[Faces, Faces]) -> None:
    import cv2
    from insightface.utils.face_align import norm_crop

    image = drawn_ferplus.drawn_face(0.5, np.random.default_rng(3))
    large = cv2.resize(image, (ferplus.ENLARGED, ferplus.ENLARGED), interpolation=cv2.INTER_CUBIC)
    transform, found = ferplus.align(image, drawn_ferplus.find_drawn)
    points = drawn_ferplus.find_drawn(np.repeat(large[:, :, None], 3, axis=2))[0].keypoints
    theirs = norm_crop(large, points.astype(np.float32), image_size=112)
    inside = augment._inside(transform)
    assert found
    assert inside.mean() > 0.5
    difference = np.abs(ferplus.warp(image, transform).astype(int) - theirs)[inside]
    assert difference.mean() < 1


def test_align__no_face_uses_the_usual_points() -> None:
    transform, found = ferplus.align(np.zeros((48, 48), np.uint8), drawn_ferplus.find_drawn)
    assert not found
    centre_of_eyes = transform @ np.array([23.6 * 4, 19.0 * 4, 1])
    assert centre_of_eyes == pytest.approx([55.9, 51.6], abs=2)


def test_prepare__missing_shard_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = drawn_ferplus.write_ferplus(tmp_path, "train", 12, seed=5)
    monkeypatch.setattr(ferplus, "_SHARD", 5)
    first = ferplus.prepare(path, cache=tmp_path / "cache", find=FINDER, workers=0)
    shards = sorted((tmp_path / "cache").rglob("*.npz"))
    assert len(shards) == 3
    shards[1].unlink()
    made: list[int] = []
    again = ferplus.prepare(
        path,
        cache=tmp_path / "cache",
        find=FINDER,
        workers=0,
        progress=lambda done, of: made.append(of),
    )
    assert made == [1]
    assert np.array_equal(first.gray, again.gray)


def test_first_of_each__identical_pictures(drawn: tuple[Faces, Faces]) -> None:
    rows = np.concatenate([np.arange(len(drawn[0])), [0, 1, 2]])
    first = ferplus.first_of_each(drawn[0].take(rows))
    assert first.sum() == len(drawn[0])
    assert not first[-3:].any()


@pytest.mark.parametrize("find", ["no_such_module:find", "json:no_such_function"])
def test_prepare__missing_finder(tmp_path: Path, find: str) -> None:
    path = drawn_ferplus.write_ferplus(tmp_path, "train", 2, seed=0)
    with pytest.raises(ModelError, match=r"(?i)correct --find"):
        ferplus.prepare(path, cache=tmp_path, find=find)


def test_prepare__file_without_votes(tmp_path: Path) -> None:
    pl.DataFrame({"name": ["a"], "image": [b""]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(TableError, match="columns name, image"):
        ferplus.prepare(tmp_path / "x.parquet", cache=tmp_path, find=FINDER)


def tensors(faces: Faces, n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(faces.gray[:n]), torch.from_numpy(faces.transform[:n])


def test_augment_batch__whole_gray_levels(drawn: tuple[Faces, Faces]) -> None:
    generator = torch.Generator().manual_seed(1)
    faces = augment.batch(*tensors(drawn[0]), side=64, generator=generator)
    assert faces.shape == (40, 1, 64, 64)
    assert faces.min() >= 0
    assert faces.max() <= 255
    assert torch.equal(faces, faces.round())


@pytest.mark.parametrize("change", [change for _, change in augment.CHANGES])
def test_augment__each_change_keeps_the_picture(change, drawn: tuple[Faces, Faces]) -> None:  # type: ignore[no-untyped-def]
    faces = tensors(drawn[0])[0][:, None].float()
    random = augment.Random(torch.Generator().manual_seed(0), len(faces))
    changed = change(faces, random).clamp(0, 255)
    assert changed.shape == faces.shape
    assert torch.isfinite(changed).all()
    apart = (changed - faces).abs().mean(dim=(1, 2, 3))
    # Every face is changed, none beyond recognition.
    assert (apart > 0.01).all()
    together = [np.corrcoef(a.ravel(), b.ravel())[0, 1]
                for a, b in zip(faces.numpy(), changed.numpy(), strict=True)]  # fmt: skip
    assert np.median(together) > 0.5


def test_augment__compression_of_high_quality_changes_little() -> None:
    faces = torch.rand(1, 1, 112, 112, generator=torch.Generator().manual_seed(0)) * 255
    basis = augment._cosines(faces.device)
    blocks = torch.nn.functional.conv2d(faces, basis, stride=8)
    again = torch.nn.functional.conv_transpose2d(blocks, basis, stride=8)
    assert torch.allclose(again, faces, atol=1e-2)


def test_inside__same_as_the_crop_of_the_pipeline(drawn: tuple[Faces, Faces]) -> None:
    transform = drawn[0].transform[:3].copy()
    transform[1, :, 2] += 30
    transform[2] = transform[2] @ np.array([[0.8, -0.3, 5], [0.3, 0.8, -9], [0, 0, 1]])
    found = augment.inside(torch.from_numpy(transform))[:, 0].numpy()
    for row, matrix in enumerate(transform):
        assert (found[row] != augment._inside(matrix)).mean() < 0.005


def test_as_served__black_outside_the_image(drawn: tuple[Faces, Faces]) -> None:
    served = augment.as_served(drawn[1], side=112)
    outside = ~augment._inside(drawn[1].transform[0])
    assert outside.any()
    assert served[0][outside].max() == 0
