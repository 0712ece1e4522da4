# literal.py: what numbers, characters and strings in a program's text stand for (C11 6.4.4, 6.4.5). In: a token. Out:
# an exact value (int, or Fraction for a floating constant), or code units, with what prefix and suffix say of the type.
from __future__ import annotations
import re
from fractions import Fraction
from typing import NamedTuple
from .lex import Failure, Token

class Number(NamedTuple):
  value: int | Fraction
  suffix: str              # in lower case, u before l: '', 'u', 'ul', 'ull', 'l', 'll'; 'f', 'l', 'f64x' ..
  decimal: bool            # an integer written in base ten is never unsigned unless it says so

INTEGER = re.compile(r"(?:0[xX](?P<x>[0-9a-fA-F]+)|0[bB](?P<b>[01]+)|(?P<o>0[0-7]*)|(?P<d>[1-9][0-9]*))"
                     r"(?P<s>[uU]?(?:l|L|ll|LL)?|(?:l|L|ll|LL)[uU])")
FLOATING = re.compile(r"(?=[0-9]*[.eE])(?P<m>[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE](?P<e>[+-]?[0-9]+))?"
                      r"(?P<s>[fFlLwWqQ]|[fF][0-9]+x?)?")
HEX_FLOATING = re.compile(r"0[xX](?P<m>[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)[pP](?P<e>[+-]?[0-9]+)"
                          r"(?P<s>[fFlLqQ]|[fF][0-9]+x?)?")
BASES = {"x": 16, "b": 2, "o": 8, "d": 10}
LARGEST_EXPONENT = 6000        # beyond it every format has overflowed; 10**exponent must stay computable

def read_number(token: Token) -> Number:
  m = INTEGER.fullmatch(token.text)
  if m is not None:
    (digits, base), = [(m[name], base) for name, base in BASES.items() if m[name] is not None]
    suffix = m["s"].lower()
    if suffix.startswith("l") and suffix.endswith("u"): suffix = "u" + suffix[:-1]
    return Number(int(digits, base), suffix, base == 10)
  m, base = HEX_FLOATING.fullmatch(token.text), 2
  if m is None: m, base = FLOATING.fullmatch(token.text), 10
  if m is None: raise Failure(token, f"'{token.text}' is not a number")
  whole, _, fraction = m["m"].partition(".")
  exponent = max(-LARGEST_EXPONENT, min(LARGEST_EXPONENT, int(m["e"] or 0)))
  if base == 2: value = Fraction(int(whole + fraction, 16), 16 ** len(fraction)) * Fraction(2) ** exponent
  else: value = Fraction(int(whole + fraction), 10 ** len(fraction)) * Fraction(10) ** exponent
  return Number(value, (m["s"] or "").lower(), False)

# ---- characters and strings ------------------------------------------------------------------------------------------

ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]+)|([0-7]{1,3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
SIMPLE = {"n": 10, "t": 9, "r": 13, "a": 7, "b": 8, "f": 12, "v": 11, "e": 27, "E": 27}
WIDTHS = {"": 1, "u8": 1, "u": 2, "U": 4, "L": 4}          # prefix -> bytes of a code unit

def split_prefix(text: str) -> tuple[str, str]:
  """The prefix, and what is between the quotes."""
  quote = text.index(text[-1])
  return text[:quote], text[quote + 1:-1]

def code_units(token: Token, width: int) -> list[int]:
  """The body of a literal as code units of that many bytes: UTF-8, UTF-16 or UTF-32."""
  _, body = split_prefix(token.text)
  units: list[int] = []
  done = 0
  for m in ESCAPE.finditer(body):
    units += encode(body[done:m.start()], width)
    done = m.end()
    hexadecimal, octal, short, long, simple = m.groups()
    if short or long: units += encode(chr(min(0x10ffff, int(short or long, 16))), width)
    elif simple and simple in "xuU": raise Failure(token, f"\\{simple} used with no following hex digits")
    elif simple: units += [SIMPLE[simple]] if simple in SIMPLE else encode(simple, width)
    else:
      value = int(hexadecimal, 16) if hexadecimal else int(octal, 8)
      units.append(value & (1 << 8 * width) - 1)                        # gcc warns of more digits, and drops them
  return units + encode(body[done:], width)

def encode(text: str, width: int) -> list[int]:
  if text.isascii(): return [ord(c) for c in text]
  name = {1: "utf-8", 2: "utf-16-le", 4: "utf-32-le"}[width]
  data = text.encode(name, "surrogateescape" if width == 1 else "replace")
  return [int.from_bytes(data[i:i + width], "little") for i in range(0, len(data), width)]

def read_character(token: Token) -> tuple[str, int]:
  """(prefix, value) of a character constant; several characters make one int, the first one highest, as gcc does."""
  prefix, _ = split_prefix(token.text)
  units = code_units(token, WIDTHS[prefix])
  if not units: raise Failure(token, "empty character constant")
  if prefix: return prefix, units[0]
  value = 0
  for unit in units[-4:]: value = value << 8 | unit
  return prefix, value
