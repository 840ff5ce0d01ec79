"""The tissue around the cells: a composite image, neuropil, vessels."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .._typing import AnyArray, FloatArray
from .arithmetic import blur_image, decay, mean
from .draws import Stream
from .molecules import render_molecules
from .scene import Layer, Scene
from .steps import Composite, Neuropil, Vasculature


def composite(scene: Scene, step: Composite) -> Scene:
    """Add the light of all cells and molecules to a uniform background."""
    patches = scene.footprints.blurred(scene.observed_sigma_px, scene.observed_gain)
    light, rest = scene.faded(scene.C), scene.amplitude_per_cell[:, None]
    molecules, pixel, margin = scene.molecules, scene.acquisition.pixel_size_um, scene.margin_px

    def lit(block: FloatArray, courses: FloatArray) -> FloatArray:
        block = block + step.background_photons
        for (top, left, image), course in zip(patches, courses, strict=True):
            window = block[:, top : top + image.shape[0], left : left + image.shape[1]]
            window += course[:, None, None] * image
        return block

    def frames(block: FloatArray, start: int) -> FloatArray:
        block = lit(block, light[:, start : start + len(block)])
        if molecules is not None:
            render_molecules(block, start, molecules, pixel, margin)
        return block

    return scene.add(Layer(step.kind, frames, lambda image: lit(image[None], rest)[0]))


def neuropil(scene: Scene, step: Neuropil) -> Scene:
    """Add spatial patterns that fluctuate slowly, by themselves and with the mean of the cells."""
    acquisition, k, frames = scene.acquisition, step.n_components, scene.acquisition.n_frames
    dt = 1 / acquisition.fps
    noise = Stream(scene.seed, step.kind, "space").normal(k, *scene.canvas_shape)
    sigma = step.spatial_sigma_um / acquisition.pixel_size_um
    spatial = np.stack([_pattern(image, sigma, step.contrast) for image in noise]) * (step.photons / k)

    population = _population(scene, step.population_tau_s, dt)
    drive = Stream(scene.seed, step.kind, "time").normal(frames, k)
    keep = decay(dt, step.temporal_tau_s)
    kick, course, temporal = math.sqrt(1 - keep * keep), drive[0], np.zeros((k, frames))
    for frame in range(frames):  # an Ornstein-Uhlenbeck process of variance 1
        course = keep * course + kick * drive[frame] if frame else drive[0]
        shared = 1 - step.population_coupling + step.population_coupling * population[frame]
        temporal[:, frame] = np.maximum(1 + step.fluctuation * course, 0.0) * shared
    if scene.bleaching is not None and scene.n_cells:
        temporal = temporal * _mean_over_cells(scene.bleaching)

    def lit(block: FloatArray, courses: FloatArray) -> FloatArray:
        for course, pattern in zip(courses, spatial, strict=True):
            block = block + course[:, None, None] * pattern
        return block

    rest = np.array([[mean(course)] for course in temporal])
    scene = replace(
        scene, neuropil_temporal=temporal, neuropil_spatial=scene.crop(spatial), neuropil_population=population
    )
    return scene.add(
        Layer(
            step.kind,
            lambda block, start: lit(block, temporal[:, start : start + len(block)]),
            lambda image: lit(image[None], rest)[0],
        )
    )


def _pattern(noise: FloatArray, sigma_px: float, contrast: float) -> FloatArray:
    """Smooth noise of mean 1 and the given standard deviation, clipped at 0."""
    smooth = blur_image(noise, sigma_px)
    smooth = smooth - mean(smooth)
    spread = math.sqrt(mean(smooth * smooth))
    return np.maximum(1 + contrast * smooth / (spread if spread > 0 else 1.0), 0.0)


def _mean_over_cells(values: FloatArray) -> FloatArray:
    """The mean over units of (unit, time), added in a fixed order."""
    result = np.zeros(values.shape[1])
    for row in values:
        result = result + row
    return result / len(values)


def _population(scene: Scene, tau_s: float, dt: float) -> FloatArray:
    """The cells' mean light relative to rest, smoothed in time, with mean 1; 1 without cells."""
    lit = scene.amplitude_per_cell > 0
    if not lit.any():
        return np.ones(scene.acquisition.n_frames)
    activity = _mean_over_cells(scene.C[lit] / scene.amplitude_per_cell[lit, None])
    keep, level, course = decay(dt, tau_s), float(activity[0]), np.zeros(len(activity))
    for frame, value in enumerate(activity.tolist()):
        level = keep * level + (1 - keep) * value
        course[frame] = level
    return course / mean(course)


def vasculature(scene: Scene, step: Vasculature) -> Scene:
    """Put dark, winding vessels over the tissue."""
    pixel = scene.acquisition.pixel_size_um
    mask = np.zeros(scene.canvas_shape, np.bool_)
    for vessel in range(step.n_vessels):
        stream = Stream(scene.seed, step.kind, vessel)
        _draw_vessel(mask, stream, step.width_um / pixel, step.tortuosity * pixel)
    soft = blur_image(mask.astype(np.float64), step.blur_um / pixel)
    transmission = np.maximum(1 - step.absorption * soft, 0.0)  # a blur may exceed 1 in its last digit
    scene = replace(scene, vessels=mask, vessel_transmission=transmission)
    return scene.add(Layer.multiplied(step.kind, transmission))


def _draw_vessel(mask: AnyArray, stream: Stream, widest_px: float, turn: float) -> None:
    """Mark a tube from one edge of the canvas to where it leaves the canvas, one pixel per step."""
    height, width = mask.shape
    edge, along, size = stream.uniform(3).tolist()
    radius = max(widest_px * (1 / 3 + 2 / 3 * size) / 2, 0.5)
    sides = ((0.0, along * width, 1.0, 0.0), (height - 1.0, along * width, -1.0, 0.0))
    ends = ((along * height, 0.0, 0.0, 1.0), (along * height, width - 1.0, 0.0, -1.0))
    y, x, dy, dx = (*sides, *ends)[min(int(edge * 4), 3)]
    for bend in (turn * stream.normal(4 * (height + width))).tolist():
        dy, dx = dy + bend * dx, dx - bend * dy  # a small turn; the length is restored below
        length = math.sqrt(dy * dy + dx * dx)
        dy, dx = dy / length, dx / length
        y, x = y + dy, x + dx
        if not (-radius <= y < height + radius and -radius <= x < width + radius):
            break
        rows = slice(max(0, math.floor(y - radius)), max(0, math.ceil(y + radius) + 1))
        columns = slice(max(0, math.floor(x - radius)), max(0, math.ceil(x + radius) + 1))
        part = mask[rows, columns]
        off_y = np.arange(rows.start, rows.start + part.shape[0]) - y
        off_x = np.arange(columns.start, columns.start + part.shape[1]) - x
        part |= (off_y * off_y)[:, None] + (off_x * off_x)[None, :] <= radius * radius
