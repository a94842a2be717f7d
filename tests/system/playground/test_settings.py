"""The settings of a sampler on the page, in a real browser."""

from typing import Any

from tests.system.playground.service import ended, job_id, tiny, with_card


def settings(page: Any, sampler: str) -> None:
    tiny(page, "sample")
    page.select_option("#sample [data-part=sampler]", sampler)
    page.click("#sample summary:has-text('Settings')")


def slider(page: Any, name: str) -> Any:
    return page.locator(f"#sample .control:has([name={name}]) input[type=range]")


def test_a_setting_that_the_service_chooses_stands_in_the_middle_until_it_is_moved(page: Any) -> None:
    settings(page, "consistent_annealed")
    eta, typed = slider(page, "eta"), page.locator("#sample [name=eta]")

    def look() -> tuple[str, bool, str, str]:
        pale = float(eta.evaluate("e => getComputedStyle(e).opacity")) < 1
        return eta.input_value(), pale, eta.get_attribute("aria-valuetext"), typed.input_value()

    assert look() == ("500", True, "auto", "")
    assert typed.get_attribute("placeholder") == "auto"
    assert "Auto: the service chooses." in page.inner_text(f"#{typed.get_attribute('aria-describedby')}")
    eta.focus()
    page.keyboard.press("ArrowRight")
    place, pale, told, value = look()
    assert (place, pale, told) == ("501", False, value)
    assert 0.05 < float(value) < 1.5
    typed.fill("")
    assert look() == ("500", True, "auto", "")


def test_a_setting_of_the_card_stands_where_it_is(page: Any) -> None:
    settings(page, "annealed_langevin")
    levels = slider(page, "levels")
    assert levels.get_attribute("aria-valuetext") == "6"
    assert float(levels.input_value()) < 100
    assert float(levels.evaluate("e => getComputedStyle(e).opacity")) == 1
    levels.focus()
    for number in ("7", "8", "9"):  # a key leads to the next number
        page.keyboard.press("ArrowRight")
        assert page.input_value("#sample [name=levels]") == number


def test_a_default_of_the_card_is_told_in_place_of_the_samplers(page: Any) -> None:
    own = {"name": "dpmpp_2m_sde", "levels": 20, "sigma_min": 0.02, "eta": None, "churn": 2.0}
    with_card(page, "sample", sampler=own)
    settings(page, "dpmpp_2m_sde")

    def hint(name: str) -> str:
        described = page.get_attribute(f"#sample [name={name}]", "aria-describedby")
        return str(page.inner_text(f"#{described}"))

    assert "none by default" not in hint("churn")
    assert "tiny has 2 by default." in hint("churn")
    assert "own by default" not in hint("sigma_min")
    assert "tiny has 0.02 by default." in hint("sigma_min")
    assert "1 by default" in hint("eta"), "of which the card says nothing"
    assert "tiny has" not in hint("eta")


def test_a_teacher_that_is_another_version_here_is_told_of_as_such(page: Any) -> None:
    for teacher, told in (
        ("tiny version 1", "tiny version 1"),
        ("tiny version 7", "tiny version 7 (served here: version 1)"),
        ("gone version 1", "gone version 1 (served here: none)"),
    ):
        with_card(page, "sample", provenance={"flows": {"teacher": teacher}})
        assert page.text_content("#sample [data-part=facts]").endswith(f"Distilled from{told}")


def test_a_model_tells_how_long_it_was_trained_and_how_fast(page: Any) -> None:
    with_card(page, "sample", provenance={"images": 60000, "wall_seconds": 3818, "images_per_second": 313.8})
    assert "Training60,000 images, 64 min, 314 images/s" in page.text_content("#sample [data-part=facts]")


def test_the_sliders_of_the_two_ends_of_a_range_do_not_cross(page: Any) -> None:
    settings(page, "ancestral")
    highest, lowest = slider(page, "sigma_max"), slider(page, "sigma_min")

    def ends() -> tuple[float, float]:
        typed = [page.input_value(f"#sample [name={name}]") for name in ("sigma_min", "sigma_max")]
        return float(typed[0] or 0.01), float(typed[1] or 10)

    lowest.focus()
    page.keyboard.press("End")
    least, most = ends()
    assert 5 < least < most == 10
    assert float(lowest.input_value()) < float(highest.input_value())
    lowest.fill("500")
    highest.focus()
    page.keyboard.press("Home")
    least, most = ends()
    assert 0.3 < least < most < 0.4
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert ends() == (least, most)


def test_a_slider_ends_at_what_the_service_takes(page: Any, service: Any) -> None:
    """Sensible values of eta end at 1.5, where those of ancestral sampling do at 1."""
    settings(page, "ancestral")
    slider(page, "eta").focus()
    page.keyboard.press("End")
    assert page.input_value("#sample [name=eta]") == "1"
    page.fill("#sample [name=count]", "1")
    page.click("#sample .go")
    ended(page, "sample")
    assert service.job(job_id(page))["sampler"]["eta"] == 1


def test_ranges_are_those_of_the_setting_and_of_the_model(page: Any) -> None:
    found = page.evaluate(
        """async () => {
            const { sensible, toPlace, toValue } = await import("/static/parts/ranges.js");
            const card = { sigma_min: 0.01, sigma_max: 10 };
            const steps = sensible({ name: "steps", maximum: 100000 }, card);
            return {
                few: sensible({ name: "levels", maximum: 40 }, card),
                fewest: sensible({ name: "levels", maximum: 40 }, card, 4),
                usual: sensible({ name: "levels", maximum: 100000 }, card, 20),
                open: sensible({ name: "eta", maximum: null }, card),
                steps,
                sigma: sensible({ name: "churn_min", maximum: 1e4 }, card),
                none: sensible({ name: "step_size", maximum: 1 }, card),
                there: [10, 500, 7, 1000].map((value) => toPlace(steps, value)),
                back: [0, 1000, 500].map((place) => toValue(steps, place, true)),
            };
        }"""
    )
    assert found == {
        "few": {"low": 5, "high": 40, "logarithmic": False},
        "fewest": {"low": 1, "high": 8, "logarithmic": False},
        "usual": {"low": 5, "high": 100, "logarithmic": False},
        "open": {"low": 0.05, "high": 1.5, "logarithmic": False},
        "steps": {"low": 10, "high": 500, "logarithmic": True},
        "sigma": {"low": 0.01, "high": 10, "logarithmic": True},
        "none": None,
        "there": [0, 1000, 0, 1000],
        "back": [10, 500, 71],
    }


def test_what_is_no_number_is_refused_as_it_was_typed(page: Any) -> None:
    settings(page, "consistent_annealed")
    page.fill("#sample [name=sigmas]", "5, abc")
    page.click("#sample .go")
    trouble = "#sample form .trouble:not([hidden])"
    page.wait_for_selector(trouble)
    assert "abc" in page.inner_text(trouble)
    assert "a number" in page.inner_text(trouble)
