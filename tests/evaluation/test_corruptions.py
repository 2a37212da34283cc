"""CIFAR-C's corruptions against naive versions, image by image and pixel by pixel."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lthbench.base.errors import UserError
from lthbench.base.seeds import derive
from lthbench.evaluation import corruptions
from lthbench.evaluation.corruptions import KNOWN, corrupted, frost_folder
from lthbench.evaluation.settings import CORRUPTIONS, SEVERITIES

IMAGES = (np.random.default_rng(0).random((6, 8, 8, 3)).repeat(4, 1).repeat(4, 2) * 255).astype(np.uint8)
SAMPLES = [3, 10, 11, 12, 500, 9999]
WITHOUT_FROST = [name for name in CORRUPTIONS if name != "frost"]


def made(name, severity, images=IMAGES, samples=SAMPLES, seed=0, root="nowhere"):
    return corrupted(images, samples, name, severity, seed, root)


def draws(name, severity, sample, seed=0):
    return np.random.default_rng(derive(seed, f"corrupt {name}", severity, sample))


def test_fifteen_corruptions_at_five_severities():
    assert tuple(KNOWN) == CORRUPTIONS and len(CORRUPTIONS) == 15
    assert all(len(constants) == len(SEVERITIES) == 5 for _, constants in KNOWN.values())


@pytest.mark.parametrize("name", WITHOUT_FROST)
def test_an_image_is_corrupted_the_same_way_in_any_company(name):
    whole = made(name, 3)
    assert whole.dtype == np.uint8 and whole.shape == IMAGES.shape and (whole != IMAGES).any()
    again = made(name, 3, IMAGES[[4, 1]], [SAMPLES[4], SAMPLES[1]])
    assert (again == whole[[4, 1]]).all()


@pytest.mark.parametrize(
    "name",
    ["gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "snow", "fog", "elastic_transform"],
)
def test_what_is_drawn_depends_on_seed_severity_and_image(name):
    one = made(name, 2)
    assert (made(name, 2, seed=1) != one).any()
    assert (made(name, 2, samples=[n + 1 for n in SAMPLES]) != one).any()


@pytest.mark.parametrize("name", [n for n in WITHOUT_FROST if n not in ("elastic_transform", "glass_blur", "pixelate")])
def test_a_higher_severity_does_more_harm(name):
    harm = [np.abs(made(name, s).astype(int) - IMAGES).mean() for s in SEVERITIES]
    assert 0 < harm[0] < harm[2] and harm[0] < harm[4]


def test_noise_one_number_at_a_time():
    severity = 4
    for name, c in (("gaussian_noise", 0.09), ("shot_noise", 75), ("impulse_noise", 0.05)):
        found = made(name, severity)
        for image, sample, out in zip(IMAGES, SAMPLES, found):
            d, x = draws(name, severity, sample), image / 255
            if name == "gaussian_noise":
                y = x + d.normal(0, 1, x.shape) * c
            elif name == "shot_noise":
                y = d.poisson(x * c) / c
            else:
                struck, salt = d.random(x.shape), d.random(x.shape)
                y = np.array(
                    [s if a >= c else float(b < 0.5) for s, a, b in zip(x.flat, struck.flat, salt.flat)]
                ).reshape(x.shape)
            assert (out == (np.clip(y, 0, 1) * 255).astype(np.uint8)).all()


def test_brightness_and_contrast_are_hsv_and_distance_from_the_mean():
    import colorsys

    for severity, raised, factor in ((1, 0.05, 0.75), (5, 0.3, 0.15)):
        x = np.concatenate([IMAGES[:1], np.zeros_like(IMAGES[:1])])
        bright = made("brightness", severity, x, [0, 1]).reshape(-1, 3)
        for (r, g, b), out in zip(x.reshape(-1, 3)[::7] / 255, bright[::7]):
            h, s, v = colorsys.rgb_to_hsv(r, g, b)
            expected = np.array(colorsys.hsv_to_rgb(h, s, min(1, v + raised))) * 255
            assert np.abs(out - expected).max() < 1.01
        flat = made("contrast", severity)[0]
        means = (IMAGES[0] / 255).mean((0, 1))
        expected = np.clip((IMAGES[0] / 255 - means) * factor + means, 0, 1) * 255
        assert np.abs(flat - expected).max() < 1.01


def test_motion_blur_is_half_a_gaussian_along_whole_pixels():
    severity, (radius, sigma) = 4, (8, 2)
    found = made("motion_blur", severity)
    image, sample, out = IMAGES[2], SAMPLES[2], found[2]
    angle = math.radians(draws("motion_blur", severity, sample).uniform(-45, 45))
    weights = [math.exp(-i * i / (2 * sigma**2)) for i in range(2 * radius + 1)]
    for y, x in ((0, 0), (5, 17), (31, 31), (16, 2)):
        total = np.zeros(3)
        for i, weight in enumerate(weights):
            yy = min(31, max(0, y + math.ceil(i * math.sin(angle) - 0.5)))
            xx = min(31, max(0, x + math.ceil(i * math.cos(angle) - 0.5)))
            total += weight * image[yy, xx]
        assert np.abs(out[y, x] - total / sum(weights)).max() <= 0.5 + 1e-9


def test_glass_blur_moves_pixels_to_neighbours_and_keeps_them_all():
    """Without smoothing (sigma so small that it does nothing) the pixels of each image are the same."""
    out = corruptions._glass_blur(IMAGES, (0.05, 1, 2), [draws("glass_blur", 1, n) for n in SAMPLES])
    for before, after in zip(IMAGES, (out * 255).round().astype(np.uint8)):
        assert sorted(map(tuple, before.reshape(-1, 3))) == sorted(map(tuple, after.reshape(-1, 3)))
        assert (before != after).any()


def test_defocus_blur_keeps_flat_images_and_is_symmetric():
    flat = np.full((1, 32, 32, 3), 100, np.uint8)
    for name in ("defocus_blur", "motion_blur", "zoom_blur", "elastic_transform", "pixelate"):
        assert np.abs(made(name, 5, flat, [0]).astype(int) - 100).max() <= 1
    x = IMAGES[:1]
    mirrored = made("defocus_blur", 5, x[:, :, ::-1], [0])
    assert np.abs(mirrored[:, :, ::-1].astype(int) - made("defocus_blur", 5, x, [0])).max() <= 1
    point = np.zeros((1, 33, 33, 3), np.uint8)
    point[0, 16, 16] = 255
    spread = made("defocus_blur", 5, point, [0])[0, :, :, 0]
    near = np.hypot(*np.mgrid[-16:17, -16:17]) <= 1.5  # nine pixels; the antialiasing of 0.1 adds nothing
    assert ((spread > 0) == near).all() and spread[16, 16] == 255 // 9


def test_zoom_blur_is_the_mean_of_the_image_and_its_enlargements():
    from scipy.ndimage import zoom

    x = (IMAGES[0] / 255).astype(np.float32)
    factors, total = np.arange(1, 1.11, 0.01), x.astype(float)
    for factor in factors:
        part = int(np.ceil(32 / factor))
        top = (32 - part) // 2
        large = zoom(x[top : top + part, top : top + part], (factor, factor, 1), order=1)
        trim = (large.shape[0] - 32) // 2
        total = total + large[trim : trim + 32, trim : trim + 32]
    expected = np.clip(total / (len(factors) + 1), 0, 1) * 255
    assert np.abs(made("zoom_blur", 2)[0] - expected).max() <= 1.01


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from([3, 2.5, 2, 1.75]))
def test_clouds_fill_the_unit_interval(seed, decay):
    clouds = corruptions._clouds(np.random.default_rng(seed), 32, decay)
    assert clouds.shape == (32, 32) and clouds.min() == 0 and clouds.max() == 1


def test_elastic_transforms_without_displacement_are_affine():
    """Severity 1 has no field: three corners of the square go where they were drawn to."""
    size, sample = 32, SAMPLES[0]
    d = draws("elastic_transform", 1, sample)
    before = np.array([[26, 26], [26, 6], [6, 6]], float)
    after = before + d.uniform(-0.08 * size, 0.08 * size, (3, 2))
    ramp = np.stack(np.broadcast_arrays(np.arange(32)[None, :], np.arange(32)[:, None], np.zeros((32, 32))), -1)
    out = made("elastic_transform", 1, (ramp * 8).astype(np.uint8)[None], [sample])[0]
    forward = np.linalg.solve(np.c_[before, np.ones(3)], after)
    for x, y in ((10, 12), (16, 20), (20, 8)):
        u, v, _ = out[y, x] / 8.0
        assert np.array([u, v, 1]) @ forward == pytest.approx([x, y], abs=0.3)


def test_jpeg_and_pixelation_are_pillows(tmp_path):
    from PIL import Image

    for quality, severity in ((80, 1), (40, 5)):
        Image.fromarray(IMAGES[0]).save(tmp_path / "x.jpg", quality=quality)
        assert (made("jpeg_compression", severity)[0] == np.asarray(Image.open(tmp_path / "x.jpg"))).all()
    coarse = made("pixelate", 5)[0]
    assert len(np.unique(coarse.reshape(-1, 3), axis=0)) <= 20 * 20


def test_frost_needs_its_photographs(tmp_path, monkeypatch):
    monkeypatch.setattr(corruptions.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install --no-deps imagecorruptions, or leave frost out"):
        frost_folder(str(tmp_path))
    for name in corruptions.FROST:
        (tmp_path / "frost").mkdir(exist_ok=True)
        (tmp_path / "frost" / name).write_bytes(b"other")
    assert frost_folder(str(tmp_path)) == tmp_path / "frost"
    corruptions._photographs.cache_clear()
    with pytest.raises(ValueError, match="is not the published photograph"):
        made("frost", 1, root=str(tmp_path))


def test_frost_lays_a_photograph_over_each_image(monkeypatch):
    photographs = [np.full((40, 50, 3), 50 * k, np.uint8) for k in range(5)]
    monkeypatch.setattr(corruptions, "_photographs", lambda root: photographs)
    found = made("frost", 3)
    for image, sample, out in zip(IMAGES, SAMPLES, found):
        which = draws("frost", 3, sample).integers(5)
        assert (out == np.clip(0.9 * image + 0.4 * photographs[which][0, 0], 0, 255).astype(np.uint8)).all()
