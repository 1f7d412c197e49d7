"""data/annotations/: each format is read as its own library, or plain numpy, reads it."""

from __future__ import annotations

import base64
import io
import itertools
import json
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest
import scipy.io
from matplotlib.path import Path as Outline
from PIL import Image
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from scipy import ndimage

from data.annotations import (
    coco,
    colours,
    cvat,
    label_studio,
    labelme,
    matlab,
    outlines,
    recognition,
    supervisely,
    yolo,
)
from data.annotations.drawing import draw
from data.annotations.regions import AnnotationError
from data.masks import MaskError

HEIGHT, WIDTH = SIZE = (30, 40)
IDS = {"background": 0, "road": 1, "tree": 2}
STAR = [[20.3, 2.2], [25.1, 27.4], [4.7, 9.9], [37.2, 8.4], [9.6, 26.8]]  # crosses itself
TRIANGLE = [[3.24, 4.12], [33.68, 7.24], [14.92, 26.64]]


def drawn(annotations, size=SIZE, rest=0):
    (photo,) = annotations.photos
    return draw(photo, size, IDS, rest)


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def centres_inside(ring, size=SIZE):
    """The pixels whose centres lie in a polygon that does not cross itself, by matplotlib."""
    rows, columns = np.indices(size) + 0.5
    points = np.stack([columns.ravel(), rows.ravel()], axis=1)
    return Outline(ring).contains_points(points).reshape(size)


def agree_but_for_edges(got, expected):
    around = np.ones((3, 3), bool)
    assert not (ndimage.binary_erosion(expected, around) & ~got).any()
    assert not (got & ~ndimage.binary_dilation(expected, around)).any()
    assert (got != expected).sum() <= 0.1 * expected.sum()


def shape(label, points, kind="polygon", **more):
    return {"label": label, "points": points, "shape_type": kind, **more}


def labelme_document(*shapes, **more):
    size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
    return {"version": "5.5.0", "imagePath": "a.jpg", "shapes": list(shapes), **size, **more}


# Labelme, and how polygons become pixels.


def test_polygons_cover_the_pixels_whose_centres_they_hold():
    got = drawn(labelme.read(labelme_document(shape("road", TRIANGLE)))) == 1
    agree_but_for_edges(got, centres_inside(TRIANGLE))


def test_whole_coordinates_are_edges_between_pixels_and_later_shapes_lie_above():
    square = [[2, 3], [14, 3], [14, 12], [2, 12]]
    got = drawn(
        labelme.read(
            labelme_document(shape("road", square), shape("tree", [[8, 6], [20, 17]], "rectangle"))
        )
    )
    expected = np.zeros(SIZE, np.uint8)
    expected[3:12, 2:14] = 1
    expected[6:17, 8:20] = 2
    np.testing.assert_array_equal(got, expected)


def test_a_polygon_is_cut_off_at_the_photos_edges():
    corners = [[-1e9, -5], [10, -5], [10, 1e9], [-1e9, 1e9]]
    got = drawn(labelme.read(labelme_document(shape("road", corners))))
    expected = np.zeros(SIZE, np.uint8)
    expected[:, :10] = 1
    np.testing.assert_array_equal(got, expected)


def test_a_corner_far_outside_of_the_photo_does_not_move_the_edges_inside():
    far = np.array([[5, 2], [5 + 100 * WIDTH, 2 + 50 * HEIGHT], [5, 25]])
    got = drawn(labelme.read(labelme_document(shape("road", far.tolist())))) == 1
    agree_but_for_edges(got, centres_inside(far))
    beside = labelme_document(shape("road", [[-900, 3], [-800, 3], [-800, 9]]))
    around = labelme_document(shape("road", [[-1e9, -1e9], [1e9, -1e9], [1e9, 1e9], [-1e9, 1e9]]))
    assert not drawn(labelme.read(beside)).any() and drawn(labelme.read(around)).all()


