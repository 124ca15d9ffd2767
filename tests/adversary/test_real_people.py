"""What came out when real files and real people met the project, by number, and its tests."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
ITEMS = {
    1: "test_a_row_means_what_its_author_meant",  # white space is content
    2: "test_2_other_keys_and_10_changes_are_said_once",
    3: "test_a_text_that_the_template_drops_is_missed",
    4: "test_4_tokens_are_those_of_the_tokenizers_own_template",
    5: "test_the_merged_model_stops_in_plain_transformers_where_its_template_ends_a_turn",
    6: "test_6_names_of_splits_are_honored_and_said",
    7: "test_an_allowed_argument_keeps_losses_schedule_and_adapter",
    8: "test_the_saved_config_alone_repeats_the_run_bit_for_bit",
    9: "test_a_file_is_what_its_first_bytes_say",
    10: "test_a_students_first_hour_has_one_refusal_that_can_be_pasted",
    11: "test_11_a_text_alone_is_learned_whole",
    12: "test_an_adapter_of_peft_that_does_not_fit_is_refused_with_its_cause",
    13: "test_an_adapter_of_peft_is_trained_on_from_where_it_was",
    14: "test_a_command_says_what_it_does_before_it_takes_long",
    15: "test_a_bar_fits_one_line_in_any_encoding",
    16: "test_a_conversation_is_written_as_in_training",  # by Ollama
    17: "test_no_text_leaves_its_cell",  # of a picture
    18: "test_check_is_in_russian",
    19: "test_what_a_command_writes_follows_the_umask",
    20: "test_a_resumed_run_validates_where_the_whole_run_does_or_as_it_is_asked",
    21: "test_the_page_has_three_short_scripts",  # of the library
    22: "test_the_notebook_trains_compares_chats_and_exports",
}
"""One test for each item; docs/reliability.md names more."""


def test_every_item_has_a_test() -> None:
    assert ITEMS.keys() == set(range(1, 23))
    defined = {
        name
        for path in TESTS.rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text("utf-8"), re.MULTILINE)
    }
    assert {*ITEMS.values()} <= defined
