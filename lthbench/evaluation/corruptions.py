"""The fifteen corruptions of CIFAR-10-C and CIFAR-100-C (Hendrycks and Dietterich 2019, arXiv 1903.12261), in numpy.

Constants are those of the authors' make_cifar_c.py, read there; packages of ImageNet-C's corruptions have others. What
is written here anew: OpenCV's and ImageMagick's filters (motion blur takes whole pixels as ImageMagick does). Not
confirmed: bits. The published files were drawn without a seed; OpenCV interpolates elastic transforms in steps of
1/32 pixel; the direction of rounding inside ImageMagick is as its documentation has it.

Each function takes uint8 images (N, H, W, 3), a severity's constants and one generator an image, so that what is drawn
for an image depends on nothing but its own number.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lthbench.base.errors import UserError
from lthbench.base.seeds import derive

Images = NDArray[Any]
Draws = Sequence[Generator]
FROST = {  # the authors' photographs, by sha256; the sixth was never drawn
    "frost1.png": "ff9f907860bd7a835d459e32f9d588062b7f61ee267343cc7222b56753a14755",
    "frost2.png": "fe211a89b336999c207a852ce05818d4545d0b57c5beadd824b4cc9d9a9b6137",
    "frost3.png": "2d0d50b4a9bb213f38b024ef7768731bb83cc08d2f26b5766bbc167cdfa0e504",
    "frost4.jpg": "3f8b91ca1a9fa7167b09e773da53f5ae60d0a1fd88f02a783f6e328a72887f6e",
    "frost5.jpg": "5fc6a19df4a429ba68abdcc8f8a4278d4c9f81c9ccafd2c92ab0c8cf8992ebd2",
}


def corrupted(images: Images, samples: Sequence[int], name: str, severity: int, seed: int, root: str) -> Images:
    """uint8 images (N, H, W, 3) under a corruption; `samples` are their numbers in the data set."""
    function, constants = KNOWN[name]
    draws = [np.random.default_rng(derive(seed, f"corrupt {name}", severity, n)) for n in samples]
    values = {"folder": root} if name == "frost" else {}
    made = function(images, constants[severity - 1], draws, **values)
    return made if made.dtype == np.uint8 else np.clip(made * 255, 0, 255).astype(np.uint8)


def _unit(x: Images) -> Images:
    return x.astype(np.float64) / 255


def _gaussian_noise(x: Images, c: float, draws: Draws) -> Images:
    return np.clip(_unit(x) + c * np.stack([d.standard_normal(x.shape[1:]) for d in draws]), 0, 1)


def _shot_noise(x: Images, c: float, draws: Draws) -> Images:
    return np.clip(np.stack([d.poisson(one * c) / c for d, one in zip(draws, _unit(x))]), 0, 1)


def _impulse_noise(x: Images, c: float, draws: Draws) -> Images:
    drawn = np.stack([d.random((2, *x.shape[1:])) for d in draws])
    return np.where(drawn[:, 0] < c, (drawn[:, 1] < 0.5).astype(np.float64), _unit(x))


def _blurred(x: Images, sigma: float) -> Images:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest", truncate=4.0)


def _defocus_blur(x: Images, c: tuple[float, float], draws: Draws) -> Images:
    from scipy.ndimage import correlate

    radius, alias = c
    line = np.arange(-8, 9)
    disk = (line[:, None] ** 2 + line[None, :] ** 2 <= radius**2).astype(np.float64)
    taps = np.exp(-(np.arange(-1, 2) ** 2) / (2 * alias**2))
    taps /= taps.sum()
    smooth = correlate(disk / disk.sum(), np.outer(taps, taps), mode="mirror")
    return np.clip(correlate(_unit(x), smooth[None, :, :, None], mode="mirror"), 0, 1)


def _glass_blur(x: Images, c: tuple[float, int, int], draws: Draws) -> Images:
    sigma, reach, times = c
    out = (_blurred(_unit(x), sigma) * 255).astype(np.uint8)
    rows, columns = (range(size - reach, reach, -1) for size in x.shape[1:3])
    moves = np.stack([d.integers(-reach, reach, (times, len(rows), len(columns), 2)) for d in draws])
    each = np.arange(len(out))
    for time in range(times):
        for i, h in enumerate(rows):
            for j, w in enumerate(columns):  # neighbours change places, all images at once
                there = each, h + moves[:, time, i, j, 1], w + moves[:, time, i, j, 0]
                kept = out[:, h, w].copy()
                out[:, h, w] = out[there]
                out[there] = kept
    return np.clip(_blurred(_unit(out), sigma), 0, 1)


def _moved(x: Images, radius: int, sigma: float, angle: float) -> Images:
    """One image (H, W, ...) smeared along a direction in degrees: half a Gaussian of 2 radius + 1 whole pixels."""
    width = 2 * radius + 1
    weights = np.exp(-(np.arange(width) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    rows, columns = np.arange(x.shape[0]), np.arange(x.shape[1])
    out = np.zeros(x.shape)
    for i, weight in enumerate(weights):
        right = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
        down = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
        y, z = (rows + down).clip(0, x.shape[0] - 1), (columns + right).clip(0, x.shape[1] - 1)
        out += weight * x[y[:, None], z]
    return out


def _motion_blur(x: Images, c: tuple[int, float], draws: Draws) -> Images:
    return np.rint(np.stack([_moved(one, *c, d.uniform(-45, 45)) for d, one in zip(draws, x)])).astype(np.uint8)


def _zoomed(x: Images, factor: float) -> Images:
    """The middle of images (N, H, W, C), `factor` times larger."""
    from scipy.ndimage import zoom

    size = x.shape[1]
    part = math.ceil(size / factor)
    top = (size - part) // 2
    large = zoom(x[:, top : top + part, top : top + part], (1, factor, factor, 1), order=1)
    trim = (large.shape[1] - size) // 2
    return large[:, trim : trim + size, trim : trim + size]


def _zoom_blur(x: Images, c: float, draws: Draws) -> Images:
    factors = np.arange(1, c, 0.01)
    whole = _unit(x).astype(np.float32)
    return np.clip((whole + sum(_zoomed(whole, factor) for factor in factors)) / (len(factors) + 1), 0, 1)


def _snow(x: Images, c: tuple[float, ...], draws: Draws) -> Images:
    mean, deviation, zoom, threshold, radius, sigma, share = c
    flakes = np.stack([d.normal(mean, deviation, x.shape[1:3]) for d in draws])[..., None]
    flakes = _zoomed(flakes, zoom)[..., 0]
    flakes = (np.clip(np.where(flakes < threshold, 0, flakes), 0, 1) * 255).astype(np.uint8)
    fallen = [np.rint(_moved(one, int(radius), sigma, d.uniform(-135, -45))) for d, one in zip(draws, flakes)]
    layer = np.stack(fallen)[..., None] / 255
    plain = _unit(x)
    grey = (plain @ np.array([0.299, 0.587, 0.114]))[..., None]
    whitened = share * plain + (1 - share) * np.maximum(plain, grey * 1.5 + 0.5)
    return np.clip(whitened + layer + layer[:, ::-1, ::-1], 0, 1)


def _frost(x: Images, c: tuple[float, float], draws: Draws, folder: str) -> Images:
    photographs = _photographs(folder)
    size = x.shape[1]
    layers = []
    for d in draws:
        photograph = photographs[d.integers(len(FROST))]
        top, left = (d.integers(0, length - size) for length in photograph.shape[:2])
        layers.append(photograph[top : top + size, left : left + size])
    return np.clip(c[0] * x + c[1] * np.stack(layers), 0, 255).astype(np.uint8)


def frost_folder(root: str) -> Path:
    """Where the photographs of frost lie: in `<data>/frost`, or in an installed package of ImageNet-C's corruptions."""
    places = [Path(root) / "frost"]
    if (found := importlib.util.find_spec("imagecorruptions")) and found.origin:
        places.append(Path(found.origin).parent / "frost")
    for place in places:
        if all((place / name).is_file() for name in FROST):
            return place
    raise UserError(
        "robustness: the photographs for 'frost' are not here: pip install --no-deps imagecorruptions, "
        "or leave frost out of robustness.corruptions"
    )