def test_a_window_shows_of_a_polygon_what_lies_in_it():
    """Corners all around the window, as they come; matplotlib says what lies inside of each."""
    generator = np.random.default_rng(0)
    low, high = np.array([0.0, 0.0]), np.array([WIDTH, HEIGHT])
    rows, columns = np.indices(SIZE) + 0.5
    points = np.stack([columns.ravel(), rows.ravel()], axis=1)
    for count in (3, 4, 5):
        for _ in range(20):
            around = np.sort(generator.uniform(0, 2 * np.pi, count))
            away = generator.uniform(5, 90, (count, 1))
            ring = [WIDTH / 2, HEIGHT / 2] + away * np.stack([np.cos(around), np.sin(around)], 1)
            cut = outlines.clipped(ring, low, high)
            assert (cut >= low - 1e-9).all() and (cut <= high + 1e-9).all()
            seen = Outline(cut).contains_points(points) if len(cut) else np.zeros(len(points))
            np.testing.assert_array_equal(seen, Outline(ring).contains_points(points))


def test_a_size_that_is_not_the_photos_is_said_before_a_mask_of_it_is_made():
    read = labelme.read(labelme_document(shape("road", TRIANGLE), imageHeight=10**9))
    with pytest.raises(AnnotationError, match="the mask is 40x1000000000 and its image 40x30"):
        drawn(read)


def test_a_circle_is_round():
    got = drawn(labelme.read(labelme_document(shape("tree", [[20, 15], [20, 5.5]], "circle"))))
    rows, columns = np.indices(SIZE) + 0.5
    agree_but_for_edges(got == 2, np.hypot(rows - 15, columns - 20) <= 9.5)


def test_a_mask_lies_at_its_box():
    bitmap = np.random.default_rng(0).integers(0, 2, (6, 9)).astype(bool)
    encoded = base64.b64encode(png(bitmap)).decode()
    document = labelme_document(shape("tree", [[35, 4], [43, 9]], "mask", mask=encoded))
    expected = np.zeros(SIZE, np.uint8)
    expected[4:10, 35:] = np.where(bitmap, 2, 0)[:, :5]
    np.testing.assert_array_equal(drawn(labelme.read(document)), expected)


def test_version_3_has_no_kinds_of_shapes_and_maybe_no_size():
    old = {"version": "3.16.7", "imagePath": "a.jpg", "lineColor": [0, 255, 0, 128]}
    old["shapes"] = [{"label": "road", "line_color": None, "points": TRIANGLE}]
    new = labelme_document(shape("road", TRIANGLE))
    np.testing.assert_array_equal(drawn(labelme.read(old)), drawn(labelme.read(new)))


def test_polygons_outside_of_the_photo_are_counted():
    inside, outside = shape("road", TRIANGLE), shape("road", [[40, 3], [50, 3], [45, 9]])
    read = labelme.read(labelme_document(inside, outside))
    assert read.photos[0].not_drawn() == {"polygon outside of its photo": 1}
    assert yolo.read("0 -1 0 -0.5 0 -1 1\n0 0 0 1 0 1 1", ["road"]).photos[0].not_drawn() == {
        "polygon outside of its photo": 1
    }
    assert not labelme.read(labelme_document(inside)).photos[0].not_drawn()


def test_what_is_no_region_is_counted():
    shapes = [
        shape("road", [[1, 1]], "point"),
        shape("road", [[1, 1], [9, 9]], "line"),
        shape("road", [[1, 1], [9, 9], [2, 5]], "linestrip"),
        shape("road", [[1, 1], [9, 9]]),
    ]
    read = labelme.read(labelme_document(*shapes))
    assert read.photos[0].left_out == {
        "point": 1,
        "line": 2,
        "polygon of fewer than three corners": 1,
    }
    assert not drawn(read).any()


def test_a_rectangle_has_two_corners_or_all_four_and_any_other_number_is_refused():
    left_top, right_top, right_bottom, left_bottom = [[3, 4], [20, 4], [20, 15], [3, 15]]
    expected = np.zeros(SIZE, np.uint8)
    expected[4:15, 3:20] = 1
    for points in (
        [left_top, right_bottom],
        [right_top, left_bottom],
        [left_top, right_top, right_bottom, left_bottom],
        [right_bottom, left_bottom, left_top, right_top],
    ):
        read = labelme.read(labelme_document(shape("road", points, "rectangle")))
        np.testing.assert_array_equal(drawn(read), expected)
    for points in ([left_top], [left_top, right_top, right_bottom], []):
        read = labelme.read(labelme_document(shape("road", points, "rectangle")))
        message = rf"a rectangle \(road\) has {len(points)} corners?, not 2 or 4; draw it again"
        with pytest.raises(AnnotationError, match=message):
            drawn(read)


