import pytest

from lthbench.base.errors import UserError, near


@pytest.mark.parametrize(
    ("word", "words", "tail"),
    [
        ("magnitud", ["random", "magnitude"], "; did you mean 'magnitude'?"),
        ("zzz", ["random", "magnitude"], "; choose from magnitude, random"),
        ("anything", [], ""),
        (12, [1, 123], "; did you mean '123'?"),
    ],
)
def test_near_names_the_closest_word_or_all_of_them(word, words, tail):
    assert near(word, words) == tail


def test_a_user_error_is_a_value_error():
    assert issubclass(UserError, ValueError)