@lru_cache(maxsize=1)
def _photographs(root: str) -> list[Images]:
    from PIL import Image

    folder, found = frost_folder(root), []
    for name, sha256 in FROST.items():
        data = (folder / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError(f"'{folder / name}' is not the published photograph")
        found.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[2::5, 2::5])  # a fifth, bilinear
    return found


def _fog(x: Images, c: tuple[float, float], draws: Draws) -> Images:
    plain = _unit(x)
    bright = plain.max((1, 2, 3), keepdims=True)
    clouds = np.stack([_clouds(d, x.shape[1], c[1]) for d in draws])[..., None]
    return np.clip((plain + c[0] * clouds) * bright / (bright + c[0]), 0, 1)


def _clouds(draws: Generator, size: int, decay: float) -> Images:
    """A height map in 0..1 on a torus, by the diamond-square algorithm; `size` is rounded up to a power of two."""
    side = 1 << (size - 1).bit_length()
    heights = np.zeros((side, side))
    step, wibble = side, 100.0

    def noisy(total: Images) -> Images:
        return total / 4 + wibble * draws.uniform(-wibble, wibble, total.shape)

    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        rows = corners + np.roll(corners, -1, 0)
        heights[half::step, half::step] = noisy(rows + np.roll(rows, -1, 1))
        middles = heights[half::step, half::step]
        corners = heights[::step, ::step]
        heights[::step, half::step] = noisy(middles + np.roll(middles, 1, 0) + corners + np.roll(corners, -1, 1))
        heights[half::step, ::step] = noisy(middles + np.roll(middles, 1, 1) + corners + np.roll(corners, -1, 0))
        step, wibble = half, wibble / decay
    heights -= heights.min()
    return (heights / heights.max())[:size, :size]


