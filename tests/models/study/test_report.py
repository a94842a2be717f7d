from pathlib import Path

from models.study.report import Section, Table, page_of, write


def section(number: str) -> Section:
    return Section("waves", "Waves", b"picture", [Table(["height", "count"], [["1.5", number], ["2", "0"]])])


def test_a_page_that_is_not_there_is_made(tmp_path: Path) -> None:
    paths = write(tmp_path / "docs" / "study", "sea", {"height": 1.5}, [section("7")], "measure --waves")
    assert [p.relative_to(tmp_path / "docs").as_posix() for p in paths] == [
        "study/sea.json",
        "study/waves.png",
        "study.md",
    ]
    assert paths[1].read_bytes() == b"picture"
    text = paths[2].read_text()
    assert "![Waves](study/waves.png)" in text
    assert "```sh\nmeasure --waves\n```" in text
    assert "| height | count |\n| --- | --- |\n| 1.5 | 7 |\n| 2 | 0 |" in text


def test_what_people_wrote_stays_and_what_was_measured_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "study"
    write(out, "sea", {}, [section("7")], "measure")
    page = page_of(out)
    page.write_text(f"# Seas\n\nBefore.\n\n{page.read_text()}\nAfter \\1.\n")
    write(out, "sea", {}, [section("8")], r"measure '\1' again")
    text = page.read_text()
    assert text.startswith("# Seas\n\nBefore.\n\n<!-- waves")
    assert text.endswith("\nAfter \\1.\n")
    assert "| 1.5 | 8 |" in text
    assert r"measure '\1' again" in text
    assert "| 1.5 | 7 |" not in text
    assert text.count("![Waves]") == 1


def test_a_section_without_marks_goes_to_the_end(tmp_path: Path) -> None:
    page_of(tmp_path / "study").write_text("# Seas\n")
    write(tmp_path / "study", "sea", {}, [section("7")], "measure")
    assert page_of(tmp_path / "study").read_text().startswith("# Seas\n\n<!-- waves")