def test_polygons_without_an_area_are_counted():
    on_lines = ([[3, 3], [9, 9], [5, 5], [30.1, 30.1]], [[7, 2], [7, 9], [7, 5]], [[4, 4]] * 3)
    read = labelme.read(labelme_document(*(shape("road", points) for points in on_lines)))
    assert read.photos[0].left_out == {"polygon without an area": 3}
    assert not drawn(read).any()
    crossed = [[3, 3], [20, 3], [3, 20], [20, 20]]  # its halves' areas cancel out
    read = labelme.read(labelme_document(shape("road", crossed)))
    assert not read.photos[0].left_out and drawn(read).any()


def test_spaces_around_a_label_of_labelme_are_no_part_of_it():
    read = labelme.read(labelme_document(shape(" road ", TRIANGLE)))
    assert read.labels() == {"road"} and drawn(read).any()


def test_a_class_that_is_not_listed_is_named():
    read = labelme.read(labelme_document(shape("bush", TRIANGLE)))
    with pytest.raises(AnnotationError, match=r"'bush' is not in classes\.txt; add the name there"):
        drawn(read)
    ignored = labelme.read(labelme_document(shape("__ignore__", TRIANGLE)))
    assert set(np.unique(drawn(ignored))) == {0, 255}


# COCO.


def coco_document(*annotations, **image):
    return {
        "images": [{"id": 7, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH, **image}],
        "categories": [{"id": 3, "name": "tree"}, {"id": 1, "name": "road"}],
        "annotations": [
            {"id": i, "image_id": 7, "iscrowd": 0, "bbox": [0, 0, 1, 1], "area": 1, **entry}
            for i, entry in enumerate(annotations, 1)
        ],
    }


def flat(ring):
    return [value for point in ring for value in point]


def test_coco_is_drawn_as_pycocotools_does(tmp_path):
    noise = np.random.default_rng(1).integers(0, 2, SIZE).astype(np.uint8)
    compressed = run_lengths.encode(np.asfortranarray(noise))
    counts = [len(list(run)) for _, run in itertools.groupby(noise.ravel(order="F"))]
    plain = counts if noise[0, 0] == 0 else [0, *counts]
    document = coco_document(
        {"category_id": 1, "segmentation": [flat(TRIANGLE), flat([[30, 20], [38, 20], [34, 29]])]},
        {"category_id": 3, "segmentation": [flat(STAR)]},
        {
            "category_id": 1,
            "segmentation": {"size": [*SIZE], "counts": compressed["counts"].decode()},
        },
        {"category_id": 3, "segmentation": {"size": [*SIZE], "counts": plain}, "iscrowd": 1},
    )
    file = tmp_path / "coco.json"
    for last in range(1, 5):
        part = {**document, "annotations": document["annotations"][:last]}
        file.write_text(json.dumps(part))
        reference = COCO(str(file))
        expected = np.zeros(SIZE, np.uint8)
        for entry in part["annotations"]:
            name = reference.loadCats(entry["category_id"])[0]["name"]
            expected[reference.annToMask(entry).astype(bool)] = IDS[name]
        read = recognition.read(file.read_bytes())
        assert (read.kind, read.class_names) == ("COCO", ("road", "tree"))
        np.testing.assert_array_equal(drawn(read), expected)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], r"annotation 1 \(tree\) is a box without a polygon; export the segmentation"),
        ({"size": [5, 6], "counts": [30]}, "has a mask of 6x5, and its image 40x30"),
        ({"size": [*SIZE], "counts": [1, 2]}, "the run lengths of a mask are not those of 40x30"),
    ],
)
def test_coco_that_cannot_be_drawn_says_why(segmentation, message):
    read = coco.read(coco_document({"category_id": 3, "segmentation": segmentation}))
    with pytest.raises(AnnotationError, match=message):
        drawn(read)


def test_roboflows_category_of_categories_is_no_class():
    document = coco_document({"category_id": 2, "segmentation": [flat(TRIANGLE)]})
    document["categories"] = [
        {"id": 0, "name": "things", "supercategory": "none"},
        {"id": 1, "name": "tree", "supercategory": "things"},
        {"id": 2, "name": "road", "supercategory": "things"},
    ]
    assert coco.read(document).class_names == ("tree", "road")