def _brightness(x: Images, c: float, draws: Draws) -> Images:
    """The value of HSV goes up; hue and saturation stay."""
    plain = _unit(x)
    value = plain.max(3, keepdims=True)
    raised = np.clip(value + c, 0, 1)
    return np.where(value > 0, plain * raised / np.where(value > 0, value, 1), raised)


def _contrast(x: Images, c: float, draws: Draws) -> Images:
    plain = _unit(x)
    means = plain.mean((1, 2), keepdims=True)
    return np.clip((plain - means) * c + means, 0, 1)


def _elastic_transform(x: Images, c: tuple[float, float, float], draws: Draws) -> Images:
    return np.stack([_stretched(one, c, d) for d, one in zip(draws, _unit(x))])


def _stretched(x: Images, c: tuple[float, float, float], draws: Generator) -> Images:
    """An image (H, W, C) under a random affine map, then under a smooth field of displacements; c in widths."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    size = x.shape[0]
    alpha, sigma, reach = (size * value for value in c)
    centre, arm = size // 2, size // 3
    before = np.array([[centre + arm, centre + arm], [centre + arm, centre - arm], [centre - arm, centre - arm]], float)
    after = before + draws.uniform(-reach, reach, before.shape)
    back = np.linalg.solve(np.c_[after, np.ones(3)], before)  # (x, y, 1) of the result -> (x, y) of the image
    rows, columns = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    source = np.stack([columns, rows, np.ones_like(rows)], -1) @ back
    turned = [map_coordinates(x[..., k], (source[..., 1], source[..., 0]), order=1, mode="mirror") for k in range(3)]
    fields = [
        gaussian_filter(draws.uniform(-1, 1, (size, size)), sigma, mode="reflect", truncate=3) * alpha for _ in range(2)
    ]
    places = rows + fields[1], columns + fields[0]
    return np.clip(np.stack([map_coordinates(t, places, order=1, mode="reflect") for t in turned], -1), 0, 1)


def _pixelate(x: Images, c: float, draws: Draws) -> Images:
    from PIL import Image

    small, size = int(x.shape[1] * c), x.shape[1]
    box = Image.Resampling.BOX
    return np.stack(
        [np.asarray(Image.fromarray(one).resize((small, small), box).resize((size, size), box)) for one in x]
    )


def _jpeg_compression(x: Images, c: int, draws: Draws) -> Images:
    from PIL import Image

    def again(one: Images) -> Images:
        with io.BytesIO() as file:
            Image.fromarray(one).save(file, "JPEG", quality=c)
            return np.asarray(Image.open(file))

    return np.stack([again(one) for one in x])


KNOWN: dict[str, tuple[Callable[..., Images], Sequence[Any]]] = {
    "gaussian_noise": (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": (_shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": (_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": (_defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
    "glass_blur": (_glass_blur, ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))),
    "motion_blur": (_motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "zoom_blur": (_zoom_blur, (1.06, 1.11, 1.16, 1.21, 1.26)),
    "snow": (
        _snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    "frost": (_frost, ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
    "fog": (_fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "elastic_transform": (
        _elastic_transform,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    ),
    "pixelate": (_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": (_jpeg_compression, (80, 65, 58, 50, 40)),
}
