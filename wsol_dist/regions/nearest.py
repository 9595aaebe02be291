"""The compiled search for nearest centres of `wsol_dist.regions.kmeans`; imported at first use only.

k-means of an image has few centres and few dimensions, and many points. faiss's index is made for other shapes; here
each step of the innermost loops is one instruction on eight points.
"""

from __future__ import annotations

import numpy as np

from wsol_dist.regions.compiled import compiled

CHUNK = 512
"""Points whose distances stay in the fastest cache."""


@compiled("void(f4[:, ::1], f4[:, ::1], i8[::1])")
def nearest(point_dN: np.ndarray, centre_dK: np.ndarray, label_N: np.ndarray) -> None:
    """Fill in the nearest centre of each point, the first of equals; by squared differences, not by their expansion.

    Args:
        point_dN: finite.
        centre_dK: finite.
        label_N: filled with 0 .. K - 1.
    """
    (d, N), K = point_dN.shape, centre_dK.shape[1]
    distances, leasts, bests = np.empty((3, CHUNK), np.float32)
    for start in range(0, N, CHUNK):
        size = min(CHUNK, N - start)
        # Slices counted from 0, and labels as wide as distances, so that the loops become vector instructions.
        distance, least, best = distances[:size], leasts[:size], bests[:size]
        least[:] = np.inf
        best[:] = 0
        for k in range(K):
            distance[:] = 0
            for j in range(d):
                x, c = point_dN[j, start : start + size], centre_dK[j, k]
                for i in range(size):
                    distance[i] += (x[i] - c) * (x[i] - c)
            label = np.float32(k)
            for i in range(size):
                best[i] = label if distance[i] < least[i] else best[i]
                least[i] = distance[i] if distance[i] < least[i] else least[i]
        label_N[start : start + size] = best.astype(np.int64)
