"""How names with parameters are read and written."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import SpecError
from bench.spec import (
    Call,
    Parameter,
    Range,
    bind,
    parse_call,
    parse_pipeline,
    split_pipeline,
)

PARAMETERS = (
    Parameter("share", type="float", range=Range(0, 1, below=True)),
    Parameter("epochs", 3, "int", Range(0)),
    Parameter("student", "plain", "str"),
    Parameter("keep", False, "bool"),
    Parameter("extra", None),
)

finite = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)
names = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
arguments = st.fixed_dictionaries(
    {"share": st.floats(0, 1, exclude_max=True) | st.just(0)},
    optional={
        "epochs": st.integers(0, 10**30),
        "student": st.text(),
        "keep": st.booleans(),
        "extra": values,
    },
)
calls = st.builds(
    Call,
    names,
    st.lists(values, max_size=3).map(tuple),
    st.dictionaries(st.sampled_from("abc"), values).map(lambda named: tuple(named.items())),
)


@st.composite
def writings(draw: st.DrawFn, given_values: dict[str, object]) -> str:
    """Write the values as a call: some by position, the others by name in any order."""
    leading = 0
    while leading < len(PARAMETERS) and PARAMETERS[leading].name in given_values:
        leading += 1
    by_position = draw(st.integers(0, leading))
    positional = [given_values[p.name] for p in PARAMETERS[:by_position]]
    named = [(p.name, given_values[p.name]) for p in PARAMETERS if p.name in given_values]
    return str(Call("prune", tuple(positional), tuple(draw(st.permutations(named[by_position:])))))


def canonical(text: str) -> str:
    return str(bind(parse_call(text), PARAMETERS))


def refusal(text: str, *parameters: Parameter) -> str:
    with pytest.raises(SpecError) as caught:
        bind(parse_call(text), parameters or PARAMETERS)
    return str(caught.value)


@given(st.data(), arguments)
def test_the_canonical_form_is_a_fixed_point(data: st.DataObject, given_values: dict) -> None:
    once = canonical(data.draw(writings(given_values)))
    assert canonical(once) == once
    assert bind(parse_call(once), PARAMETERS) == parse_call(once)


@given(st.data(), arguments)
def test_equal_calls_are_written_alike(data: st.DataObject, given_values: dict) -> None:
    first, second = (canonical(data.draw(writings(given_values))) for _ in range(2))
    assert first == second


@given(calls)
def test_a_written_call_is_read_back_as_it_was(call: Call) -> None:
    assert parse_call(str(call)) == call


@given(st.lists(calls, min_size=1, max_size=4).map(tuple))
def test_a_written_pipeline_is_read_back_as_it_was(steps: tuple[Call, ...]) -> None:
    assert parse_pipeline(" + ".join(map(str, steps))) == steps


@given(st.text(st.sampled_from("ab01.+-*()[]{}'\"\\,=:# \n"), max_size=20))
def test_any_text_is_read_or_refused_with_a_spec_error(text: str) -> None:
    try:
        steps = parse_pipeline(text)
    except SpecError:
        return
    assert all(step.name for step in steps)


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("bf16", Call("bf16")),
        ("bf16()", Call("bf16")),
        ("  bf16 ( ) ", Call("bf16")),
        ("prune(0.5)", Call("prune", (0.5,))),
        ("prune(0.5,)", Call("prune", (0.5,))),
        ("prune(-1, 'a', [1, (2,)])", Call("prune", (-1, "a", [1, (2,)]))),
        ("prune(share=1, keep=True)", Call("prune", (), (("share", 1), ("keep", True)))),
        ("folder:/data/my images", Call("folder:/data/my images")),
        ("dir/my.py:net(width=8)", Call("dir/my.py:net", (), (("width", 8),))),
    ],
)
def test_names_and_parameters_are_read(text: str, call: Call) -> None:
    assert parse_call(text) == call


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("a", ("a",)),
        (" a+b ", ("a", "b")),
        ("a(1) + b(x=2) + c", ("a(1)", "b(x=2)", "c")),
        ("a('x + y') + b", ("a('x + y')", "b")),
        ('a("it\'s + so") + b', ('a("it\'s + so")', "b")),
        (r"a('it\'s + \"so\"') + b", (r"a('it\'s + \"so\"')", "b")),
        (r"a('\\') + b", (r"a('\\')", "b")),
        ("a(')') + b", ("a(')')", "b")),
        ("distill('net(width=1)', weight=+1) + b", ("distill('net(width=1)', weight=+1)", "b")),
    ],
)
def test_a_pipeline_is_split_at_plus_outside_quotes_and_parentheses(
    text: str, steps: tuple[str, ...]
) -> None:
    assert split_pipeline(text) == steps


@pytest.mark.parametrize("text", ["", " ", "a +", "+ a", "a + + b"])
def test_a_pipeline_with_an_empty_step_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="has an empty step") as caught:
        parse_pipeline(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no name"),
        ("(0.5)", "has no name"),
        ("prune)", "closes a parenthesis that was never opened"),
        ("prune(0.5", "does not close its parenthesis"),
        ("prune(0.5) x", "does not close its parenthesis"),
        ("prune(0.5 0.6)", "cannot read the parameters '0.5 0.6'"),
        ("prune(share=)", "cannot read the parameters"),
        ("prune(1)(2)", "cannot read the parameters"),
        ("prune(1) + prune(2)", "cannot read the parameters"),
        ("prune(\0)", "cannot read the parameters"),
        pytest.param(f"prune({'-' * 20_000}1)", "cannot read the parameters", id="many signs"),
        pytest.param(f"prune({'[' * 20_000})", "cannot read the parameters", id="many brackets"),
        ("prune(**x)", r"'**' is not allowed"),
        ("prune(**{'share': 1})", r"'**' is not allowed"),
        ("prune(*[1])", "parameter '*[1]' is not a number, text or list"),
        ("prune(half)", "parameter 'half' is not a number, text or list. Text needs quotes."),
        ("prune(__import__('os'))", "is not a number, text or list"),
        ("prune(share=__import__('os').system('true'))", "is not a number, text or list"),
        ("prune([x for x in (1, 2)])", "is not a number, text or list"),
        ("prune(x for x in (1, 2))", "is not a number, text or list"),
        ("prune(share := 1)", "is not a number, text or list"),
        ("prune(2 * 3)", "is not a number, text or list"),
        ("prune(f'{1}')", "is not a number, text or list"),
        ("prune(lambda: 1)", "is not a number, text or list"),
        ("prune({[]: 1})", "is not a number, text or list"),
        ("prune({'a': 1})", "parameter {'a': 1} is not a number, text or list"),
        ("prune(b'a')", "parameter b'a' is not a number, text or list"),
        ("prune(1j)", "parameter 1j is not a number, text or list"),
        ("prune(...)", "parameter '...' is not a number, text or list"),
        ("prune(1e999)", "is not a number, text or list"),
        ("prune([-1e999])", "is not a number, text or list"),
    ],
)
def test_what_cannot_be_read_is_quoted_in_the_error(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_call(text)
    assert message in str(caught.value)
    assert repr(text.strip()) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("prune(0.5)", "prune(0.5)"),
        ("prune(share=0.5)", "prune(0.5)"),
        ("prune(0.50, 3)", "prune(0.5)"),
        ("prune(5e-1, epochs=3, student='plain', keep=False, extra=None)", "prune(0.5)"),
        ("prune(0)", "prune(0.0)"),
        ("prune(0.5, 4)", "prune(0.5, epochs=4)"),
        ('prune(0.5, student="x", epochs=1)', "prune(0.5, epochs=1, student='x')"),
        ("prune(0.5, keep=True, extra=[1, 'a'])", "prune(0.5, keep=True, extra=[1, 'a'])"),
    ],
)
def test_the_canonical_form_leaves_out_what_need_not_be_said(text: str, form: str) -> None:
    assert canonical(text) == form


def test_a_first_parameter_with_its_default_leaves_the_others_named() -> None:
    parameters = (Parameter("data", "digits"), Parameter("width", 16, "int"))
    assert str(bind(parse_call("net('digits', 8)"), parameters)) == "net(width=8)"
    assert str(bind(parse_call("net('mine', 16)"), parameters)) == "net('mine')"
    assert str(bind(parse_call("net()"), parameters)) == "net"


def test_a_keyword_only_first_parameter_is_written_by_name() -> None:
    share = Parameter("share", type="float", keyword_only=True)
    assert str(bind(parse_call("prune(0.5)"), [share])) == "prune(share=0.5)"


def test_a_truth_value_is_not_taken_for_the_default_one() -> None:
    assert str(bind(parse_call("a(True)"), [Parameter("x", 1)])) == "a(True)"
    assert str(bind(parse_call("a(1)"), [Parameter("x", 1)])) == "a"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "prune(0.1, 2, 'a', True, 5, 6)",
            "prune(0.1, 2, 'a', True, 5, 6): takes the parameters share, epochs, student, keep, "
            "extra, got 6 values.",
        ),
        (
            "prune(0.1, epoch=2)",
            "prune(0.1, epoch=2): no parameter 'epoch'. Did you mean 'epochs'? It takes the "
            "parameters share, epochs, student, keep, extra.",
        ),
        (
            "prune(0.1, zzz=2)",
            "prune(0.1, zzz=2): no parameter 'zzz'. It takes the parameters share, epochs, "
            "student, keep, extra.",
        ),
        ("prune(0.1, share=0.2)", "prune(0.1, share=0.2): parameter 'share' is given twice."),
        (
            "prune(share=0.1, share=0.2)",
            "prune(share=0.1, share=0.2): parameter 'share' is given twice.",
        ),
        ("prune", "prune: parameter 'share' is missing: write prune(share=...)."),
        ("prune(epochs=1)", "prune(epochs=1): parameter 'share' is missing"),
        ("prune('0.5')", "prune('0.5'): share must be a number, got '0.5'."),
        ("prune(True)", "prune(True): share must be a number, got True."),
        ("prune(None)", "prune(None): share must be a number, got None."),
        ("prune(0.5, 1.0)", "epochs must be a whole number, got 1.0."),
        ("prune(0.5, True)", "epochs must be a whole number, got True."),
        ("prune(0.5, student=1)", "student must be text in quotes, got 1."),
        ("prune(0.5, keep=1)", "keep must be True or False, got 1."),
        ("prune(1)", "prune(1): share must be from 0 to below 1, got 1."),
        ("prune(-0.1)", "prune(-0.1): share must be from 0 to below 1, got -0.1."),
        ("prune(0.5, -1)", "epochs must be 0 or more, got -1."),
    ],
)
def test_wrong_arguments_are_explained(text: str, message: str) -> None:
    assert message in refusal(text)


def test_arguments_of_a_name_without_parameters_are_explained() -> None:
    with pytest.raises(SpecError) as caught:
        bind(parse_call("bf16(1)"), ())
    assert str(caught.value) == "bf16(1): takes no parameters, got 1 values."


def test_a_whole_number_that_no_float_can_hold_is_refused() -> None:
    assert "x is too large" in refusal(f"a({10**400})", Parameter("x", type="float"))


@pytest.mark.parametrize(
    ("limits", "inside", "outside", "text"),
    [
        (Range(), (-1e9, 1e9), (), "any number"),
        (Range(1), (1, 1e9), (0.99, -inf), "1 or more"),
        (Range(0, 1), (0, 1), (-0.01, 1.01), "from 0 to 1"),
        (Range(0, 1, below=True), (0, 0.99), (1,), "from 0 to below 1"),
    ],
)
def test_a_range_holds_its_ends_unless_it_stays_below(
    limits: Range, inside: tuple[float, ...], outside: tuple[float, ...], text: str
) -> None:
    assert all(value in limits for value in inside)
    assert not any(value in limits for value in outside)
    assert str(limits) == text
