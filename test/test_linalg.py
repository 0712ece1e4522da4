# test_linalg.py: linalg against NumPy in float64, gradients against torch where it is installed.
import numpy as np
import pytest
import picograd
from harness import HAS_TORCH, cases, check

SQUARE, TALL, WIDE, BATCH = (4, 4), (5, 3), (3, 5), (2, 3, 3)
positive = "a = x @ x.mT + lib.eye(x.shape[-1]); "

CASES = cases(
  ("lib.linalg.inv(x)", SQUARE), ("lib.linalg.inv(x)", BATCH), ("lib.linalg.solve(x, y)", SQUARE, (4, 2)),
  ("lib.linalg.solve(x, y)", SQUARE, (4,)), ("lib.linalg.solve(x, y)", BATCH, (3, 2)),
  ("lib.linalg.solve(x, y, left=False)", SQUARE, (2, 4)), ("lib.linalg.det(x)", SQUARE), ("lib.linalg.det(x)", BATCH),
  (positive + "lib.linalg.cholesky(a)", SQUARE), (positive + "lib.linalg.cholesky(a)", BATCH),
  *(("q, r = lib.linalg.qr(x); q, r", shape) for shape in (TALL, SQUARE, WIDE)),
  ("u, s, v = lib.linalg.svd(x, full_matrices=False); u.abs(), s, v.abs()", TALL),
  ("u, s, v = lib.linalg.svd(x, full_matrices=False); u.abs(), s, v.abs()", WIDE),
  ("u, s, v = lib.linalg.svd(x, full_matrices=False); s", BATCH),
  ("lib.linalg.lstsq(x, y).solution", TALL, (5, 2)), ("lib.linalg.lstsq(x, y).solution", WIDE, (3, 2)),
  *((f"lib.linalg.norm(x, {order})", TALL) for order in "None 'fro' 'nuc' 2 -2 1 -1 inf -inf".split()),
  ("lib.linalg.norm(x, 3, dim=1)", TALL), ("lib.linalg.norm(x, dim=(0, 2), keepdim=True)", BATCH),
)

@pytest.mark.skipif(not HAS_TORCH, reason="torch is the reference")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_torch(case): check(case)

def random(*shape, dtype="float64"): return np.random.default_rng(0).uniform(-2, 2, shape).astype(dtype)
def near(got, want): np.testing.assert_allclose(np.asarray(got), want, rtol=1e-8, atol=1e-9)

def test_values_in_float64():
  A, B = random(6, 6), random(6, 2)
  a, b = picograd.tensor(A), picograd.tensor(B)
  near(picograd.linalg.inv(a), np.linalg.inv(A))
  near(picograd.linalg.solve(a, b), np.linalg.solve(A, B))
  near(picograd.linalg.det(a), np.linalg.det(A))
  near(picograd.linalg.svdvals(a), np.linalg.svd(A)[1])
  near(picograd.linalg.cholesky(a @ a.mT), np.linalg.cholesky(A @ A.T))

@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (2, 4, 3), (3, 1), (1, 1)])
def test_full_factors_are_orthogonal_and_multiply_to_the_matrix(shape):
  A = random(*shape, dtype="float32")
  U, S, Vh = (t.numpy() for t in picograd.linalg.svd(picograd.tensor(A)))
  Q, R = (t.numpy() for t in picograd.linalg.qr(picograd.tensor(A), mode="complete"))
  m, n = shape[-2:]
  k = min(m, n)
  for factor, size in ((U, m), (Vh, n), (Q, m)):
    np.testing.assert_allclose(factor @ factor.swapaxes(-1, -2), np.broadcast_to(np.eye(size), factor.shape), atol=1e-5)
  np.testing.assert_allclose((U[..., :k] * S[..., None, :]) @ Vh[..., :k, :], A, atol=1e-5)
  np.testing.assert_allclose(Q @ R, A, atol=1e-5)

def test_singular_values_of_a_singular_matrix():
  A = np.outer(random(5), random(4)).astype("float32")
  U, S, Vh = (t.numpy() for t in picograd.linalg.svd(picograd.tensor(A)))
  np.testing.assert_allclose(S, np.linalg.svd(A)[1], atol=1e-5)
  np.testing.assert_allclose(U.T @ U, np.eye(5), atol=1e-5)

def test_real_eigenvalues_and_their_gradient():
  X, w = random(4, 4) + 3 * np.eye(4), np.array([1.0, -2.0, 3.0, 5.0])
  A = X @ np.diag(w) @ np.linalg.inv(X)
  a = picograd.tensor(A, requires_grad=True)
  values, vectors = picograd.linalg.eig(a)
  near(np.sort(values.detach().numpy()), np.sort(w))
  near(a.detach() @ vectors.detach(), (vectors * values).detach().numpy())
  (values ** 3).sum().backward()                                       # = trace(A^3), whose gradient is 3 (A^2)^T
  near(a.grad, 3 * (A @ A).T)

@pytest.mark.parametrize("text, message", [
  ("linalg.inv(lib.zeros(2, 2))", "singular"), ("linalg.solve(lib.zeros(2, 2), lib.ones(2))", "singular"),
  ("linalg.cholesky(-lib.eye(2))", "positive-definite"), ("linalg.inv(lib.ones(2, 3))", "square"),
  ("linalg.eig(lib.tensor([[0.0, 1.0], [-1.0, 0.0]]))", "complex"), ("linalg.det(lib.ones(2, 2).long())", "float"),
  ("linalg.qr(lib.ones(2, 2), mode='full')", "mode"), ("linalg.norm(lib.ones(2, 2, 2), 2)", "2D"),
])
def test_bad_matrices_are_refused(text, message):
  with pytest.raises(RuntimeError, match=message):
    result = eval("lib." + text, {"lib": picograd})
    result.realize()

def test_determinant_of_a_singular_matrix_has_its_gradient():
  a = picograd.tensor([[1.0, 2.0], [2.0, 4.0]], requires_grad=True)
  value = picograd.linalg.det(a)
  value.backward()
  assert value.item() == 0 and a.grad.tolist() == [[4.0, -2.0], [-2.0, 1.0]]

def test_second_derivatives():
  """Of det(A), by elements (i,i) and (j,j) of a diagonal matrix: the product of the others."""
  h = picograd.func.hessian(picograd.linalg.det)(picograd.tensor(np.diag([2.0, 3.0, 5.0])))
  near(h[0, 0, 1, 1], 5.0)
  h = picograd.func.hessian(lambda x: picograd.linalg.inv(x).sum())(picograd.tensor([[2.0]], dtype=picograd.float64))
  near(h.reshape(()), 2 / 2.0 ** 3)

def test_matrices_in_vmap():
  A = random(3, 4, 4)
  near(picograd.func.vmap(picograd.linalg.inv)(picograd.tensor(A)), np.linalg.inv(A))
  near(picograd.func.vmap(lambda a: picograd.linalg.svd(a)[1])(picograd.tensor(A)), np.linalg.svd(A)[1])
