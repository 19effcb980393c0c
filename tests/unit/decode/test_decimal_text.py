"""Decimal text to whole steps: exact against `decimal.Decimal`, strict about everything else, both twins alike."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_platform.decode.decimal_text import (
    MALFORMED,
    NEGATIVE,
    NOT_A_NUMBER,
    NOT_POSITIVE,
    OFF_GRID,
    OK,
    TOO_LARGE,
    Step,
    parse_level_lists,
    parse_quoted,
    parse_steps,
    step_of,
)

SIZES = ["0.1", "0.10", "0.01", "0.00001", "0.5", "0.25", "1", "10", "100", "2.5"]


def parse(text: str, step: Step, *, compiled: bool = True) -> tuple[int, int]:
    raw = np.frombuffer(b"x" + text.encode() + b"y", dtype=np.uint8)
    run = parse_steps.compiled if compiled else parse_steps
    return run(raw, 1, 1 + len(text.encode()), step)


@pytest.mark.parametrize(
    ("size", "step"),
    [("0.10", Step(1, 1)), ("0.5", Step(5, 1)), ("10", Step(10, 0)), ("1", Step(1, 0)), ("0.00001", Step(1, 5)), ("2.50", Step(25, 1))],
)
def test_step_of_a_size(size: str, step: Step) -> None:
    assert step_of(Decimal(size)) == step


@given(st.sampled_from(SIZES), st.integers(0, 10**12), st.integers(0, 8))
def test_a_multiple_of_the_step_comes_back_exactly_whatever_zeros_follow(size: str, steps: int, zeros: int) -> None:
    text = f"{Decimal(size) * steps:f}"
    if zeros:
        text += ("" if "." in text else ".") + "0" * zeros
    assert parse(text, step_of(Decimal(size))) == (OK, steps)


@given(st.decimals(min_value=0, max_value=10**9, allow_nan=False, allow_infinity=False, places=6), st.sampled_from(SIZES))
def test_agrees_with_decimal_on_the_grid_and_off_it(value: Decimal, size: str) -> None:
    steps = value / Decimal(size)
    expected = (OK, int(steps)) if steps == steps.to_integral_value() else (OFF_GRID, 0)
    assert parse(f"{value:f}", step_of(Decimal(size))) == expected


@given(st.text(alphabet='0123456789.eE+-nNaA "', max_size=24), st.sampled_from(SIZES))
def test_twins_agree_on_any_text(text: str, size: str) -> None:
    step = step_of(Decimal(size))
    assert parse(text, step, compiled=True) == parse(text, step, compiled=False)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", NOT_A_NUMBER),
        ("NaN", NOT_A_NUMBER),
        ("nan", NOT_A_NUMBER),
        ("inf", NOT_A_NUMBER),
        (".", NOT_A_NUMBER),
        ("1.2.3", NOT_A_NUMBER),
        ("1e", NOT_A_NUMBER),
        ("1e+", NOT_A_NUMBER),
        ("1,5", NOT_A_NUMBER),
        ("0x10", NOT_A_NUMBER),
        (" 1", NOT_A_NUMBER),
        ("-1", NEGATIVE),
        ("-0.1", NEGATIVE),
        ("0.123", OFF_GRID),
        ("9999999999999999999999", TOO_LARGE),
        ("1e300", TOO_LARGE),
    ],
)
def test_what_is_refused(text: str, status: int) -> None:
    assert parse(text, Step(1, 2)) == (status, 0)


@pytest.mark.parametrize(
    ("text", "steps"), [("1e-05", 1), ("1.5E-4", 15), ("2e3", 200_000_000), ("+3", 300_000), ("007.5", 750_000), (".5", 50_000), ("5.", 500_000)]
)
def test_forms_that_are_accepted(text: str, steps: int) -> None:
    assert parse(text, Step(1, 5)) == (OK, steps)


def test_whole_numbers_up_to_the_limit_of_64_bits() -> None:
    assert parse("1585699200245000123", Step(1, 0)) == (OK, 1_585_699_200_245_000_123)
    assert parse(str(2**63), Step(1, 0)) == (TOO_LARGE, 0)


def lists(*texts: str, compiled: bool = True) -> tuple[list[int], list[int], list[int], list[int]]:
    raw = np.frombuffer(("\n".join(texts) + "\n").encode(), dtype=np.uint8)
    n = len(texts)
    counts, status, ticks, lots = np.empty(n, np.int64), np.empty(n, np.int8), np.zeros(64, np.int64), np.zeros(64, np.int64)
    run = parse_level_lists.compiled if compiled else parse_level_lists
    total = run(raw, n, Step(1, 1), Step(1, 3), counts, status, ticks, lots)
    return counts.tolist(), status.tolist(), ticks[:total].tolist(), lots[:total].tolist()


def test_level_lists_with_and_without_blanks_and_quotes() -> None:
    found = lists('[["100.5","1.250"],["100.40","0.000"]]', "[]", '[["1.0", "2"], ["3", "4.5"]]', "[[7.0,8.001]]", "[ ]")
    assert found == ([2, 0, 2, 1, 0], [OK] * 5, [1005, 1004, 10, 30, 70], [1250, 0, 2000, 4500, 8001])


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ('[["100.5","1"', MALFORMED),
        ('[["100.5"]]', MALFORMED),
        ('[["100.5","1","2"]]', MALFORMED),
        ('["100.5","1"]', MALFORMED),
        ('[["100.5","1"]] x', MALFORMED),
        ("null", MALFORMED),
        ("", MALFORMED),
        ('[["NaN","1"]]', NOT_A_NUMBER),
        ('[["-100.5","1"]]', NEGATIVE),
        ('[["100.5","-1"]]', NEGATIVE),
        ('[["100.55","1"]]', OFF_GRID),
        ('[["0.0","1"]]', NOT_POSITIVE),
    ],
)
def test_a_bad_list_gives_a_status_and_no_levels_and_leaves_its_neighbours_alone(text: str, status: int) -> None:
    good = '[["100.5","1"]]'
    for compiled in (True, False):
        assert lists(good, f'[["1.0","1"],{text[1:]}' if text.startswith("[[") else text, good, compiled=compiled) == (
            [1, 0, 1],
            [OK, status, OK],
            [1005, 1005],
            [1000, 1000],
        )


def test_quoted_numbers_alternate_between_two_grids() -> None:
    raw = np.frombuffer(b'"100.5"\n"1.25"\n99\n"x"\n', dtype=np.uint8)
    steps, status = np.empty(4, np.int64), np.empty(4, np.int8)
    parse_quoted.compiled(raw, 4, Step(1, 1), Step(1, 2), steps, status)
    assert steps.tolist() == [1005, 125, 990, 0]
    assert status.tolist() == [OK, OK, OK, NOT_A_NUMBER]
