# Patterns, rules and drivers: what matches, which rule wins, when each node is visited, and that depth does not matter.
import pytest
from picograd.dtype import dtypes
from picograd.ops.match import LIMIT, Pat, Rules, rewrite, rewrite_top_down
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp

i32, f32 = dtypes.int32, dtypes.float32
def const(value, dtype=i32): return UOp.const(dtype, value)
def var(slot, dtype=i32): return UOp(Ops.PARAM, dtype, (), slot)
a, b, c = var(0), var(1), var(2)
def matches(pat, u): return list(pat.match(u, {}))

# ---- patterns --------------------------------------------------------------------------------------------------------

def test_a_variable_matches_anything_and_binds_it():
  assert matches(Pat.var("x"), a + b) == [{"x": a + b}]

def test_a_name_used_twice_means_one_node():
  twice = Pat(Ops.ADD, (Pat.var("x"), Pat.var("x")))
  assert matches(twice, a + a) == [{"x": a}] and not matches(twice, a + b)

def test_ops():
  assert matches(Pat(Ops.ADD), a + b) and not matches(Pat(Ops.MUL), a + b)
  assert matches(Pat((Ops.ADD, Ops.MUL)), a * b) and matches(Pat(), a)

def test_the_number_of_sources_must_agree():
  assert not matches(Pat(Ops.ADD, (Pat.var("x"),)), a + b)
  assert matches(Pat(Ops.ADD), a + b)                               # without src any sources will do

