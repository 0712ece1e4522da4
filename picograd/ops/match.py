# match.py: patterns, rules and the drivers that apply them. A Pat describes a piece of graph; Rules is a list of
# (Pat, function) indexed by op; `rewrite` applies it everywhere until nothing matches.
#   (Pat.var("x") * 1, lambda x: x)
# A function gets the named nodes as keyword arguments and returns the replacement, or None for "does not apply".
# A rule never mutates anything: global change is a plain loop in a pass.
from __future__ import annotations
import itertools
from typing import Any, Callable, Iterable, Iterator
from weakref import WeakSet
from picograd.ops.ops import COMMUTATIVE, Ops
from picograd.ops.uop import Table, UOp

Bindings = dict[str, UOp]

class Pat:
  """A pattern. op: one op, several, or None for any. src: a tuple of patterns in order, a list for any order (for
  commutative ops), None for whatever. arg, dtype: a value to equal, or a function that decides. name: binds it."""
  __slots__ = ("ops", "src", "arg", "dtype", "name", "any_order", "one_way")

  def __init__(self, op: Ops | Iterable[Ops] | None = None, src: "tuple | list | None" = None, arg: Any = None,
               dtype: Any = None, name: str | None = None):
    self.ops = None if op is None else frozenset({op}) if isinstance(op, Ops) else frozenset(op)
    self.any_order = isinstance(src, list)
    self.src = None if src is None else tuple(src)
    self.arg, self.dtype, self.name = arg, dtype, name
    self.one_way: bool = not self.any_order and all(s.one_way for s in self.src or ())

  @staticmethod
  def var(name: str, dtype: Any = None) -> "Pat": return Pat(name=name, dtype=dtype)
  @staticmethod
  def const(name: str | None = None, value: Any = None) -> "Pat":
    return Pat(Ops.CONST, arg=value, name=name)

  def named(self, name: str) -> "Pat":
    return Pat(self.ops, self.raw_src(), self.arg, self.dtype, name)
  def raw_src(self): return list(self.src) if self.any_order and self.src is not None else self.src

  def alu(self, op: Ops, *others: Any) -> "Pat":
    sources = [self, *(o if isinstance(o, Pat) else Pat.const(value=o) for o in others)]
    return Pat(op, sources if op in COMMUTATIVE else tuple(sources))
  def __add__(self, other): return self.alu(Ops.ADD, other)
  def __mul__(self, other): return self.alu(Ops.MUL, other)
  def __truediv__(self, other): return self.alu(Ops.FDIV, other)
  def __floordiv__(self, other): return self.alu(Ops.IDIV, other)
  def __mod__(self, other): return self.alu(Ops.MOD, other)
  def __and__(self, other): return self.alu(Ops.AND, other)
  def __or__(self, other): return self.alu(Ops.OR, other)
  def __xor__(self, other): return self.alu(Ops.XOR, other)
  def __lshift__(self, other): return self.alu(Ops.SHL, other)
  def __rshift__(self, other): return self.alu(Ops.SHR, other)
  def __lt__(self, other): return self.alu(Ops.CMPLT, other)
  def ne(self, other): return self.alu(Ops.CMPNE, other)
  def maximum(self, other): return self.alu(Ops.MAX, other)
  def where(self, yes, no): return self.alu(Ops.WHERE, yes, no)
  def cast(self, name: str | None = None):
    return Pat(Ops.CAST, (self,), name=name)

  def takes_dtype(self, dtype: Any) -> bool:
    return self.dtype is None or bool(self.dtype(dtype) if callable(self.dtype) else dtype is self.dtype)

  def may_fit(self, u: UOp) -> bool:
    """Whether u may fit, judged by its op and dtype and by its sources' ops alone."""
    if (self.ops is not None and u.op not in self.ops) or not self.takes_dtype(u.dtype): return False
    if self.src is None: return True
    if len(self.src) != len(u.src): return False
    orders = itertools.permutations(u.src) if self.any_order else (u.src,)
    return any(all(pat.ops is None or s.op in pat.ops for pat, s in zip(self.src, sources)) for sources in orders)

  def accepts(self, u: UOp) -> bool:
    """Whether u fits, sources and names aside."""
    if self.ops is not None and u.op not in self.ops: return False
    if not self.takes_dtype(u.dtype): return False
    return self.arg is None or bool(self.arg(u.arg) if callable(self.arg) else u.arg == self.arg)

  def fits(self, u: UOp, found: Bindings) -> bool:
    """Whether u fits in the one way in which it can; puts the names into found."""
    if not self.accepts(u) or (self.name is not None and found.setdefault(self.name, u) is not u): return False
    if self.src is None: return True
    if len(self.src) != len(u.src): return False
    for pat, s in zip(self.src, u.src):
      if not pat.fits(s, found): return False
    return True

  def match(self, u: UOp, found: Bindings) -> Iterator[Bindings]:
    """Every way in which u fits, as the names bound so far; one name means one node."""
    if self.one_way:
      found = dict(found)
      if self.fits(u, found): yield found
      return
    if not self.accepts(u): return
    if self.name is not None:
      if self.name in found:
        if found[self.name] is not u: return
      else: found = {**found, self.name: u}
    if self.src is None:
      yield found
      return
    if len(self.src) != len(u.src): return
    orders = itertools.permutations(u.src) if self.any_order and u.src[0] is not u.src[-1] else (u.src,)
    for sources in orders: yield from match_all(self.src, sources, found)

