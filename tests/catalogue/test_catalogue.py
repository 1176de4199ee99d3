"""What must hold for every method, from one table: the checks of `limbeck check`."""

from __future__ import annotations

import pytest
from catalogue import ROWS, Row

from limbeck.contract import CHECKS, SEARCH_CHECKS, Check
from limbeck.contract.hard import compiles
from limbeck.contract.running import resumes
from limbeck.contract.searching import can_search
from limbeck.contract.values import terms_are_scalars
from limbeck.methods import METHODS

PLAIN = [check for check in CHECKS.values() if check is not compiles]  # which takes seconds
rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)
searchable = pytest.mark.parametrize("row", [row for row in ROWS if row.searchable], ids=lambda row: row.label)


def test_every_method_of_the_package_has_a_row() -> None:
    assert {row.method for row in ROWS if "+" not in row.method} == set(METHODS)


@rows
def test_terms_are_scalars(row: Row) -> None:
    terms_are_scalars(row)


@rows
@pytest.mark.parametrize("check", PLAIN, ids=lambda check: check.__name__)
def test_the_contract_holds(check: Check, row: Row) -> None:
    check(row)


@pytest.mark.parametrize("row", [row for row in ROWS if row.method in ("kd", "at") and row.task == "classification"],
                         ids=lambda row: row.label)
def test_some_terms_compile(row: Row) -> None:
    compiles(row)


@pytest.mark.slow
@rows
def test_every_methods_terms_compile(row: Row) -> None:
    compiles(row)


@rows
def test_what_can_be_searched_is_known(row: Row) -> None:
    assert can_search(row) == row.searchable


@searchable
@pytest.mark.parametrize("check", SEARCH_CHECKS.values(), ids=lambda check: check.__name__)
def test_any_methods_weights_can_be_searched(check: Check, row: Row) -> None:
    check(row)


@searchable
def test_a_search_stopped_and_resumed_equals_one_never_stopped(row: Row) -> None:
    resumes(row, search=True)