def test_commutative_ops_are_tried_in_both_orders():
  assert matches(Pat.var("x") + 1, const(1) + a) == [{"x": a}] == matches(Pat.var("x") + 1, a + const(1))
  assert not matches(Pat.var("x") // 1, const(1) // a)
  assert matches(Pat.var("x") * Pat.var("y"), a * b) == [{"x": a, "y": b}, {"x": b, "y": a}]
  assert len(matches(Pat.var("x") * Pat.var("y"), a * a)) == 1

def test_orders_are_tried_until_the_whole_fits():
  """(x % c) + (x // c) * c in any order of its sums and products."""
  pat = (Pat.var("x") % Pat.const("c")) + (Pat.var("x") // Pat.const("c")) * Pat.const("c")
  five = const(5)
  for u in ((a % five) + (a // five) * five, five * (a // five) + a % five):
    assert {"x": a, "c": five} in matches(pat, u)
  assert not matches(pat, (a % five) + (b // five) * five)

def test_constants():
  assert matches(Pat.const("c"), const(3)) == [{"c": const(3)}] and not matches(Pat.const(), a)
  assert matches(Pat.const(value=3), const(3)) and not matches(Pat.const(value=3), const(4))
  assert matches(Pat.const(value=lambda v: v > 3), const(4)) and not matches(Pat.const(value=lambda v: v > 3), const(3))

def test_dtypes():
  assert matches(Pat(dtype=i32), a) and not matches(Pat(dtype=f32), a)
  assert matches(Pat.var("x", dtype=lambda dt: dt.is_int), a)

def test_args():
  move = Pat(Ops.PERMUTE, arg=(1, 0))
  x = UOp.buffer(f32, 6, "CPU").reshape((2, 3))
  assert matches(move, x.permute((1, 0))) and not matches(move, x.reshape((3, 2)))

def test_named_and_where_and_cast():
  whole = (Pat.var("x") + 1).named("whole")
  assert matches(whole, a + 1) == [{"whole": a + 1, "x": a}] and matches(whole, const(1) + a)
  select = Pat.var("p").where(Pat.var("x"), Pat.var("x"))
  assert matches(select, (a < b).where(c, c)) and not matches(select, (a < b).where(b, c))
  assert matches(Pat.var("x").cast("c"), a.cast(f32)) == [{"c": a.cast(f32), "x": a}]

def test_operators_build_the_pattern_they_look_like():
  x, y = Pat.var("x"), Pat.var("y")
  for pat, u in ((x / y, a.cast(f32) / b.cast(f32)), (x % y, a % b), (x & y, a & b), (x | y, a | b), (x ^ y, a ^ b),
                 (x << y, a << b), (x >> y, a >> b), (x < y, a < b), (x.ne(y), a.ne(b)), (x.maximum(y), a.maximum(b))):
    assert matches(pat, u), u

# ---- rules -----------------------------------------------------------------------------------------------------------

one = Rules([(Pat.var("x") * 1, lambda x: x)])                      # x*1 = x
zero = Rules([(Pat.var("x") + 0, lambda x: x)])                     # x+0 = x

def test_a_rule_gives_its_replacement_or_none():
  assert one.apply(a * 1) is a and one.apply(a * 2) is None

def test_the_first_rule_that_applies_wins():
  rules = Rules([(Pat.var("x") * 1, lambda x: None), (Pat.var("x") * 1, lambda x: x), (Pat.var("x") * 1, lambda x: b)])
  assert rules.apply(a * 1) is a

def test_a_rule_that_changes_nothing_does_not_apply():
  assert Rules([(Pat.var("x"), lambda x: x)]).apply(a) is None

def test_all_ways_to_match_are_tried():
  """The first way binds x to a, which the function refuses."""
  assert Rules([(Pat.var("x") * Pat.var("y"), lambda x, y: y if x is b else None)]).apply(a * b) is a

def test_rules_concatenate():
  assert rewrite((a * 1) + 0, one + zero) is a and rewrite((a * 1) + 0, one) is a + 0

def test_rewrite_goes_on_until_nothing_matches():
  halves = Rules([(Pat.const("c"), lambda c: const(c.arg // 2) if c.arg > 1 else None)])
  assert rewrite(const(64) + a, halves) is const(1) + a

def test_rewrite_enters_what_a_rule_makes():
  twice = Rules([(Pat(Ops.PARAM, (), arg=0), lambda: (b * 1) * 1)])
  assert rewrite(a + 3, twice + one) is b + 3

def test_rewrite_sees_sources_in_their_final_form():
  seen = []
  rules = Rules([(Pat(Ops.ADD, name="u"), lambda u: seen.append(u.src[0].op))])
  rewrite((a * 1) + 2, one + rules)
  assert seen == [Ops.PARAM]

def test_a_shared_node_is_rewritten_once():
  count = []
  rules = Rules([(Pat(Ops.PARAM, arg=0, name="u"), lambda u: count.append(u))])
  node = a
  for _ in range(30): node = node * node                            # a tree of it would have 2**30 leaves
  assert rewrite(node, rules) is node and len(count) == 1

def test_top_down_sees_the_original_graph():
  seen = []
  def look(u):
    seen.append(u.src[0].op)
    return None
  rules = Rules([(Pat(Ops.ADD, name="u"), look), (Pat.var("x") * 1, lambda x: x)])
  assert rewrite_top_down((a * 1) + 2, rules) is a + 2 and seen == [Ops.MUL]

def test_top_down_enters_what_a_rule_makes():
  product = Pat(Ops.MUL, (Pat.var("x"), Pat.const("c")))
  unroll = Rules([(product, lambda x, c: x + x * (c.arg - 1) if c.arg > 1 else None)])      # x*c = x + x*(c-1)
  assert rewrite_top_down(a * 3, unroll) is a + (a + a * 1)

def test_rules_that_undo_each_other_are_reported():
  swap = Rules([(Pat(Ops.ADD, (Pat.var("x"), Pat.var("y"))), lambda x, y: y + x)])
  with pytest.raises(RuntimeError, match="do not come to an end"): rewrite_top_down(a + b, swap)
  grow = Rules([(Pat.const("c"), lambda c: const(c.arg + 1))])
  with pytest.raises(RuntimeError, match="do not come to an end"): rewrite(const(0) + a, grow)
  with pytest.raises(RuntimeError, match="do not come to an end"): rewrite_top_down(const(0) + a, grow)
  down = Rules([(Pat.const("c"), lambda c: const(c.arg - 1) if c.arg else None)])
  assert rewrite(const(LIMIT - 1), down) is const(0)                # long, but it ends

@pytest.mark.parametrize("driver", [rewrite, rewrite_top_down])
def test_deep_chains(driver):
  node, expected = a, a
  for _ in range(20_000): node = UOp(Ops.ADD, i32, (node * 1, b))
  for _ in range(20_000): expected = UOp(Ops.ADD, i32, (expected, b))
  assert driver(node, one) is expected
