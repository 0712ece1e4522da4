# test_harness.py: the references of harness.py agree with each other, and a library that is wrong in one way is found.
import numpy as np
import pytest
import harness
import oracle
import test_ops
from harness import BACKWARD, Case, Data, Outcome, Tolerance, Value, assert_agree, cases

# dtypes in which torch computes little, steps it refuses, and gradients that differences cannot see
TORCH_OR_ORACLE_ALONE = ("test_wide_unsigned_arithmetic", "test_shift", "test_negative_steps",
                         "test_gradients_at_ties_and_kinks", "test_softmax_gradients_at_extremes", "test_detach",
                         "test_dimension_0_of_a_number", "test_modes")

def comparable():
  """(test name, its cases) for every test of test_ops.py that both references can run."""
  for name, test in vars(test_ops).items():
    if not name.startswith("test_") or name in TORCH_OR_ORACLE_ALONE: continue
    for mark in getattr(test, "pytestmark", ()):
      if mark.name == "parametrize" and mark.args[0] == "case": yield name, mark.args[1]

GROUPS = dict(comparable())

@pytest.mark.parametrize("name", GROUPS)
def test_torch_agrees_with_the_oracle(name):
  torch = pytest.importorskip("torch")
  for case in GROUPS[name]:
    loose = case._replace(forward=Tolerance(1e-5, 1e-3)) if name == "test_product" else case
    try: expected = harness.run_oracle(loose)
    except oracle.Missing: continue
    assert_agree(harness.run(torch, loose), expected, loose)

def test_there_are_enough_cases():
  assert sum(len(rows) for rows in GROUPS.values()) > 1000

SQUARE = cases(("x * x", (2, 3)))[0]
RIGHT = harness.run_oracle(SQUARE)
OUTPUT, GRADIENT = RIGHT.outputs[0], RIGHT.gradients[0]

@pytest.mark.parametrize("wrong", [
  RIGHT._replace(outputs=[OUTPUT._replace(array=OUTPUT.array + 0.01)]),
  RIGHT._replace(outputs=[OUTPUT._replace(array=OUTPUT.array * np.nan)]),
  RIGHT._replace(outputs=[OUTPUT._replace(array=OUTPUT.array.reshape(3, 2))]),
  RIGHT._replace(outputs=[OUTPUT._replace(dtype="float64")]),
  RIGHT._replace(outputs=[OUTPUT, OUTPUT]),
  RIGHT._replace(gradients=[None]),
  RIGHT._replace(gradients=[GRADIENT._replace(array=GRADIENT.array * 1.01)]),
  RIGHT._replace(gradients=[GRADIENT._replace(dtype="float64")])])
def test_a_wrong_result_is_found(wrong):
  with pytest.raises(AssertionError): assert_agree(wrong, RIGHT, SQUARE)

def test_gradients_are_difference_quotients():
  x = harness.make_inputs(SQUARE)[0].astype(np.float64)
  np.testing.assert_allclose(RIGHT.gradients[0].array, 2 * x * harness.weights_for(x.shape, 0), rtol=1e-6)

def test_statements_come_before_the_expression():
  case = Case("y = x + 1; y[0] = 5; y", (Data([1, 2], "int64"),), backward=None)
  assert harness.run_oracle(case).outputs[0].array.tolist() == [5, 3]

def test_integers_must_be_equal():
  case = Case("x", (Data([10000], "int64"),), backward=None)
  with pytest.raises(AssertionError):
    assert_agree(Outcome([Value(np.array([10001]), "int64")], []), harness.run_oracle(case), case)

def test_distribution_test_rejects_a_wrong_distribution():
  rng = np.random.default_rng(0)
  harness.assert_distributed(rng.normal(0, 1, 4000), harness.normal_cumulative(0, 1))
  with pytest.raises(AssertionError):
    harness.assert_distributed(rng.normal(0.2, 1, 4000), harness.normal_cumulative(0, 1))

def test_default_tolerances_are_the_course_s():
  assert (BACKWARD, harness.FORWARD) == (Tolerance(1e-4, 1e-3), Tolerance(1e-6, 1e-3))
