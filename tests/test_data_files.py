"""JSON Lines and Parquet files: rows arrive as written, splits are disjoint, defects are named by file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hybrid_rl.data.files import FileSource
from hybrid_rl.errors import ConfigError, DataError
from hybrid_rl.images import FileImage, InlineImage, inline_png, open_image
from hybrid_rl.videos import FileVideo, FrameVideo, InlineVideo


def write_lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def source(path: Path, split: Any = "train", **args: Any) -> FileSource:
    return FileSource("mine", split, 0, str(path), **{"eval_fraction": 0.0, **args})


def only_prompt(folder: Path, row: dict[str, Any]) -> Any:
    return source(write_lines(folder / "one.jsonl", row))[0]


def many(folder: Path, count: int) -> Path:
    return write_lines(folder / "many.jsonl", *({"prompt": f"q{i}", "gold": i} for i in range(count)))


def test_a_plain_row_becomes_a_prompt(tmp_path: Path) -> None:
    prompt = only_prompt(tmp_path, {"prompt": "2+2?", "gold": 4, "thought": "two twos", "level": 3})
    assert (prompt.id, prompt.source, prompt.task, prompt.gold) == ("one/000001", "mine", "mine", "4")
    assert (prompt.messages[0].role, prompt.messages[0].text) == ("user", "2+2?")
    assert prompt.thought == "two twos"
    assert prompt.images == ()
    assert prompt.columns == {"level": 3}


def test_a_row_can_name_its_id_and_task(tmp_path: Path) -> None:
    prompt = only_prompt(tmp_path, {"id": 17, "prompt": "q", "gold": "x", "task": "algebra"})
    assert (prompt.id, prompt.task) == ("17", "algebra")


def test_answers_and_columns_stay_as_written(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "mixed.jsonl",
        {"prompt": "when?", "gold": "2024-05-01 10:00:00", "extra": {"a": [1, "b", None]}},
        {"prompt": "n?", "gold": "007", "extra": 2**70},
        {"prompt": "n?", "gold": 0.5},
        {"prompt": "a\u2028b", "gold": "\u00e9"},
    )
    rows = list(source(path))  # type: ignore[call-overload]
    assert [row.gold for row in rows] == ["2024-05-01 10:00:00", "007", "0.5", "\u00e9"]
    assert [dict(row.columns) for row in rows] == [{"extra": {"a": [1, "b", None]}}, {"extra": 2**70}, {}, {}]
    assert rows[3].messages[0].text == "a\u2028b"


def test_blank_lines_and_byte_order_mark_are_harmless(tmp_path: Path) -> None:
    path = tmp_path / "odd.json"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a", "gold": "1"}\r\n\r\n{"prompt": "b\xe2\x80\xa8", "gold": "2"}')
    assert [(p.id, p.gold) for p in source(path)] == [("odd/000001", "1"), ("odd/000003", "2")]  # type: ignore[attr-defined]


def test_chat_turns_and_images_by_path(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (4, 4), "red").save(tmp_path / "pictures" / "a.png")
    parts = [{"type": "image"}, {"type": "text", "text": "What "}, {"type": "text", "text": "colour?"}]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]
    prompt = only_prompt(tmp_path, {"messages": messages, "images": ["pictures/a.png"], "gold": "red"})
    assert [(m.role, m.text) for m in prompt.messages] == [("system", "Be brief."), ("user", "What colour?")]
    assert isinstance(prompt.images[0], FileImage)
    assert open_image(prompt.images[0]).getpixel((0, 0)) == (255, 0, 0)


def test_parquet_as_datasets_writes_it(tmp_path: Path) -> None:
    import datasets

    Image.new("RGB", (3, 5), "blue").save(tmp_path / "b.png")
    stored = {"bytes": inline_png(Image.new("RGB", (5, 3), "red")).data, "path": None}
    features = datasets.Features(
        {
            "messages": [{"role": datasets.Value("string"), "content": datasets.Value("string")}],
            "images": datasets.Sequence(datasets.Image()),
            "gold": datasets.Value("int64"),
            "level": datasets.Value("float32"),
        }
    )
    rows = {
        "messages": [[{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]],
        "images": [[stored, {"bytes": None, "path": "b.png"}], []],
        "gold": [1, 2],
        "level": [0.5, None],
    }
    table = datasets.Dataset.from_dict(rows, features=features).with_format("arrow")[:]
    import pyarrow.parquet

    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    loaded = source(tmp_path / "rows.parquet")
    assert [prompt.gold for prompt in loaded] == ["1", "2"]  # type: ignore[attr-defined]
    assert isinstance(loaded[0].images[0], InlineImage)
    assert [open_image(image).size for image in loaded[0].images] == [(5, 3), (3, 5)]
    assert loaded[1].images == ()
    assert dict(loaded[0].columns) == {"level": 0.5}
    assert loaded[1].id == "rows/000001"


def test_a_row_without_gold_in_parquet_is_named_by_number(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_dict({"prompt": ["a", "b"], "gold": ["1", None]}).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows\.parquet row 1 \(counted from 0\) has no `gold`"):
        source(tmp_path / "rows.parquet")


def test_splits_of_one_file_are_disjoint_complete_and_independent_of_the_seed(tmp_path: Path) -> None:
    path = str(many(tmp_path, 300))
    golds = [
        [{p.gold for p in FileSource("mine", split, seed, path, eval_fraction=0.2)} for split in ("train", "eval")]  # type: ignore[attr-defined]
        for seed in (0, 1)
    ]
    train, held_out = golds[0]
    assert golds[1] == golds[0]
    assert not train & held_out
    assert len(train | held_out) == 300
    assert 35 <= len(held_out) <= 85


def test_appended_rows_do_not_move_old_rows_to_the_other_split(tmp_path: Path) -> None:
    before = {p.gold for p in source(many(tmp_path, 100), "eval", eval_fraction=0.3)}  # type: ignore[attr-defined]
    after = {p.gold for p in source(many(tmp_path, 150), "eval", eval_fraction=0.3)}  # type: ignore[attr-defined]
    assert before == {gold for gold in after if int(gold) < 100}


@pytest.mark.parametrize("fraction", [0.0001, 0.9999])
def test_even_two_rows_serve_both_splits(tmp_path: Path, fraction: float) -> None:
    path = many(tmp_path, 2)
    assert [len(source(path, split, eval_fraction=fraction)) for split in ("train", "eval")] == [1, 1]


def test_evaluation_data_can_have_its_own_file(tmp_path: Path) -> None:
    path = many(tmp_path, 3)
    write_lines(tmp_path / "eval.jsonl", {"prompt": "e", "gold": "E"})
    pair = {"eval_path": "eval.jsonl", "search": [str(tmp_path)], "eval_fraction": 0.5}
    assert len(source(path, "train", **pair)) == 3
    assert source(path, "eval", **pair)[0].gold == "E"


def test_relative_paths_are_looked_up_in_the_search_folders_then_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base").mkdir()
    write_lines(tmp_path / "d.jsonl", {"prompt": "q", "gold": "here"})
    monkeypatch.chdir(tmp_path)
    assert source(Path("d.jsonl"), search=["elsewhere", "base"])[0].gold == "here"
    write_lines(tmp_path / "base" / "d.jsonl", {"prompt": "q", "gold": "base"})
    assert source(Path("d.jsonl"), search=["elsewhere", "base"])[0].gold == "base"


def test_brackets_in_a_file_name_are_not_a_pattern(tmp_path: Path) -> None:
    assert source(write_lines(tmp_path / "set[1]*.jsonl", {"prompt": "q", "gold": "x"}))[0].gold == "x"


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    old = source(write_lines(tmp_path / "d.jsonl", {"prompt": "q", "gold": "1"}))
    new = source(write_lines(tmp_path / "d.jsonl", {"prompt": "q", "gold": "2"}))
    assert (old[0].gold, new[0].gold) == ("1", "2")


def test_max_prompts_takes_the_first(tmp_path: Path) -> None:
    limited = source(many(tmp_path, 5), max_prompts=2)
    assert [p.gold for p in limited] == ["0", "1"]  # type: ignore[attr-defined]


GOOD = {"prompt": "q", "gold": "x"}
USER = {"role": "user", "content": "q"}


def test_videos_are_files_folders_lists_or_bytes(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for name in ("frame_10.png", "frame_9.png", ".hidden"):
        (frames / name).write_bytes(b"")
    (tmp_path / "a.mp4").write_bytes(b"")
    listed = ["frames/frame_9.png", "frames/frame_10.png"]
    timed = {"frames": "frames", "frames_per_second": 2}
    row = {**GOOD, "videos": ["a.mp4", "frames", listed, timed]}
    first, *of_frames = source(write_lines(tmp_path / "d.jsonl", row))[0].videos
    assert first == FileVideo(str(tmp_path / "a.mp4"))
    expected = tuple(FileImage(str(tmp_path / name)) for name in listed)  # 9 comes before 10
    assert of_frames == [FrameVideo(expected), FrameVideo(expected), FrameVideo(expected, 2.0)]
    import datasets

    stored = {"prompt": ["q"], "gold": ["x"], "videos": [[{"bytes": b"film", "path": None}]]}
    datasets.Dataset.from_dict(stored).to_parquet(tmp_path / "d.parquet")
    assert source(tmp_path / "d.parquet")[0].videos == (InlineVideo(b"film"),)


def test_marks_of_videos_are_counted_beside_those_of_images(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "a.png").write_bytes(b"")
    parts = [{"type": "image"}, {"type": "video"}, {"type": "text", "text": "q"}]
    row = {"messages": [{"role": "user", "content": parts}], "gold": "x", "images": ["a.png"], "videos": ["a.mp4"]}
    (prompt,) = source(write_lines(tmp_path / "d.jsonl", row))
    assert (len(prompt.images), len(prompt.videos), prompt.messages[0].text) == (1, 1, "q")
    with pytest.raises(DataError, match=r"d\.jsonl:1: `messages` show 1 videos but `videos` has 2"):
        source(write_lines(tmp_path / "d.jsonl", {**row, "videos": ["a.mp4"] * 2}))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"prompt": "q", "gold": }', r"d\.jsonl:2 is not JSON: Expecting value at column 25"),
        ('{"prompt": "q", "gold": NaN}', r"d\.jsonl:2 is not JSON: NaN"),
        ("[1, 2]", r"d\.jsonl:2 is not a JSON object but a list"),
        ("null", r"d\.jsonl:2 is not a JSON object but null"),
        ({"prompt": "q"}, r"d\.jsonl:2 has no `gold`; add"),
        ({"prompt": "q", "gold": "  "}, r"d\.jsonl:2: `gold` is empty"),
        ({"prompt": "q", "gold": True}, r"d\.jsonl:2: `gold` must be text or a number"),
        ({"gold": "x"}, r"d\.jsonl:2 has neither `prompt` nor `messages`"),
        ({**GOOD, "prompt": ""}, r"d\.jsonl:2: `prompt` is empty"),
        ({**GOOD, "prompt": [USER]}, r"d\.jsonl:2: `prompt` must be text; name .* `messages`"),
        ({**GOOD, "messages": [USER]}, r"d\.jsonl:2 has both `prompt` and `messages`"),
        ({"messages": [], "gold": "x"}, r"d\.jsonl:2: `messages` must be a list of turns"),
        ({"messages": ["q"], "gold": "x"}, r"d\.jsonl:2: a turn of `messages` must be"),
        ({"messages": [{"role": "tool", "content": "q"}], "gold": "x"}, r"d\.jsonl:2: .* has the role 'tool'"),
        ({"messages": [{"role": "user", "content": 5}], "gold": "x"}, r"d\.jsonl:2: the content of a user turn"),
        ({"messages": [USER, {"role": "assistant", "content": "x"}], "gold": "x"}, r"d\.jsonl:2: .*end with a user"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}], "gold": "x"}, r"show 1 images but .* has 0"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}], "gold": "x"}, r"show 1 videos but .* has 0"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}], "gold": "x"}, r"a part must be"),
        (
            {"messages": [{"role": "user", "content": [{"type": "video"}, {"type": "image"}]}], "gold": "x"},
            r"d\.jsonl:2: images stand before videos",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "video", "video": "a.mp4"}]}], "gold": "x"},
            r"the video part holds more than its type; list the videos in `videos`",
        ),
        ({**GOOD, "videos": ["gone.mp4"]}, r"d\.jsonl:2, video 1: there is no file .*gone\.mp4"),
        ({**GOOD, "videos": "a.mp4"}, r"d\.jsonl:2: `videos` must be a list"),
        ({**GOOD, "videos": [3]}, r"d\.jsonl:2, video 1 must be a path of a file or of a folder"),
        ({**GOOD, "videos": [[]]}, r"d\.jsonl:2, video 1 has no frames"),
        ({**GOOD, "videos": [["gone.png"]]}, r"d\.jsonl:2, video 1, frame 1: there is no file .*gone\.png"),
        ({**GOOD, "videos": [{"frames": "gone"}]}, r"d\.jsonl:2, video 1: there is no folder .*gone"),
        ({**GOOD, "videos": [{"frames": [], "fps": 2}]}, r"d\.jsonl:2, video 1 has 'fps', which is not read"),
        ({**GOOD, "videos": [{"frames": [], "frames_per_second": 0}]}, r"`frames_per_second` must be a number above 0"),
        ({**GOOD, "video": "a.mp4"}, r"d\.jsonl:2 has a column `video`, which is not read; .* `videos`"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}, {"type": "image"}]}], "gold": 1},
            r"images stand before the text of the first user turn",
        ),
        ({**GOOD, "images": ["gone.png"]}, r"d\.jsonl:2, image 1: there is no file .*gone\.png"),
        ({**GOOD, "images": "a.png"}, r"d\.jsonl:2: `images` must be a list"),
        ({**GOOD, "images": [3]}, r"d\.jsonl:2, image 1 must be a path"),
        ({**GOOD, "image": "a.png"}, r"d\.jsonl:2 has a column `image`, which is not read"),
        ({**GOOD, "thought": 3}, r"d\.jsonl:2: `thought` must be text"),
        ({**GOOD, "id": "d/000001"}, r"d\.jsonl:2 has the same id 'd/000001' as .*d\.jsonl:1"),
    ],
)
def test_a_defect_is_named_by_file_and_line(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        source(write_lines(tmp_path / "d.jsonl", GOOD, row))


def test_text_that_is_not_utf8_is_named_by_line(tmp_path: Path) -> None:
    path = many(tmp_path, 3000)
    path.write_bytes(path.read_bytes() + b'{"prompt": "\xff", "gold": "x"}\n' + b'{"prompt": "q", "gold": "x"}\n')
    with pytest.raises(DataError, match=r"many\.jsonl:3001 is not UTF-8"):
        source(path)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "d.jsonl").write_text(content)
    with pytest.raises(DataError, match=r"d\.jsonl has no rows"):
        source(tmp_path / "d.jsonl")


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data file .*gone\.jsonl"):
        source(tmp_path / "gone.jsonl")
    (tmp_path / "d.csv").write_text("a,b\n")
    with pytest.raises(DataError, match=r"unknown suffix '\.csv'; use \.jsonl"):
        source(tmp_path / "d.csv")
    (tmp_path / "d.parquet").write_text("not parquet")
    with pytest.raises(DataError, match=r"d\.parquet cannot be read"):
        source(tmp_path / "d.parquet")
    with pytest.raises(DataError, match="both training and evaluation data"):
        source(many(tmp_path, 2), eval_path="many.jsonl", search=[str(tmp_path)])


def test_a_split_without_rows_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of the 5 rows .* are kept for eval; give eval_path"):
        source(many(tmp_path, 5), "eval")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"eval_fraction": 1.0}, "eval_fraction is 1.0"),
        ({"eval_fraction": "some"}, "eval_fraction is 'some'"),
        ({"max_prompts": 0}, "max_prompts is 0"),
        ({"split": "test"}, "no split 'test'"),
    ],
)
def test_impossible_arguments_are_named(tmp_path: Path, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        source(many(tmp_path, 5), **args)