@pytest.mark.parametrize(
    ("key", "other", "message"),
    [
        ("images", {"file_name": "b.jpg"}, "'a.jpg' and 'b.jpg' both have the id 7 in its images"),
        ("categories", {"name": "car"}, "'tree' and 'car' both have the id 3 in its categories"),
    ],
)
def test_coco_with_one_id_for_two_is_refused_and_an_entry_that_is_there_twice_counts_once(
    key, other, message
):
    document = coco_document({"category_id": 3, "segmentation": [flat(TRIANGLE)]})
    once = coco.read(document)
    document[key].append(dict(document[key][0]))
    twice = coco.read(document)
    assert len(twice.photos) == 1 and {*twice.class_names} == {*once.class_names}
    np.testing.assert_array_equal(drawn(twice), drawn(once))
    document[key].append(document[key][0] | other)
    with pytest.raises(AnnotationError, match=message):
        coco.read(document)


def test_annotations_of_no_image_of_coco_are_counted_and_if_all_are_it_is_an_error():
    road = {"category_id": 1, "segmentation": [flat(TRIANGLE)]}
    read = coco.read(coco_document(road, road | {"image_id": 8}, road | {"image_id": "7"}))
    assert read.left_out == {"annotation of an image that the file does not list": 2}
    np.testing.assert_array_equal(drawn(read), drawn(coco.read(coco_document(road))))
    assert not coco.read(coco_document(road)).left_out
    with pytest.raises(AnnotationError, match="an image_id is '7', an image's id 7"):
        coco.read(coco_document(road | {"image_id": "7"}))


# YOLO.


def test_yolo_draws_shares_of_the_photo():
    line = " ".join(f"{x / WIDTH:.8f} {y / HEIGHT:.8f}" for x, y in TRIANGLE)
    got = drawn(yolo.read(f"1 {line}\n\n", ["tree", "road"]))
    expected = drawn(labelme.read(labelme_document(shape("road", TRIANGLE))))
    np.testing.assert_array_equal(got, expected)
    assert yolo.is_yolo(f"1.0 {line}") and not yolo.is_yolo(f"1.5 {line}")
    np.testing.assert_array_equal(drawn(yolo.read(f"1.0 {line}", ["tree", "road"])), expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2 0 0 1 0 1 1", "line 1 has class 2, and only 2 are named; correct data.yaml"),
        ("0 0 0 1 0 1", "line 1 has an odd number of coordinates"),
        ("0 .5 .5 .1 .1", "line 1 is a box, not a polygon; export the segmentation"),
        ("0 0 0 1 x 1 1", "line 1 is not a class and coordinates"),
        ("0 0 0 1 0 1 1\n\n-1 0 0 1 0 1 1", "line 3 begins with -1, which is no class"),
        ("1.5 0 0 1 0 1 1", r"line 1 begins with 1\.5, which is no class"),
        ("0 0 0 1 0 1 1\n0 0 0", "line 2 ends after 3 numbers; export it again"),
    ],
)
def test_yolo_that_cannot_be_drawn_says_why(text, message):
    with pytest.raises(AnnotationError, match=message):
        drawn(yolo.read(text, ["tree", "road"]))


def test_names_of_yolo_are_a_list_or_numbered():
    assert yolo.read_names("names: [tree, road]\nnc: 2") == ("tree", "road")
    assert yolo.read_names("names:\n  1: road\n  0: tree") == ("tree", "road")
    assert yolo.read_names("train: images") == ()
    assert yolo.read_names("names: [3, 4.5, ' no ']") == ("3", "4.5", "no")
    assert yolo.read_names("names: []") == yolo.read_names("names:") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: {1: tree}", "not numbered 0, 1, 2"),
        ("names: {0: tree, '1': road}", "not numbered 0, 1, 2"),
        ("names: tree", r"its names are no list, but 'tree'; write names: \[road, tree\]"),
        ("names: 5", "its names are no list, but 5"),
        ("names: 0", "its names are no list, but 0"),
        ("names: [yes, no]", "one of its names is True, which is no text; put it in quotes"),
        ("names: [tree, [road]]", r"one of its names is \['road'\]"),
        ("names: [", "is not YAML"),
        ("names: [a]\n---\nnames: [b]", "is not YAML with one document"),
        ("names: !mine [a]", "is not YAML"),
        ("made: 2026-99-99\nnames: [a]", "is not YAML"),
    ],
)
def test_names_of_yolo_that_are_no_names_are_refused(text, message):
    with pytest.raises(AnnotationError, match=message) as caught:
        yolo.read_names(text)
    assert "\n" not in str(caught.value)


