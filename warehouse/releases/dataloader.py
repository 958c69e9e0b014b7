"""The fast road into a training loop: Arrow read from memory maps, decoded in the workers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from warehouse.errors import ReleaseError
from warehouse.releases import versions
from warehouse.storage.home import Home

if TYPE_CHECKING:
    from warehouse.releases.batches import FaceBatches

LABELS = ("soft", "hard", "sampled")


def torch_dataset(
    name: str | Path,
    version: str | int = "latest",
    *,
    home: str | Path | Home | None = None,
    split: str = "train",
    batch_size: int = 64,
    labels: str = "soft",
    shuffle: bool = True,
    seed: int = 0,
    size: int | None = None,
    gray: bool = False,
    drop_flagged: bool = False,
    drop_last: bool = False,
) -> FaceBatches:
    """Batches of decoded faces with their labels, ready for a loss.

    Each batch is a mapping of tensors::

        image   uint8[n, 3, h, w] RGB, or uint8[n, 1, h, w] with ``gray``
        label   float32[n, 8]: the soft label; NaN where all votes lay outside the classes
                int64[n] with ``hard`` (-100 where shares tie) or ``sampled`` (-100 without label)
        weight  float32[n]: label_quality, 1 where not audited
        au      float32[n, K], NaN where not measured

    ``sampled`` draws a class from each soft label anew in every epoch: over epochs a face is
    seen under each answer as often as people gave it, and any loss for hard labels will do.

    Give the result to ``torch.utils.data.DataLoader(faces, batch_size=None, num_workers=2)``, or
    call ``.loader(workers=2)``; row groups are dealt out among the workers. ``set_epoch(n)``
    before each epoch changes order and draws; the same seed, epoch and number of workers give the
    same batches. A row group is mixed with up to three others, in an order that changes::

        faces = torch_dataset("faces", home=home, size=48, gray=True)
        loader = faces.loader(workers=2)
        for epoch in range(10):
            faces.set_epoch(epoch)
            for batch in loader:
                answer = network(batch["image"].float() / 255).log_softmax(dim=1)
                known = ~batch["label"].isnan().any(dim=1)
                loss = -(batch["label"] * answer)[known].sum(dim=1)
                (loss * batch["weight"][known]).mean().backward()

    Args:
        name: of a release, or the folder of one version (then ``version`` does not count).
        split: train, validation or test.
        size: scale pictures to this square; without it all must be of one size.
        drop_flagged: pass over label issues and open-set faces.
        drop_last: leave out each worker's last batch if it is smaller.

    Raises:
        ReleaseError: no such release, version or split; pictures of several sizes; no picture.
    """
    if labels not in LABELS:
        raise ReleaseError(
            f"labels among {', '.join(LABELS)}", got=repr(labels), hint="choose one of them"
        )
    folder = Path(name) if Path(name).is_dir() else None
    path = folder or versions.resolve(Home.at(home), str(name), version)
    files = sorted((path / "data").glob(f"{split}-*.parquet"))
    if not files:
        there = sorted({file.name.split("-")[0] for file in (path / "data").glob("*.parquet")})
        raise ReleaseError(
            f"a split {split} in {path}", got=f"only {', '.join(there)}", hint="name one of those"
        )
    # Torch takes seconds to import: only for those who train.
    from warehouse.releases.batches import FaceBatches

    return FaceBatches(
        files, batch_size=batch_size, labels=labels, shuffle=shuffle, seed=seed, size=size,
        gray=gray, drop_flagged=drop_flagged, drop_last=drop_last,
    )  # fmt: skip
