"""Pictures to vectors: like the library's own processor, and refusing what cannot be used."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from encoders.image import (
    MAX_FILE_BYTES,
    Preparation,
    RefusedImageError,
    TransformerImages,
    open_picture,
    read_picture,
)
from encoders.pretrained import PretrainedModelError
from encoders.vector_cache import VectorCache
from tests.encoders.pretrained_cases import bert_folder, vit_folder, vit_processor
from tests.examples import examples

pytestmark = pytest.mark.slow  # transformers takes seconds to load


def _picture(width: int, height: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    generator = np.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny vision transformer; read only."""
    return vit_folder(tmp_path_factory.mktemp("vit"))


@pytest.mark.parametrize("size", [(32, 32), (50, 40), (7, 90)])
def test_pixels_are_those_of_the_library(vit: Path, size: tuple[int, int]) -> None:
    preparation = Preparation.parse(json.loads((vit / "preprocessor_config.json").read_bytes()))
    picture = _picture(*size)

    expected = vit_processor()(images=picture, return_tensors="np")["pixel_values"][0]

    np.testing.assert_allclose(preparation.pixels(picture), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (50, 41), (41, 50), (24, 90)])
def test_cropped_pixels_are_those_of_the_library(tmp_path: Path, size: tuple[int, int]) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    processor.save_pretrained(tmp_path)
    preparation = Preparation.parse(json.loads((tmp_path / "preprocessor_config.json").read_bytes()))
    picture = _picture(*size)

    expected = processor(images=picture, return_tensors="np")["pixel_values"][0]

    np.testing.assert_allclose(preparation.pixels(picture), expected, atol=1e-5)


def test_a_vector_is_the_mean_state_of_the_picture_alone(vit: Path, tmp_path: Path) -> None:
    paths = []
    for number in range(20):  # more than one batch
        paths.append(tmp_path / f"{number}.png")
        _picture(30 + number, 40, number).save(paths[-1])

    vectors, refused = TransformerImages.load(str(vit)).encode(paths)

    from transformers import AutoModel

    model = AutoModel.from_pretrained(vit).eval()
    assert refused == {}
    for path, vector in zip(paths, vectors, strict=True):
        with Image.open(path) as picture, torch.no_grad():
            pixels = vit_processor()(images=picture, return_tensors="pt")["pixel_values"]
            states = model(pixel_values=pixels).last_hidden_state
        np.testing.assert_allclose(vector, states[0].mean(0).numpy(), atol=1e-4)


def _claiming_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be of any size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def test_bad_files_are_refused_one_by_one_with_their_reasons(vit: Path, tmp_path: Path) -> None:
    _picture(40, 40).save(tmp_path / "good.jpg")
    good = (tmp_path / "good.jpg").read_bytes()
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "cut.jpg").write_bytes(good[: len(good) // 2])
    (tmp_path / "vast.png").write_bytes(_claiming_png(30_000, 30_000))
    (tmp_path / "bomb.png").write_bytes(_claiming_png(8_000, 8_000))
    with (tmp_path / "long.jpg").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    names = ["missing.jpg", "", "empty.jpg", "text.png", "good.jpg", "cut.jpg", "vast.png", "bomb.png", "long.jpg"]

    vectors, refused = TransformerImages.load(str(vit)).encode(
        [*(tmp_path / name for name in names), Path("nul\0byte"), tmp_path / ("x" * 300)]
    )

    assert sorted(refused) == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]
    assert refused[0] == "no such file"
    assert refused[1] == "not a plain file"
    assert refused[2].startswith("0 bytes")
    assert "no readable picture" in refused[3]
    assert "8000 x 8000 pixels" in refused[7]
    assert refused[8].startswith(f"{MAX_FILE_BYTES + 1} bytes")
    assert [row for row, vector in enumerate(vectors) if vector.any()] == [4]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA", "I;16"])
def test_pictures_of_every_kind_become_rgb(mode: str) -> None:
    picture = Image.new("I;16", (9, 5)) if mode == "I;16" else _picture(9, 5).convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG" if mode == "CMYK" else "PNG")

    opened = open_picture(buffer.getvalue())

    assert (opened.mode, opened.size) == ("RGB", (9, 5))


def test_transparency_lies_on_white_and_cameras_are_turned() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(buffer, "PNG")
    assert open_picture(buffer.getvalue()).getpixel((0, 0)) == (255, 255, 255)

    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    _picture(20, 10).save(buffer, "JPEG", exif=exif)
    assert open_picture(buffer.getvalue()).size == (10, 20)


@examples(60)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP"]))
def test_spoilt_files_never_end_in_anything_but_a_refusal(seed: int, kind: str) -> None:
    buffer = io.BytesIO()
    _picture(20, 16).save(buffer, kind)
    data = bytearray(buffer.getvalue())
    generator = np.random.default_rng(seed)
    for place in generator.integers(0, len(data), 12):
        data[place] = generator.integers(256)

    try:
        assert open_picture(bytes(data[: generator.integers(1, len(data) + 1)])).mode == "RGB"
    except RefusedImageError as error:
        assert str(error)


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(RefusedImageError, match="not a plain file"):
        read_picture(tmp_path)


def test_a_picture_in_the_cache_is_known_by_its_bytes_not_its_name(vit: Path, tmp_path: Path) -> None:
    cache = VectorCache(tmp_path / "vectors.sqlite")
    _picture(20, 20, 1).save(tmp_path / "a.png")
    _picture(20, 20, 1).save(tmp_path / "b.png")
    first, _ = TransformerImages.load(str(vit), cache=cache).encode([tmp_path / "a.png"])
    spoilt = TransformerImages.load(str(vit), cache=cache)
    with torch.no_grad():
        for weight in spoilt._model.parameters():
            weight.fill_(float("nan"))

    second, refused = spoilt.encode([tmp_path / "b.png"])

    assert refused == {}
    assert np.array_equal(first, second)
    _picture(20, 20, 2).save(tmp_path / "a.png")
    assert np.isnan(spoilt.encode([tmp_path / "a.png"])[0]).all()


def test_a_model_of_texts_sees_no_images(tmp_path: Path) -> None:
    with pytest.raises(PretrainedModelError, match="bert model sees no images"):
        TransformerImages.load(str(bert_folder(tmp_path)))


@pytest.mark.parametrize(
    "changed",
    [
        None,
        {"size": "large"},
        {"size": {"shortest_edge": 32}},
        {"image_mean": [0.5]},
        {"do_center_crop": True},
    ],
)
def test_a_model_that_says_not_how_to_prepare_pictures_is_refused(
    tmp_path: Path, changed: dict[str, object] | None
) -> None:
    path = vit_folder(tmp_path) / "preprocessor_config.json"
    if changed is None:
        path.unlink()
    else:
        path.write_text(json.dumps(json.loads(path.read_bytes()) | changed))

    with pytest.raises(PretrainedModelError, match=r"preprocessor_config\.json"):
        TransformerImages.load(str(tmp_path))
