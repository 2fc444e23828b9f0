"""Images to vectors with any vision model of the transformers library: the mean of its last states over the picture.

The pictures are local files that item records name. They come from outside, so each is checked before it is decoded,
and one that cannot be used is refused with a reason while the others go on.

What a picture has to look like is read from the model's `preprocessor_config.json`. The library's own image
processors need torchvision, so resizing and normalising are done here, with Pillow.

Shapes: N images, C channels, Y rows, X columns of pixels, I dimensions of the model.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from encoders.contract import Float32Array
from encoders.pretrained import PretrainedModelError, fingerprint, is_plain, load_pretrained, locate
from encoders.vector_cache import VectorCache, content_key

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PREPROCESSOR_FILE = "preprocessor_config.json"

MAX_FILE_BYTES = 32 * 2**20
"""Longest file that is read; product pictures have one or two megabytes."""

MAX_PIXELS = 50_000_000
"""Largest picture that is decoded, 150 MB of memory; a small file can claim to be far larger."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
IMAGES_AT_A_TIME = 16


class RefusedImageError(ValueError):
    """A picture cannot be used; the message says why, without the path."""


@dataclass(frozen=True)
class Preparation:
    """What a model wants done to a picture; the names are those of `preprocessor_config.json`.

    Args:
        size: {"height", "width"} to resize to, or {"shortest_edge"} to bring the shorter side to.
        crop_size: {"height", "width"} cut out of the middle afterwards; None cuts nothing.
        resample: Pillow's number of the filter.
        rescale_factor: pixels of 0 to 255 are multiplied by it.
        image_mean: taken from each channel after that.
        image_std: each channel is divided by it.
    """

    size: dict[str, int]
    crop_size: dict[str, int] | None
    resample: int
    rescale_factor: float
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Preparation:
        """Read the model's own description.

        Raises:
            KeyError, TypeError, ValueError: if it does not describe how to resize.
        """
        size = _size(values["size"])
        crops = values.get("do_center_crop", False)
        normalizes = values.get("do_normalize", True)
        if "shortest_edge" in size and not crops:
            raise ValueError("size gives a shortest edge but nothing is cropped, so pictures would differ in shape")
        return cls(
            size=size,
            crop_size=_size(values["crop_size"], square=True) if crops else None,
            resample=int(values.get("resample", Image.Resampling.BILINEAR)),
            rescale_factor=float(values.get("rescale_factor", 1 / 255)) if values.get("do_rescale", True) else 1.0,
            image_mean=_three(values["image_mean"]) if normalizes else (0.0, 0.0, 0.0),
            image_std=_three(values["image_std"]) if normalizes else (1.0, 1.0, 1.0),
        )

    def pixels(self, picture: Image.Image) -> Float32Array:
        """(C, Y, X) float32 of a picture in RGB."""
        picture = picture.resize(self._resized(picture.width, picture.height), Image.Resampling(self.resample))
        if self.crop_size:
            width, height = self.crop_size["width"], self.crop_size["height"]
            left, top = (picture.width - width) // 2, (picture.height - height) // 2
            picture = picture.crop((left, top, left + width, top + height))
        pixels_YXC = np.asarray(picture, dtype=np.float32) * np.float32(self.rescale_factor)
        mean_C, std_C = (np.array(values, dtype=np.float32) for values in (self.image_mean, self.image_std))
        normed_YXC = (pixels_YXC - mean_C) / std_C
        return np.ascontiguousarray(normed_YXC.transpose(2, 0, 1), dtype=np.float32)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height to resize to; an extreme shape is cut by the crop, so its long side is bounded."""
        if "shortest_edge" not in self.size:
            return self.size["width"], self.size["height"]
        short, long = sorted((width, height))
        edge = self.size["shortest_edge"]
        longer = min(int(edge * long / short), 20 * edge)
        return (edge, longer) if width <= height else (longer, edge)


def _size(value: object, *, square: bool = False) -> dict[str, int]:
    """A size as the library writes it, older files having one number: a square for crops, else the shortest edge."""
    if isinstance(value, int):
        return {"height": value, "width": value} if square else {"shortest_edge": value}
    if isinstance(value, dict) and (set(value) >= {"height", "width"} or "shortest_edge" in value):
        return {name: int(number) for name, number in value.items() if number is not None}
    raise ValueError(f"size {value!r}: expected height and width, or shortest_edge")


def _three(values: Sequence[float]) -> tuple[float, ...]:
    if len(values) != 3:
        raise ValueError(f"{values!r}: expected a number for each of red, green and blue")
    return tuple(float(value) for value in values)


def open_picture(data: bytes) -> Image.Image:
    """A picture in RGB, turned as its camera says, with transparency on white.

    Raises:
        RefusedImageError: if the bytes are no picture of a known format, too large, or broken.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # broken metadata, and sizes that are judged just below
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise RefusedImageError(f"{picture.width} x {picture.height} pixels, at most {MAX_PIXELS} are read")
                turned = ImageOps.exif_transpose(picture)
                if "A" in turned.getbands() or "transparency" in turned.info:
                    turned = turned.convert("RGBA")
                    white = Image.new("RGBA", turned.size, "white")
                    turned = Image.alpha_composite(white, turned)
                return turned.convert("RGB")
    except RefusedImageError:
        raise
    # Decoders of broken files raise nearly anything: SyntaxError for PNG, struct.error, EOFError, zlib.error.
    except Exception as error:
        raise RefusedImageError(f"no readable picture ({type(error).__name__}: {error})") from error


