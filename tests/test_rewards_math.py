"""Mathematics by value: rules worked by hand, laws of numbers, hostile texts, and the shared cases where they are."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.final_answer import box_run, final_answer
from rewards.math_answer import math_answer, math_boxed, math_final, math_response, math_value

CASES = Path(__file__).parents[2] / "shared" / "reward_cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="the shared reward cases are not on this machine")


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        # numbers
        ("0.25", r"\frac14", 1),
        ("3 1/7", r"\frac{22}{7}", 1),
        (r"-2\frac{1}{2}", "-2.5", 1),
        ("12,345.5", "12345.5", 1),
        ("12.345,5", "12345.5", 1),
        (r"7\,500", "7500", 1),
        ("7 5", "75", 0),
        (r"4.2\times 10^{3}", "4200", 1),
        ("6e-3", "0.006", 1),
        (r"0.\overline{27}", "3/11", 1),
        ("12.5%", "1/8", 1),
        (r"12.5\text{ percent}", r"12.5\%", 1),
        ("2.5 million", "2500000", 1),
        ("３７", "37", 1),
        ("३७", "37", 1),
        ("¾", "0.75", 1),
        ("2³", "8", 1),
        ("0.333333", "1/3", 1),  # a value rounded to six digits
        ("0.333", "1/3", 0),
        ("0.999999", "1", 0),  # an integer has no need of rounding
        ("1" * 70, "1" * 69 + "2", 0),
        (r"\frac{1}{2000!}", r"\frac{1}{2001!}", 0),
        ("1/0", "0", 0),
        (r"1^{\infty}", "1", 0),
        # expressions
        ("3*sin(pi*x/4)", r"3\sin\left(\frac{\pi x}{4}\right)", 1),
        (r"\sec^2 x", r"1+\tan^2 x", 1),
        ("sqrt(11+6*sqrt(2))", r"3+\sqrt{2}", 1),
        ("sqrt(x^2)", "x", 0),
        ("2^a*2^b", "2^{a+b}", 1),
        (r"\log_3 81", "4", 1),
        (r"\binom{6}{2}", "15", 1),
        (r"\sum_{k=1}^{n} k", r"\frac{n(n+1)}{2}", 1),
        ("x+1", "y+1", 0),
        # complex
        ("(2+i)^2", "3+4i", 1),
        ("3-4i", "3+4i", 0),
        # equations and relations
        ("y=3x-1", "6x-2y=2", 1),
        ("y=3x-1", "6x-2y=3", 0),
        ("x=4", "4", 1),
        ("4=5", "4", 0),
        ("-2x<-6", "x>3", 1),
        ("x>=3", "x>3", 0),
        (r"1 \le x < 5", "[1,5)", 1),
        (r"x<0 \text{ or } x>2", r"(-\infty,0)\cup(2,\infty)", 1),
        # structures
        ("(0,3]", "(0,3)", 0),
        (r"(2,3)\cup(0,1)", r"(0,1)\cup(2,3)", 1),
        ("3, 1, 2", r"\{1,2,3\}", 1),
        ("1, 2", "1, 2, 3", 0),
        (r"\pm 3", "-3, 3", 1),
        ("3", r"\pm 3", 0),
        ("(2,1)", "(1,2)", 0),
        ("[[1,2],[3,4]]", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", 1),
        (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", 0),
        ("6:4", "3:2", 1),
        ("[1,2]", "12", 0),
        # units and currencies
        (r"250\text{ cm}", "2.5 m", 1),
        (r"250\text{ cm}", "250 m", 0),
        (r"30^\circ", "30", 1),
        (r"\$4.50", "4.5", 1),
        ("9 EUR", "9 USD", 0),
        ("6 km/h", "6 km", 0),
        # words
        (r"\text{Increasing}", "increasing", 1),
        ("decreasing", "increasing", 0),
        (r"\text{(C)}", "C", 1),
    ],
)
def test_rules(answer: str, gold: str, expected: float) -> None:
    assert math_value(answer, gold) == expected


@pytest.mark.parametrize("gold", ["", "  ", "$$", r"\boxed{}", r"\frac{1}{", r"\left(1", "}{"])
def test_an_empty_or_unreadable_reference_is_no_verdict(gold: str) -> None:
    assert math_value("1", gold) is None


@pytest.mark.parametrize("grade", [math_answer, math_value])
@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        # a distance is an interval, with the same variable and the same ends
        ("|x-1|<2", "-1<x<3", 1),
        ("2>|1-x|", "(-1,3)", 1),
        (r"|2x+1|\le 5", "[-3,2]", 1),
        (r"|x-\sqrt{2}|<1", r"\sqrt{2}-1<x<\sqrt{2}+1", 1),
        ("|x|>3", r"(-\infty,-3)\cup(3,\infty)", 1),
        ("|x-1|>2", "x<-1 or x>3", 1),
        (r"|x-1|\le 2", "-1<x<3", 0),
        ("|x-1|<2", "-1<y<3", 0),
        ("|x-1|<2", "x<3", 0),
        ("|x-1|>2", "x>3", 0),
        ("|x^2-1|<2", "-1<x<3", 0),
        ("|x|<0", "x<0", 0),
        (r"\ln x<3", "x<3", 0),
        # a number of choices
        ("C(5,2)", "10", 1),
        ("{}_5C_2", "10", 1),
        ("C(5,2)", "25", 0),
        ("C(5,2)", "C(5,3)", 0),  # points
        ("x^5C_2", "10", 0),
        # units as a fraction, and behind pi
        (r"5 \frac{\text{km}}{\text{h}}", "5 km/h", 1),
        (r"18 \frac{km}{h}", "5 m/s", 1),
        (r"9.8 \frac{\text{m}}{\text{s}^2}", "9.8 m/s^2", 1),
        (r"\frac{5 \text{ km}}{\text{h}}", "5 km/h", 1),
        (r"\frac{5 \text{ km}}{\text{h}}", "5 m/s", 0),
        (r"\frac{5a}{b}", "5", 0),
        (r"5 \frac{\text{m}}{\text{s}}", "5 km/h", 0),
        (r"5 \frac{\text{km}}{\text{h}}", r"5 \frac{\text{h}}{\text{km}}", 0),
        (r"5\frac{m}{s}", "5", 0),  # variables
        ("25π square units", r"25\pi", 1),
        (r"25\pi \text{ cm}^2", r"25\pi", 1),
        ("25 square units", r"25\pi", 0),
        (r"25\pi r", r"25\pi", 0),
        (r"3\text{ apples or 4 pears}", "3", 0),
    ],
)
def test_other_ways_to_write_an_answer_and_their_near_misses(
    grade: Callable[[str, str], float | None], answer: str, gold: str, expected: float
) -> None:
    assert grade(answer, gold) == expected


@pytest.mark.parametrize(
    ("text", "gold", "expected"),
    [
        ("The area is 25π square units.", r"25\pi", 1),
        ("So it has an area of 25π square units", r"25\pi", 1),
        ("So it has an area of 25π square units", "25", 0),
        ("So we get\n```\n42\n```", "42", 1),
        ("```latex\n\\frac{1}{2}\n```", "0.5", 1),
        ("```python\n42\n```", "42", 0),  # a program
        ("```\n41\n42\n```", "42", 0),
        ("```\n42\n```\nNo, the answer is 43.", "42", 0),
        ("The answer is\n```\n3 or 4\n```", "4", 0),
        ("I think 42. Or maybe 43.", "43", 0),
    ],
)
def test_answers_in_prose_and_code(text: str, gold: str, expected: float) -> None:
    assert math_response(text, gold) == expected


def test_code_around_a_whole_answer_is_taken_off() -> None:
    assert math_answer("```\n42\n```", "42") == math_answer("`42`", "42") == 1
    assert math_answer("```python\nprint(42)\n```", "42") == 0


def test_writing_a_sum_down_is_not_adding_it_up() -> None:
    assert math_answer("3+4", "7") == 0
    assert math_value("3+4", "7") == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"so \boxed{\frac{1}{\sqrt{2}}} follows", r"\frac{1}{\sqrt{2}}"),
        (r"first \boxed{4}, finally \fbox{5}", "5"),
        (r"\boxed{\boxed{9}}", "9"),
        (r"cut off: \boxed{9", None),
        ("<think>8</think> The answer is 9.", "9"),
        ("<think>The answer is 9.", None),
        ("a</think>b<think>9", None),
        ("<answer>8</answer> no: <answer> 9 </answer>", "9"),
        ("Final answer:\n\n**9**", "9"),
        ("答案：9。", "9"),
        ("It follows that 4 + 5 = 9.<|im_end|>", "9"),
        ("Thus there are exactly 9 of them.", "9"),
        ("It is not 9.", None),
        ("```\nprint(9)\n```", None),
        ("Perhaps it is 7, 8, or 9 of them", None),
        ("", None),
    ],
)
def test_the_final_answer_is_found_in_one_place(text: str, found: str | None) -> None:
    assert final_answer(text) == found


def test_boxes_are_joined_only_for_a_list() -> None:
    text = r"\boxed{2} and \boxed{3}"
    assert box_run(text) == "2, 3"
    assert math_response(text, "3, 2") == 1
    assert math_response(text, "3") == 1
    assert math_response(text, "2") == 0


def test_boxed_and_final_read_only_where_they_should() -> None:
    assert math_boxed(r"thus \boxed{6}", "6") == 1
    assert math_boxed("thus 6", "6") == 0
    assert math_boxed(r"<think>\boxed{6}", "6") == 0
    assert math_final(r"<think>\boxed{5}</think>It is \boxed{6}", "6") == 1
    assert math_final(r"<think>\boxed{6}</think>It is \boxed{5}", "6") == 0
    assert math_final(r"<think>\boxed{6}</think>", "6") == 0


@given(st.fractions(max_denominator=10**6))
def test_a_fraction_is_itself_in_every_notation(value: Fraction) -> None:
    above, below = value.numerator, value.denominator
    written = [
        f"{above}/{below}",
        rf"\frac{{{above}}}{{{below}}}",
        f"({above})/({below})",
        rf"\dfrac{{{2 * above}}}{{{2 * below}}}",
    ]
    assert all(math_value(a, b) == 1 for a in written for b in written)
    assert math_value(written[0], rf"\frac{{{above + 1}}}{{{below}}}") == 0


@given(st.decimals(-(10**9), 10**9, places=4))
def test_a_decimal_is_its_fraction_with_and_without_separators(value: object) -> None:
    exact = Fraction(str(value))
    text = f"{exact.numerator}/{exact.denominator}"
    assert math_value(f"{value:.4f}", text) == 1
    assert math_value(f"{value:,.4f}", text) == 1


@given(st.integers(-(10**40), 10**40))
def test_separators_and_scripts_do_not_change_an_integer(value: int) -> None:
    assert math_value(f"{value:,}", str(value)) == 1
    arabic = str(value).translate({ord(str(d)): chr(0x660 + d) for d in range(10)})
    assert math_value(arabic, str(value)) == 1
    assert math_value(str(value + 1), str(value)) == 0


@given(
    st.text(alphabet="0123456789+-*/^_(){}[]|,.;:<>=!%&\\ abcxyzeifracsqrtlog$\n", max_size=60),
    st.sampled_from(["7", "x+1", "1,2"]),
)
def test_any_text_gets_a_verdict(text: str, gold: str) -> None:
    assert math_value(text, gold) in (0.0, 1.0)
    assert math_response(text, gold) in (0.0, 1.0)


INJECTIONS = [
    "__import__('os').system('touch {}')",
    "open('{}','w').write('x') or 7",
    "eval(\"open('{}','w')\")",
    "[open('{}','w') for _ in [0]][0]",
    "sympify(\"open('{}','w')\")",
    "\\immediate\\write18{{touch {}}}",
    "(lambda: open('{}','w'))()",
    "7 if open('{}','w') else 0",
]


@pytest.mark.parametrize("text", INJECTIONS)
def test_no_text_is_executed(text: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    attack = text.format(marker)
    for reward in (math_answer, math_value, math_response, math_boxed):
        assert reward(attack, "7") == 0
        assert reward(rf"\boxed{{{attack}}}", "7") == 0
    math_value("7", attack)  # nor as a reference
    assert not marker.exists()


HEAVY = [
    "9^{9^{9^{9}}}",
    "(10^{10^{10}})!",
    "99999999!",
    r"\sin(10^{10^{10}})",
    r"\binom{10^9}{10^8}",
    r"\sum_{k=1}^{10^9} k",
    "(a+b+c+d)^{9999}-(a+b+c+d)^{9998}",
    "(x+1)^{123456789}",
    "2**(2**(2**(2**99)))",
    "(" * 3000 + "1" + ")" * 3000,
    "{" * 3000 + "}" * 3000,
    "1+" * 2000 + "1",
    "-" * 4000 + "1",
    r"\sqrt{" * 200 + "2" + "}" * 200,
    r"\frac{1}{" * 200 + "2" + "}" * 200,
    "|" * 2001,
    "x" * 4000,
    "7 " * 2000,
    "{1,2," * 400,
    r"\int_0^1 x^{x^{x^{x}}} dx",
]


@pytest.mark.parametrize("text", HEAVY, ids=range(len(HEAVY)))
def test_heavy_texts_cost_little(text: str) -> None:
    start = time.process_time()
    assert not math_value(text, "7")
    assert not math_value(text, "x^2-1")
    assert not math_response(f"The answer is ${text}$.", "7")
    math_value("7", text)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "unit", ["\\boxed{7} ", "<think>", "$", "\\(", "answer is ", " ", "\n", "**", "7, ", "```", "(", "<answer>"]
)
def test_a_megabyte_costs_little(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    start = time.process_time()
    math_response(text, "1, 2")
    math_boxed(text, "7")
    assert time.process_time() - start < 2


def test_threads_give_the_same_verdicts() -> None:
    pairs = [
        ("sqrt(8)", r"2\sqrt{2}", 1),
        (r"\sin^2 t+\cos^2 t", "1", 1),
        ("x^2", "x^3", 0),
        ("e^2", "7.389056", 1),
    ] * 5
    wrong: list[object] = []

    def check() -> None:
        wrong.extend(p for p in pairs if math_value(p[0], p[1]) != p[2])

    threads = [threading.Thread(target=check) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_numbers_need_no_computer_algebra() -> None:
    program = (
        "import sys; from rewards.math_answer import math_value as m; m('1/2', '0.5'); print('sympy' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@needs_cases
@pytest.mark.parametrize("name", ["dev", "adversarial_dev"])
def test_the_shared_cases(name: str) -> None:
    right = false_positives = count = 0
    rewards = {"math_boxed": math_boxed, "math_final": math_final}
    for line in (CASES / f"reward_cases_{name}.jsonl").read_text().splitlines():
        case = json.loads(line)
        if not case["metric"].startswith("math"):
            continue
        if spec := case.get("pred_spec"):
            case["pred"] = spec["pre"] + spec["unit"] * spec["times"] + spec["post"]
        bare = math_value if case["form"] == "answer" else math_response
        score = rewards.get(case["metric"], bare)(case["pred"], case["gold"]) == 1.0
        count += 1
        right += score == bool(case["expected"])
        false_positives += score and not case["expected"]
    assert right / count >= 0.98
    assert false_positives / count <= 0.005
