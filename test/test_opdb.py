# test_opdb.py: torch's database of operators (op_db) against picograd: every operator that the API names, its sample
# inputs in float32 and int64, values and gradients. `pytest -m opdb` looks at all samples, every other run at a few of
# each operator. What does not agree is listed here with the reason.
import importlib.util
import pytest

if importlib.util.find_spec("torch") is None or importlib.util.find_spec("expecttest") is None:
  pytest.skip("op_db needs torch and expecttest", allow_module_level=True)
import opdb

# operator -> (how many of its samples disagree, why)
DISAGREE = {
  "linalg.eig float32": (8, "torch's eigenvalues are complex, for which there is no dtype here"),
  "nn.functional.batch_norm float32": (2, "an input without channels is refused"),
  "norm/nuc float32": (2, "Tensor.norm has no order 'nuc': linalg.norm has"),
  "index_put float32": (2, "accumulate=True is index_add_ and scatter_add_ here"),
  "index_put int64": (2, "accumulate=True is index_add_ and scatter_add_ here"),
}
CASES = opdb.chosen([])
FEW = 1                    # samples of an operator that every run looks at

def name_of(case): return f"{opdb.label(case[0])} {str(case[1]).removeprefix('torch.')}"

@pytest.mark.opdb
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_all_samples_agree(case):
  found = opdb.agreement(*case)
  allowed, _ = DISAGREE.get(name_of(case), (0, ""))
  assert sum(found.differences.values()) <= allowed, f"of {found.count}: {dict(found.differences)}"

@pytest.mark.parametrize("case", [c for c in CASES if name_of(c) not in DISAGREE], ids=name_of)
def test_some_samples_agree(case):
  found = opdb.agreement(*case, few=FEW)
  assert found.count and not found.differences, dict(found.differences)

# float16 and bfloat16: torch rounds a scalar bound to float32 where we round it to the tensor's dtype, x ** y's
# gradient overflows in one of two ways to compute it, and so on: operator -> how many of its samples disagree
NARROW_DISAGREE = {
  "clamp bfloat16": 1, "nn.functional.batch_norm float16": 1, "nn.functional.batch_norm bfloat16": 1, "pow float16": 1,
  "pow bfloat16": 1, "__rdiv__ float16": 1, "__rmod__ bfloat16": 1, "index_put float16": 2, "index_put bfloat16": 2,
}

@pytest.mark.opdb
@pytest.mark.parametrize("case", opdb.chosen([], opdb.NARROW), ids=name_of)
def test_values_and_gradients_of_16_bits(case):
  found = opdb.agreement(*case, few=4)
  assert found.count and sum(found.differences.values()) <= NARROW_DISAGREE.get(name_of(case), 0), found.differences