# Label Studio.


def task(*results, image="/data/upload/1/0123abcd-a.jpg", size=SIZE):
    size = {"original_height": size[0], "original_width": size[1], "image_rotation": 0}
    return {"id": 1, "data": {"image": image}, "annotations": [{"result": [
        {**size, "type": kind, "value": {**value, kind: labels}} for kind, labels, value in results
    ]}]}  # fmt: skip


def test_label_studio_draws_percent_of_the_photo():
    scale = np.array([100 / WIDTH, 100 / HEIGHT])
    points = (np.array(TRIANGLE) * scale).tolist()
    read = recognition.read(
        json.dumps([task(("polygonlabels", ["road"], {"points": points}))]).encode()
    )
    expected = drawn(labelme.read(labelme_document(shape("road", TRIANGLE))))
    assert read.kind == "Label Studio"
    np.testing.assert_array_equal(drawn(read), expected)


def test_label_studio_turns_boxes_and_ellipses_clockwise_around_their_point():
    """numpy says what is expected: its SDK knows no ellipse. Boxes it turns: test_exports.py."""
    box = {"x": 50, "y": 10, "width": 25, "height": 20, "rotation": 90}  # of 40 x 30 pixels
    got = drawn(label_studio.read([task(("rectanglelabels", ["road"], box))]))
    expected = np.zeros(SIZE, np.uint8)
    expected[3:13, 14:20] = 1
    np.testing.assert_array_equal(got, expected)
    ellipse = {"x": 50, "y": 50, "radiusX": 30, "radiusY": 20, "rotation": 90}
    got = drawn(label_studio.read([task(("ellipselabels", ["road"], ellipse))])) == 1
    rows, columns = np.indices(SIZE) + 0.5
    agree_but_for_edges(got, ((rows - 15) / 12) ** 2 + ((columns - 20) / 6) ** 2 <= 1)


def test_a_brush_of_label_studio_is_decoded_as_its_converter_encodes_it():
    """The bytes are of label-studio-converter 0.0.59: encode_rle of the mask's RGBA pixels."""
    packed = [0, 0, 0, 120, 57, 27, 252, 112, 24, 108, 2, 223, 253, 176, 11, 127, 246, 192, 45,
              255, 225, 176, 0]  # fmt: skip
    expected = np.zeros((5, 6), np.uint8)
    expected[1:4, 2:5] = expected[0, 0] = 2
    value = {"format": "rle", "rle": packed}
    read = label_studio.read([task(("brushlabels", ["tree"], value), size=(5, 6))])
    np.testing.assert_array_equal(drawn(read, (5, 6)), expected)
    with pytest.raises(AnnotationError, match="cut off"):
        label_studio.decode(packed[:-4], (5, 6))
    with pytest.raises(AnnotationError, match="not those of 5x5"):
        label_studio.decode(packed, (5, 5))


def test_a_box_around_a_polygon_of_its_class_is_no_region():
    around = {"x": 0, "y": 0, "width": 60, "height": 60}
    polygon = {"points": [[1, 1], [59, 1], [61, 61]]}  # the box was rounded
    results = [("rectanglelabels", ["road"], around), ("polygonlabels", ["road"], polygon)]
    read = label_studio.read([task(*results)])
    alone = drawn(label_studio.read([task(results[1])]))
    np.testing.assert_array_equal(drawn(read), alone)
    assert read.photos[0].left_out == {"box around a polygon of its class": 1}
    others = [task(("rectanglelabels", ["tree"], around), results[1])]
    others.append(task(("rectanglelabels", ["road"], around | {"width": 50}), results[1]))
    for other in others:
        assert not label_studio.read([other]).photos[0].left_out


def test_label_studio_may_name_the_class_of_a_region_apart():
    box = {"x": 50, "y": 10, "width": 25, "height": 20}
    apart = task(("labels", ["road"], box), ("rectangle", [], box))
    for result in apart["annotations"][0]["result"]:
        result["id"] = "its region's"
    read = label_studio.read([apart])
    np.testing.assert_array_equal(
        drawn(read), drawn(label_studio.read([task(("rectanglelabels", ["road"], box))]))
    )
    assert not read.photos[0].left_out


