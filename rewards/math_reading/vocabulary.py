"""The names that mean something: functions with their spellings, constants, Greek letters."""

from __future__ import annotations

_TRIG = "sin cos tan cot sec csc"
FUNCTIONS: dict[str, str] = {
    n: n for n in f"{_TRIG} exp ln log sqrt cbrt abs max min gcd lcm floor ceil sign det arg".split()
}
for _name in _TRIG.split():
    FUNCTIONS |= {f"{_name}h": f"{_name}h", f"arc{_name}": f"a{_name}", f"a{_name}": f"a{_name}"}
    FUNCTIONS |= {f"{p}{_name}h": f"a{_name}h" for p in ("arc", "ar", "a")}
FUNCTIONS |= {"cosec": "csc", "cosech": "csch", "tg": "tan", "ctg": "cot", "arctg": "atan", "arcctg": "acot",
              "lg": "lg",
              "sgn": "sign", "Abs": "abs", "ceiling": "ceil", "factorial": "factorial", "binomial": "binomial",
              "choose": "binomial", "Gamma": "gamma", "sinc": "sinc", "sh": "sinh", "ch": "cosh",
              "th": "tanh",
              "conjugate": "conj", "Re": "re", "Im": "im", "erf": "erf"}  # fmt: skip
# These two-letter names are products of letters more often than functions, unless a backslash says so.
_ONLY_AS_COMMAND = {"sh", "ch", "th", "arg", "det", "Re", "Im", "lg", "tg"}
PLAIN_FUNCTIONS = {n for n in FUNCTIONS if n not in _ONLY_AS_COMMAND}

CONSTANTS = {"pi": "pi", "inf": "oo", "oo": "oo", "infinity": "oo", "Infinity": "oo", "Pi": "pi"}
GREEK = set(
    [
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "zeta",
        "eta",
        "theta",
        "iota",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
        "rho",
        "sigma",
        "tau",
        "upsilon",
        "phi",
        "chi",
        "psi",
        "omega",
        "Gamma",
        "Delta",
        "Theta",
        "Lambda",
        "Xi",
        "Sigma",
        "Upsilon",
        "Phi",
        "Psi",
        "Omega",
        "ell",
        "hbar",
    ]
)
UNKNOWN_FUNCTIONS = frozenset("fghFGH")
