"""Attacks over HTTP itself, beside a victim."""

import pytest

from tests.system.attacks.frame import Target

ATTACKS = (
    "wide_json",
    "deep_json",
    "large_uploads",
    "pictures_in_json",
    "largest_jobs",
    "bodies_where_none_is_taken",
    "bodies_that_do_not_come",
    "headers_without_end",
    "chunks_of_a_byte",
    "trailers_without_sense",
    "headers_without_sense",
    "probes",
    "what_threads_answer",
    "forms_in_other_codecs",
    "requests_far_ahead",
    "waits",
    "streams",
    "the_document",
    "questions",
    "wrong_keys",
    "small_pictures",
)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_victim_is_served(target: Target, attack: str) -> None:
    target.attacked("wire", attack)