def test_label_studio_takes_the_last_annotation_that_was_not_skipped():
    first, second = (
        task(("polygonlabels", ["road"], {"points": [[0, 0], [50, 0], [50, 99]]})),
        task(),
    )
    first["annotations"] += [{"result": [], "was_cancelled": True}]
    second["annotations"] = []  # nobody has looked at this photo yet
    (photo,) = label_studio.read([first, second]).photos
    assert len(photo.regions) == 1


# CVAT.


def cvat_document(shapes):
    return ElementTree.fromstring(
        "<annotations><version>1.1</version><meta><task><labels>"
        "<label><name>tree</name></label><label><name>road</name></label></labels></task></meta>"
        f'<image id="0" name="a.jpg" width="{WIDTH}" height="{HEIGHT}">{shapes}</image>'
        "</annotations>"
    )


def test_cvat_draws_in_the_order_of_z():
    points = ";".join(f"{x},{y}" for x, y in TRIANGLE)
    noise = np.random.default_rng(2).integers(0, 2, (5, 7))
    runs = [len(list(run)) for _, run in itertools.groupby(noise.ravel())]
    runs = ", ".join(map(str, runs if noise[0, 0] == 0 else [0, *runs]))
    read = cvat.read(
        cvat_document(
            f'<mask label="tree" rle="{runs}" left="36" top="2" width="7" height="5" z_order="2"/>'
            '<box label="tree" xtl="8" ytl="6" xbr="20" ybr="16" z_order="1" rotation="90"/>'
            f'<polygon label="road" points="{points}" z_order="0"/>'
            '<polyline label="road" points="1,1;2,2"/><tag label="road"/>'
        )
    )
    expected = drawn(labelme.read(labelme_document(shape("road", TRIANGLE))))
    expected[5:17, 9:19] = 2
    expected[2:7, 36:] = np.where(noise[:, :4], 2, expected[2:7, 36:])
    np.testing.assert_array_equal(drawn(read), expected)
    assert read.class_names == ("tree", "road") and read.photos[0].left_out == {"polyline": 1}


def test_cvat_turns_ellipses_clockwise_around_their_centre():
    """numpy says what is expected, as datumaro reads no ellipse of CVAT's."""
    ellipse = '<ellipse label="road" cx="20" cy="15" rx="12" ry="5" rotation="30" z_order="0"/>'
    got = drawn(cvat.read(cvat_document(ellipse))) == IDS["road"]
    rows, columns = np.indices(SIZE) + 0.5
    along = (columns - 20) * np.cos(np.pi / 6) + (rows - 15) * np.sin(np.pi / 6)
    across = (rows - 15) * np.cos(np.pi / 6) - (columns - 20) * np.sin(np.pi / 6)
    agree_but_for_edges(got, (along / 12) ** 2 + (across / 5) ** 2 <= 1)


def test_cvat_that_cannot_be_drawn_says_why():
    mask = '<mask label="tree" rle="3, 4" left="0" top="0" width="7" height="5"/>'
    with pytest.raises(AnnotationError, match="are not those of 7x5"):
        drawn(cvat.read(cvat_document(mask)))
    video = b'<annotations><track id="0" label="tree"/></annotations>'
    with pytest.raises(AnnotationError, match="is of a video; export it from CVAT as"):
        recognition.read(video, xml=True)


# Supervisely.


def test_supervisely_has_holes_and_bitmaps():
    hole = [[12, 10], [18, 10], [18, 14], [12, 14]]
    bitmap = np.random.default_rng(3).integers(0, 2, (4, 6)).astype(bool)
    rgba = np.repeat(bitmap[..., None], 4, 2).astype(np.uint8) * 255
    packed = base64.b64encode(zlib.compress(png(rgba))).decode()
    points = {"exterior": TRIANGLE, "interior": [hole]}
    document = {
        "size": {"height": HEIGHT, "width": WIDTH},
        "objects": [
            {"classTitle": "road", "geometryType": "polygon", "points": points},
            {
                "classTitle": "tree",
                "geometryType": "bitmap",
                "bitmap": {"origin": [30, 20], "data": packed},
            },
            {"classTitle": "tree", "geometryType": "line", "points": points},
        ],
    }
    read = supervisely.read(document)
    expected = drawn(labelme.read(labelme_document(shape("road", TRIANGLE))))
    expected[10:14, 12:18] = 0
    expected[20:24, 30:36] = np.where(bitmap, 2, expected[20:24, 30:36])
    np.testing.assert_array_equal(drawn(read), expected)
    assert read.photos[0].left_out == {"line": 1}
    unpacked = base64.b64encode(png(rgba)).decode()
    document["objects"][1]["bitmap"]["data"] = unpacked
    np.testing.assert_array_equal(drawn(supervisely.read(document)), expected)


