import base64
import io

import numpy as np
import pytest
from PIL import Image

from plateglass.report import pictures
from plateglass.report.palette import label_colours, rgb, viridis


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def test_channels_add_up_in_their_colours():
    tones = np.zeros((2, 1, 3), np.float32)
    tones[0, 0, 0] = tones[1, 0, 1] = tones[:, 0, 2] = 1
    assert pictures.blend(tones, ["FF0000", "00FF00"])[0].tolist() == [
        [1, 0, 0],
        [0, 1, 0],
        [1, 1, 0],
    ]


def test_a_map_covers_where_it_is_high_and_nothing_where_it_is_not_positive():
    ground = np.full((2, 2, 3), 0.3, np.float32)
    amount = np.array([[1.0, 0.0], [-2.0, np.nan]])
    laid = pictures.lay_over(ground, amount)
    assert laid[0, 0] == pytest.approx(0.15 * ground[0, 0] + 0.85 * rgb("fde725"), abs=1e-6)
    assert laid[0, 1] == pytest.approx(ground[0, 1])
    assert laid[1] == pytest.approx(ground[1])
    assert pictures.lay_over(ground, np.zeros((2, 2))) == pytest.approx(ground)


def test_edges_are_the_objects_own_rim():
    labels = np.zeros((7, 7), int)
    labels[1:6, 1:6] = 1
    labels[1:6, 4:6] = 2
    edge = pictures.edge(labels)
    assert not edge[0].any()
    assert edge[1, 1:6].all()
    assert edge[3, 3]  # against the other object
    assert edge[3, 4]
    assert not edge[3, 2]


def test_an_object_at_the_border_has_no_rim_there():
    labels = np.ones((4, 4), int)
    assert not pictures.edge(labels, 2).any()


def test_outlines_lie_in_their_colours_over_nothing():
    inner, outer = np.zeros((2, 8, 8), bool)
    inner[3, 3], outer[1] = True, True
    image = decoded(pictures.outlines([(outer, "#ffb000"), (inner, "#ffffff")])).convert("RGBA")
    pixels = np.asarray(image)
    assert pixels[1, 5].tolist() == [255, 176, 0, 255]
    assert pixels[3, 3].tolist() == [255, 255, 255, 255]
    assert pixels[5, 5, 3] == 0


def test_the_bar_has_the_length_it_says():
    picture = np.zeros((200, 200, 3), np.float32)
    length = pictures.scale_bar(picture, um_per_pixel=0.5)
    assert length == 20
    assert picture[..., 0].sum(1).max() == length / 0.5


def test_jpeg_keeps_the_picture():
    y, x = np.mgrid[0:1:64j, 0:1:64j].astype(np.float32)
    picture = np.stack([y, x, 1 - x], -1)
    again = np.asarray(decoded(pictures.jpeg(picture, 90)), np.float32) / 255
    assert np.abs(again - picture).max() < 0.06


def test_viridis_begins_dark_ends_yellow_and_is_cut():
    low, high = viridis(np.array([-1.0, 2.0]))
    assert low == pytest.approx(rgb("440154"))
    assert high == pytest.approx(rgb("fde725"))


def test_labels_have_fixed_places_and_colours():
    names, colours = label_colours(["b", "pos", "a", "neg"], "neg", "pos")
    assert names == ["neg", "pos", "a", "b"]
    assert colours[:2] == ["#8b979c", "#d55e00"]
    assert len(set(colours)) == 4
    again, same = label_colours(["a", "pos", "neg"], "neg", "pos")
    assert dict(zip(again, same)).items() <= dict(zip(names, colours)).items()


def test_a_bar_is_in_pixels_where_nothing_tells_a_pixels_size():
    assert pictures.bar_unit(None, 1.0) == "px"
    assert pictures.bar_unit(1.0, 1.0) == "µm"  # the settings say so
    assert pictures.bar_unit(None, 0.65) == "µm"  # the images' headers say so
    assert pictures.bar_words(20, "µm") == "20\u00a0µm"
    said = pictures.bar_words(20, "px")
    assert said.startswith("20\u00a0px")
    assert "ingest.pixel_size_um" in said


def test_the_key_names_each_channel_in_the_colour_of_the_blend(screen):
    root = screen.of("P1").store
    key = pictures.key(root, "A01", 0)
    assert [name for name, _ in key] == list(screen.config.channel_names)
    _, colours = pictures.read(root, "A01", 0)
    assert [colour for _, colour in key] == [f"#{colour}" for colour in colours]
