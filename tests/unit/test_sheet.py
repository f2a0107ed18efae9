import numpy as np
import pytest
from PIL import Image

from irope.policy import CacheEvent
from irope.sheet import MARKS, Mark, Row, filmstrip, save_sheet

BLUE, RED = MARKS[CacheEvent.PROMPT_SWITCH][0], MARKS[CacheEvent.SCENE_CUT][0]


def flat(colour, height=16, width=24) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def places(sheet: Image.Image, colour) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels of exactly this colour."""
    return np.nonzero((np.asarray(sheet) == np.array(colour)).all(axis=-1))


def bar_column(sheet: Image.Image, colour) -> float:
    """Where the tallest run of this colour stands: the bar, not the letters."""
    counts = (np.asarray(sheet) == np.array(colour)).all(axis=-1).sum(axis=0)
    return float(np.mean(np.nonzero(counts == counts.max())[0]))


COLOURS = [[(10, 200, 30), (20, 60, 180)], [(250, 120, 0), (90, 0, 90)]]
ROWS = [Row("first", [flat(c) for c in COLOURS[0]]), Row("second", [flat(c) for c in COLOURS[1]], "a note")]


@pytest.mark.parametrize("scale", [1, 3])
def test_every_frame_is_shown_once_enlarged_by_whole_pixels_in_its_row_and_column(scale):
    sheet = filmstrip(ROWS, [0, 5], scale=scale)
    corner = {}
    for row, colours in enumerate(COLOURS):
        for column, colour in enumerate(colours):
            y, x = places(sheet, colour)
            assert (np.ptp(y) + 1, np.ptp(x) + 1, len(y)) == (16 * scale, 24 * scale, 16 * 24 * scale**2)
            corner[row, column] = (y.min(), x.min())
    assert corner[0, 0][0] == corner[0, 1][0] < corner[1, 0][0] == corner[1, 1][0]
    assert corner[0, 0][1] == corner[1, 0][1] < corner[0, 1][1] == corner[1, 1][1]


def test_pixels_are_repeated_not_smoothed():
    frame = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    sheet = np.asarray(filmstrip([Row("r", [frame])], [0], scale=4))
    large = np.kron(frame, np.ones((4, 4, 1), np.uint8))
    windows = np.lib.stride_tricks.sliding_window_view(sheet, large.shape)[:, :, 0]
    assert (windows[:, :, 0, 0] == large[0, 0]).all(axis=-1).any()
    assert any(
        (windows[y, x] == large).all() for y, x in np.argwhere((windows[:, :, 0, 0] == large[0, 0]).all(axis=-1))
    )


def test_marks_stand_before_the_column_they_change():
    frames = [flat(c) for c in [(1, 2, 3), (4, 5, 6), (7, 8, 9)]]
    marks = [Mark(5, CacheEvent.PROMPT_SWITCH, "new prompt"), Mark(7.5, CacheEvent.SCENE_CUT)]
    sheet = filmstrip([Row("r", frames)], [0, 5, 10], marks)
    left = [places(sheet, frame[0, 0])[1].min() for frame in frames]
    right = [places(sheet, frame[0, 0])[1].max() for frame in frames]
    assert right[0] < bar_column(sheet, BLUE) < left[1]
    assert right[1] < bar_column(sheet, RED) < left[2]


def test_marks_keep_off_the_frames_and_show_in_the_legend_only_if_used():
    plain = filmstrip(ROWS, [0, 5])
    marked = filmstrip(ROWS, [0, 5], [Mark(5, CacheEvent.SCENE_CUT)])
    for colour in (c for row in COLOURS for c in row):
        assert len(places(plain, colour)[0]) == len(places(marked, colour)[0])
    assert len(places(plain, RED)[0]) == 0
    assert len(places(marked, BLUE)[0]) == 0
    assert marked.height > plain.height


def test_a_missing_frame_leaves_its_place_empty():
    sheet = filmstrip([Row("a", [flat((9, 9, 200)), None]), ROWS[0]], [0, 5])
    y, x = places(sheet, (9, 9, 200))
    assert (np.asarray(sheet)[y.min() : y.max(), x.max() + 12 :] > 100).all()


def test_small_frames_become_about_120_pixels_wide_and_large_ones_stay():
    assert np.ptp(places(filmstrip([Row("r", [flat((9, 9, 9), 64, 64)])], [0]), (9, 9, 9))[1]) + 1 == 128
    assert np.ptp(places(filmstrip([Row("r", [flat((9, 9, 9), 480, 832)])], [0]), (9, 9, 9))[1]) + 1 == 832


@pytest.mark.parametrize(
    ("rows", "times", "message"),
    [
        ([], [0], "at least one row"),
        ([Row("a", [])], [], "one time"),
        (ROWS, [5, 0], "rise"),
        (ROWS, [0, 5, 10], "'first' has 2 frames for 3 times"),
        ([Row("a", [flat(1), flat(1, 8, 8)])], [0, 5], "one size"),
        ([Row("a", [None])], [0], "no frame"),
        ([Row("a", [flat(1) / 2])], [0], "uint8"),
    ],
)
def test_rows_that_do_not_fit_are_refused(rows, times, message):
    with pytest.raises(ValueError, match=message):
        filmstrip(rows, times)


def test_saved_file_is_the_sheet_and_leaves_no_part(tmp_path):
    sheet = filmstrip(ROWS, [0, 5], title="a title")
    save_sheet(sheet, tmp_path / "new" / "sheet.png")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["sheet.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "sheet.png")), np.asarray(sheet))