def match_all(pats: tuple[Pat, ...], sources: tuple[UOp, ...], found: Bindings) -> Iterator[Bindings]:
  if not pats:
    yield found
    return
  for bound in pats[0].match(sources[0], found): yield from match_all(pats[1:], sources[1:], bound)

Rule = tuple[Pat, Callable[..., "UOp | None"]]

class Rules:
  """An ordered list of rules; the first that applies wins. `a + b` concatenates."""
  def __init__(self, rules: Iterable[Rule]):
    self.rules = list(rules)
    self.normal: WeakSet[UOp] = WeakSet()                        # what is known to be left alone, sources included
    self.by_op: dict[Ops, list[Rule]] = {op: [] for op in Ops}
    self.by_form: dict[tuple, list[Rule]] = {}                   # (op, dtype, the sources' ops) -> rules that may apply
    for rule in self.rules:
      for op in rule[0].ops or Ops: self.by_op[op].append(rule)

  def __add__(self, other: "Rules") -> "Rules": return Rules(self.rules + other.rules)

  def apply(self, u: UOp) -> UOp | None:
    """The replacement by the first rule that applies and changes something, else None."""
    known = self.by_op[u.op]
    if not known: return None
    form = (u.op, u.dtype, *[s.op for s in u.src])
    rules = self.by_form.get(form)
    if rules is None: rules = self.by_form[form] = [rule for rule in known if rule[0].may_fit(u)]
    for pat, function in rules:
      found: Bindings = {}
      ways = ((found,) if pat.fits(u, found) else ()) if pat.one_way else pat.match(u, found)
      for names in ways:
        new = function(**names)
        if new is not None and new is not u: return new
    return None

LIMIT = 1000          # rules in a row on one node: more means that two rules undo each other

def rewrite(root: UOp, rules: Rules) -> UOp:
  """The graph in which no rule applies any more: sources first, then the node, then whatever the rule made of it."""
  new: Table = {}                                       # finished: node -> its final form
  stack: list[tuple[UOp, UOp | None, int]] = [(root, None, 0)]   # (node, what a rule made of it, rules applied)
  while stack:
    u, form, count = stack.pop()
    if u in new: continue
    if u in rules.normal:
      new[u] = u
      continue
    if form is None:
      missing = [s for s in u.src if s not in new]
      if missing:
        stack.append((u, None, count))
        stack += [(s, None, 0) for s in missing[::-1]]
        continue
      form = u.with_src(tuple([new[s] for s in u.src]))
    if form is not u and form in new:
      new[u] = new[form]
      continue
    made = rules.apply(form)
    if made is None:
      new[u] = new[form] = form
      rules.normal.add(form)
      continue
    if count > LIMIT: raise RuntimeError(f"rules do not come to an end at {form}")
    stack.append((u, made, count + 1))                           # after `made` is finished, u has the same form
    stack.append((made, None, count + 1))
  return new[root]

def rewrite_top_down(root: UOp, rules: Rules) -> UOp:
  """Each node before its sources, once per node that a rule makes: for rules that must see the original graph."""
  new: Table = {}
  changed: Table = {}
  stack = [(root, False)]
  while stack:
    u, done = stack.pop()
    if u in new: continue
    if not done:
      form, count = u, 0
      while (made := rules.apply(form)) is not None:
        form, count = made, count + 1
        if count > LIMIT: raise RuntimeError(f"rules do not come to an end at {form}")
      changed[u] = form
      stack.append((u, True))
      stack.extend((s, False) for s in form.src if s not in new)
    else: new[u] = changed[u].with_src(tuple([new.get(s, s) for s in changed[u].src]))
  return new[root]