def test_supervisely_counts_pixels_with_whole_numbers():
    """As `_to_subpixel_coordinate_system_json` of its SDK says."""

    def read(kind, exterior):
        document = {"size": {"height": HEIGHT, "width": WIDTH}, "objects": []}
        points = {"exterior": exterior, "interior": []}
        document["objects"] = [{"classTitle": "road", "geometryType": kind, "points": points}]
        return drawn(supervisely.read(document))

    expected = np.zeros(SIZE, np.uint8)
    expected[4:9, 3:7] = 1
    for ends in ([[3, 4], [6, 8]], [[6, 8], [3, 4]], [[3.0, 4.1], [7.0, 9.1]]):
        np.testing.assert_array_equal(read("rectangle", ends), expected)
    whole = [[3, 4], [30, 6], [12, 25]]
    places = (np.array(whole) + 0.5).tolist()
    np.testing.assert_array_equal(read("polygon", whole), read("polygon", places))


# MATLAB and colours.


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.float64, np.bool_])
def test_a_label_map_of_matlab(kind):
    ids = np.random.default_rng(4).integers(0, 2, (5, 7)).astype(kind)
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"labels": ids, "title": "a name", "scale": 0.5})
    np.testing.assert_array_equal(matlab.read_ids(buffer.getvalue(), "a.mat"), ids)


def test_a_file_of_sbd_is_a_label_map_too():
    ids = np.arange(6, dtype=np.uint8).reshape(2, 3)
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"GTcls": {"Segmentation": ids, "Boundaries": np.zeros((2, 3))}})
    np.testing.assert_array_equal(matlab.read_ids(buffer.getvalue(), "a.mat"), ids)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": np.zeros((2, 2)), "b": np.ones((2, 2))}, r"holds 2 matrices .*\(a, b\); save the"),
        ({"a": np.full((2, 2), 0.5)}, "holds 0 matrices"),
        ({"a": np.array([[0, 300]])}, "has ids from 0 to 300"),
    ],
)
def test_a_file_of_matlab_that_is_no_label_map(content, message):
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, content)
    with pytest.raises(MaskError, match=message):
        matlab.read_ids(buffer.getvalue(), "a.mat")
    with pytest.raises(MaskError, match=r"a\.mat: cannot be read as MATLAB's"):
        matlab.read_ids(buffer.getvalue()[:100], "a.mat")


def test_a_file_of_matlab_7_3_is_refused_with_the_remedy():
    text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Nov 30 2026 HDF5 schema 1.00 ."
    header = text.ljust(124) + b"\x00\x02IM"  # version 2.0, little-endian
    content = header.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n" + bytes(1000)
    with pytest.raises(MaskError) as caught:
        matlab.read_ids(content, "labels/train/a.mat")
    expected = "labels/train/a.mat: is of MATLAB's version 7.3; save it with '-v7'."
    assert str(caught.value) == expected


LABELMAP = (
    "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\ntree:0,128,0::\n"
)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_become_ids(mode):
    by_name = colours.read_labelmap(LABELMAP)
    read = colours.ColourReader({colour: IDS[name] for name, colour in by_name.items()})
    picture = Image.fromarray(
        np.array([[[128, 64, 128], [0, 128, 0], [0, 0, 0], [224, 224, 192]]], np.uint8)
    )
    picture = picture.quantize(4) if mode == "P" else picture.convert(mode)
    assert read(png(np.asarray(picture)) if mode != "P" else saved(picture), "a").tolist() == [
        [1, 2, 0, 255]
    ]