def read_picture(path: Path) -> bytes:
    """The bytes of a picture file.

    Raises:
        RefusedImageError: if it is missing, no plain file, empty or too long.
    """
    try:
        if not path.is_file():
            raise RefusedImageError("no such file" if not path.exists() else "not a plain file")
        num_bytes = path.stat().st_size
        if not 0 < num_bytes <= MAX_FILE_BYTES:
            raise RefusedImageError(f"{num_bytes} bytes, expected 1 to {MAX_FILE_BYTES}")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, RefusedImageError):
            raise
        raise RefusedImageError(f"not readable ({error})") from error


class TransformerImages:
    """A vision model behind a cache. Made by `TransformerImages.load`.

    Args:
        model: takes pixels, gives last states.
        preparation: what it wants done to a picture.
        cache: where vectors are kept; None computes every picture every time.
    """

    def __init__(self, model: PreTrainedModel, preparation: Preparation, cache: VectorCache | None = None) -> None:
        self._model = model.requires_grad_(False)
        self._preparation = preparation
        self._cache = cache
        self.identity = fingerprint(model, repr(preparation).encode())
        sizes = getattr(model.config, "hidden_sizes", None)
        self.dim = int(sizes[-1] if sizes else model.config.hidden_size)

    @classmethod
    def load(cls, source: str, *, cache: VectorCache | None = None, allow_download: bool = False) -> TransformerImages:
        """Read a vision model, or the vision side of one for images and text.

        Args:
            source: a folder, ``package:NAME`` or a hub name, see `encoders.pretrained.locate`.
            cache: where vectors are kept.
            allow_download: whether a hub name may be fetched.

        Raises:
            PretrainedModelError: if there is no such model, or it does not look at pictures.
        """
        whole = load_pretrained(source, allow_download=allow_download)
        model = getattr(whole, "vision_model", whole)
        if not is_plain(model) or model.main_input_name != "pixel_values":
            raise PretrainedModelError(
                f"{source!r}: a {whole.config.model_type} model sees no images; name a vision model"
            )
        return cls(model, _preparation(source, allow_download=allow_download), cache)

    def encode(self, paths: Sequence[Path]) -> tuple[Float32Array, dict[int, str]]:
        """Vectors of picture files.

        Returns:
            (N, I) float32, zeros for those refused; and for each of those its position and the reason.
        """
        vectors_NI = np.zeros((len(paths), self.dim), dtype=np.float32)
        refused: dict[int, str] = {}
        for start in range(0, len(paths), IMAGES_AT_A_TIME):
            self._encode_some(range(start, min(start + IMAGES_AT_A_TIME, len(paths))), paths, vectors_NI, refused)
        return vectors_NI, refused

    def _encode_some(
        self, rows: range, paths: Sequence[Path], vectors_NI: Float32Array, refused: dict[int, str]
    ) -> None:
        contents: dict[int, bytes] = {}
        for row in rows:
            try:
                contents[row] = read_picture(paths[row])
            except RefusedImageError as error:
                refused[row] = str(error)
        keys = {row: content_key(data) for row, data in contents.items()}
        known = self._cache.get(self.identity, list(set(keys.values())), self.dim) if self._cache else {}
        pixels: dict[bytes, Float32Array] = {}
        for row, key in keys.items():
            try:
                if key not in known and key not in pixels:
                    pixels[key] = self._preparation.pixels(open_picture(contents[row]))
            except RefusedImageError as error:
                refused[row] = str(error)
        fresh = dict(zip(pixels, self._pooled(list(pixels.values())), strict=True))
        if self._cache and fresh:
            self._cache.put(self.identity, fresh)
        known |= fresh
        for row, key in keys.items():
            if row not in refused:
                vectors_NI[row] = known[key]

    @torch.inference_mode()
    def _pooled(self, pixels: list[Float32Array]) -> Float32Array:
        if not pixels:
            return np.zeros((0, self.dim), dtype=np.float32)
        states: Tensor = self._model(pixel_values=torch.from_numpy(np.stack(pixels))).last_hidden_state
        # Convolutional models give (N, I, Y, X), transformers (N, tokens, I).
        pooled_NI = states.mean((2, 3)) if states.ndim == 4 else states.mean(1)
        return np.asarray(pooled_NI.numpy(), dtype=np.float32)


def _preparation(source: str, *, allow_download: bool) -> Preparation:
    from huggingface_hub import hf_hub_download

    place = Path(locate(source))
    try:
        if place.is_dir():
            path = str(place / PREPROCESSOR_FILE)
        else:
            path = hf_hub_download(locate(source), PREPROCESSOR_FILE, local_files_only=not allow_download)
        return Preparation.parse(json.loads(Path(path).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PretrainedModelError(
            f"{source!r}: {PREPROCESSOR_FILE} is missing or says not how pictures are prepared ({error}); "
            f"expected size, image_mean and image_std in it"
        ) from error
