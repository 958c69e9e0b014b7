"""Nearest-neighbour searches to compare, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import numpy as np

from annotation.audit import knn
from annotation.audit.knn import Neighbours


def _ours(features: np.ndarray, k: int) -> Neighbours:
    return knn.nearest(features, k=k, exact=0)


def _all_pairs(features: np.ndarray, k: int) -> Neighbours:
    return knn.nearest(features, k=k, exact=len(features))


def _faiss_cells(features: np.ndarray, k: int, *, probes: int) -> Neighbours:
    import faiss

    faiss.omp_set_num_threads(1)
    unit, cells = _unit(features), int(4 * len(features) ** 0.5)
    index = faiss.IndexIVFFlat(
        faiss.IndexFlatIP(unit.shape[1]), unit.shape[1], cells, faiss.METRIC_INNER_PRODUCT
    )
    index.cp.seed, index.cp.niter, index.cp.min_points_per_centroid = 1, 6, 1
    index.train(unit)
    index.add(unit)
    index.nprobe = probes
    return _without_itself(*index.search(unit, k + 1))


def _faiss_graph(features: np.ndarray, k: int) -> Neighbours:
    import faiss

    faiss.omp_set_num_threads(1)
    unit = _unit(features)
    index = faiss.IndexHNSWFlat(unit.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = 64, 96
    index.add(unit)
    return _without_itself(*index.search(unit, k + 1))


def _without_itself(cosine: np.ndarray, row: np.ndarray) -> Neighbours:
    keep = row != np.arange(len(row))[:, None]
    keep[keep.all(axis=1), -1] = False
    shape = (len(row), row.shape[1] - 1)
    return Neighbours(cosine[keep].reshape(shape), row[keep].reshape(shape))


def _unit(features: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(features / np.linalg.norm(features, axis=1, keepdims=True), "f4")


RIVALS: dict[str, Callable[[np.ndarray, int], Neighbours]] = {
    "all pairs": _all_pairs,
    "ours (usearch, graph of halves)": _ours,
}
if find_spec("faiss"):
    RIVALS |= {
        "faiss, graph": _faiss_graph,
        "faiss, 16 of 4 √n cells": partial(_faiss_cells, probes=16),
        "faiss, 32 of 4 √n cells": partial(_faiss_cells, probes=32),
    }