def saved(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_black_and_white_are_colours_and_ids_stay_ids():
    read = colours.ColourReader({(0, 0, 0): 0, (255, 255, 255): 1})
    black_and_white = np.array([[0, 255]], np.uint8)
    assert read(png(black_and_white), "a").tolist() == [[0, 1]]
    assert read(saved(Image.fromarray(black_and_white).convert("1")), "a").tolist() == [[0, 1]]
    assert read(png(np.array([[0, 1, 255]], np.uint8)), "a").tolist() == [[0, 1, 255]]


def test_a_stray_colour_in_a_palette_of_classes_does_not_make_ids_of_its_indices():
    read = colours.ColourReader({(0, 0, 0): 0, (255, 0, 0): 1, (0, 255, 0): 2})
    indexed = Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8), "P")
    indexed.putpalette([0, 0, 0, 0, 255, 0, 255, 0, 0, 1, 2, 3])
    with pytest.raises(MaskError, match=r"a: 1 colour of no class, such as #010203 \(25\.0% of"):
        read(saved(indexed), "a")
    indexed.putpalette([0, 0, 0, 0, 0, 200, 200, 0, 200, 1, 2, 3])  # colours that mean nothing
    assert read(saved(indexed), "a").tolist() == [[0, 1, 2, 3]]
    of_grey = colours.ColourReader({(2, 2, 2): 0, (1, 1, 1): 1})
    with pytest.raises(MaskError, match="a: 1 colour of no class, such as #030303"):
        of_grey(png(np.array([[1, 2, 3]], np.uint8)), "a")


def test_a_colour_of_no_class_is_named():
    read = colours.ColourReader({(0, 0, 0): 0, (255, 0, 0): 1})
    pixels = np.zeros((10, 10, 3), np.uint8)
    pixels[0, 0] = 18, 52, 86
    with pytest.raises(MaskError, match=r"a: 1 colour of no class, such as #123456 \(1\.0% of"):
        read(png(pixels), "a")
    pixels[..., 0] = np.arange(100).reshape(10, 10)
    with pytest.raises(MaskError, match="saved with smoothed edges, or as JPEG"):
        read(png(pixels), "a")
    with pytest.raises(MaskError, match=r"a: cannot be read as an image \(not a PNG\)"):
        read(b"JPEG", "a")


def test_lists_of_colours_that_cannot_be_read():
    assert colours.split_hex("street light #0aFF10") == ("street light", (10, 255, 16))
    assert colours.split_hex("C#") == ("C#", None)
    with pytest.raises(AnnotationError, match="line 1 is not name:red,green,blue"):
        colours.read_labelmap("road:1,2::")
    with pytest.raises(AnnotationError, match="line 2 is not name:red,green,blue"):
        colours.read_labelmap("road:::\ntree\n")
    for colour in ("0,256,0", "-1,0,0"):
        with pytest.raises(AnnotationError, match="line 2 has a colour outside of 0 to 255"):
            colours.read_labelmap(f"road:1,2,3::\ntree:{colour}::\n")
    assert colours.read_labelmap("road:::\ntree: 0,128,0 ::") == {
        "road": None,
        "tree": (0, 128, 0),
    }
    values = "Pixel Value, Class\n0, background\n3, road\n"
    assert colours.read_values(values) == {"background": 0, "road": 3}
    with pytest.raises(AnnotationError, match="line 2 is not the value of a pixel and a class"):
        colours.read_values("Pixel Value, Class\nroad,1\n")


# Recognition.


@pytest.mark.parametrize(
    ("content", "xml", "message"),
    [
        (b'{"shapes": [', False, "cannot be read as JSON"),
        (b"\xff\xfe{}", False, "cannot be read as JSON"),
        (b"<annotations>", True, "cannot be read as XML"),
        (b'{"shapes": [{"points": []}]}', False, r"is no whole annotation \(KeyError: 'label'\)"),
        (b'{"images": [{}], "annotations": [], "categories": []}', False, "is no whole annotation"),
        (b'[{"data": {"image": "a"}, "annotations": [{}]}]', False, "is no whole annotation"),
        (b'<annotations><image name="a"/></annotations>', True, "is no whole annotation"),
        (b'{"shapes": [{"label": "a", "points": [[0, 0], [1, NaN], [2, 2]]}]}', False, "no finite"),
        (
            b'{"shapes": [{"label": "a", "points": [[0, 0], [1, 1e300], [2, 2]]}]}',
            False,
            "beyond 1e",
        ),
        (b'{"shapes": [{"label": "a", "points": "x"}]}', False, "not pairs of numbers"),
    ],
)
def test_damaged_files_say_so(content, xml, message):
    with pytest.raises(AnnotationError, match=message) as caught:
        recognition.read(content, xml=xml)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"{}", b"[]", b"3", b'{"annotations": [], "images": []}'])
def test_other_json_is_nothing(content):
    assert recognition.read(content) is None
    assert recognition.read(b"<annotation><object/></annotation>", xml=True) is None
