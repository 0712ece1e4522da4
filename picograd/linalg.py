# linalg.py: torch.linalg as programs of tensors: elimination, Cholesky, Householder's QR and Jacobi's SVD, for matrices
# in the last two dimensions and any number of them before. In: floats of 32 or 64 bits. Out: tensors, and gradients of
# any order: what a factorisation's derivative is follows from its value, by a rule of the table in ops/gradient.py.
# Steps differ in a number that is data, so that all steps of a size are the same kernels; each is computed first.
from __future__ import annotations
import math
from typing import Any, Callable, NamedTuple, Sequence
from picograd.arithmetic import stored
from picograd.common import axis_of
from picograd.dtype import DType, dtypes
from picograd.helpers import DEVICE
from picograd.func.batching import TRACED
from picograd.library import Tensor, arange, cat, enable_grad, eye, no_grad, stack, tensor, where, zeros_like
from picograd.library.formulas import with_slope
from picograd.ops.gradient import BY_VALUE
from picograd.ops.shape import broadcast
from picograd.ops.uop import UOp
from picograd.storage import Storage, check_later, is_traced, realize
from picograd.tensor import result

class SVD(NamedTuple):
  """A = U @ diag(S) @ Vh"""
  U: Tensor
  S: Tensor
  Vh: Tensor

class QR(NamedTuple):
  """A = Q @ R"""
  Q: Tensor
  R: Tensor

class Eig(NamedTuple):
  """A @ eigenvectors = eigenvectors @ diag(eigenvalues)"""
  eigenvalues: Tensor
  eigenvectors: Tensor

class LeastSquares(NamedTuple):
  """solution, the sums of squared errors, A's rank and singular values; empty is what a driver does not compute."""
  solution: Tensor
  residuals: Tensor
  rank: Tensor
  singular_values: Tensor

# ---- what the programs share -----------------------------------------------------------------------------------------

def check_matrix(A: Tensor, what: str) -> None:
  if A.ndim < 2: raise RuntimeError(f"linalg.{what}: The input tensor A must have at least 2 dimensions, not {A.ndim}")
  if A.dtype in (dtypes.float32, dtypes.float64): return
  raise RuntimeError(f"linalg.{what}: Expected a float or double tensor, but got {A.dtype.name}")

def check_square(A: Tensor, what: str) -> None:
  check_matrix(A, what)
  if A.shape[-1] != A.shape[-2]:
    raise RuntimeError(f"linalg.{what}: A must be batches of square matrices, but they are {A.shape[-2]} by "
                       f"{A.shape[-1]} matrices")

def step(*state: Tensor) -> tuple[Tensor, ...]:
  """The state of an iteration, computed now; inside vmap, where there is no value yet, kept apart from what follows."""
  kept = tuple(t.map(stored) for t in state)
  ready = [t.storage for t in kept if not is_traced(t.uop)]
  if ready: realize(ready)
  return kept

def counter(k: int, like: Tensor) -> Tensor:
  """The number of a step, as data: steps that differ in it alone are the same kernels."""
  return tensor(k, dtype=dtypes.int32, device=like.device)

def identity(n: int, like: Tensor) -> Tensor:
  """(.., n, n) for matrices (.., *, *)."""
  return eye(n, dtype=like.dtype, device=like.device).expand(*like.shape[:-2], n, n)

def place(n: int, like: Tensor) -> Tensor: return arange(n, dtype=dtypes.int32, device=like.device)

def element(x: Tensor, k: Tensor) -> Tensor:
  """(.., n) -> (..): element k of vectors, column k of matrices; row k is element k of their transposes."""
  return where(place(x.shape[-1], x) == k, x, 0.0).sum(-1)

def as_column(x: Tensor) -> Tensor: return x.unsqueeze(-1)
def as_row(x: Tensor) -> Tensor: return x.unsqueeze(-2)

Slope = Callable[[Tensor, Tensor, Tensor], Tensor]

def rule(name: str, slope: Slope) -> Callable[[Tensor, Tensor], Tensor]:
  """(value, x) -> value, whose gradient by x is slope(value, x, the value's gradient): differentiable again."""
  def on_uops(u: UOp, g: UOp) -> UOp:
    device = u.device if u.device not in ("", TRACED) else DEVICE.value
    value, x, weight = (Tensor.on(Storage(part, device, history=True), (), None) for part in (u, u.src[1], g))
    with enable_grad(): return slope(value, x, weight).uop
  BY_VALUE[name] = on_uops
  return lambda value, x: result(with_slope(name, value.uop, x.uop), x)

# ---- elimination: solve, inv, det ------------------------------------------------------------------------------------

def pivot_row(M: Tensor, k: Tensor) -> Tensor:
  """(..): the row from k on whose element in column k is the largest."""
  if not M.numel(): return M.new_zeros(M.shape[:-2], dtype=dtypes.int64)
  size = where(place(M.shape[-2], M) < k, -1.0, element(M, k).abs())
  return size.argmax(-1)

def swapped(M: Tensor, k: Tensor, p: Tensor) -> Tensor:
  """M with the rows k and p exchanged."""
  rows = place(M.shape[-2], M)
  p = as_column(p).to(dtypes.int32)                                            # (.., 1)
  source = where(rows == k, p, where(rows == p, k, rows))                      # (.., n)
  return M.gather(-2, as_column(source.to(dtypes.int64)).expand(*M.shape))

def eliminated(M: Tensor, k: Tensor) -> Tensor:
  """Gauss and Jordan's step: row k is divided by its pivot and taken from all others, so that column k becomes a unit
  vector. (Golub and Van Loan, Matrix Computations, section 3.2)"""
  M = swapped(M, k, pivot_row(M, k))
  here = place(M.shape[-2], M) == k
  row = element(M.mT, k)                                                       # (.., m)
  row = row / as_column(element(row, k))
  factors = where(here, 0.0, element(M, k))
  return where(as_column(here), as_row(row), M - as_column(factors) * as_row(row))

def solved(M: Tensor) -> Tensor:
  """(.., n, n + m) of A beside B -> (.., n, m), the X of A @ X = B."""
  n = M.shape[-2]
  state = M.detach()
  with no_grad():
    for k in range(n): state, = step(eliminated(state, counter(k, M)))
  return of_solution(state[..., n:], M)

def solution_slope(X: Tensor, M: Tensor, g: Tensor) -> Tensor:
  """B: Y = A^-T g; A: -Y X^T."""
  n = M.shape[-2]
  Y = solved(cat([M[..., :n].mT, g], -1))
  return cat([-(Y @ X.mT), Y], -1)
of_solution = rule("linalg.solve", solution_slope)

def refuse_infinite(x: Tensor, message: str) -> None:
  """RuntimeError with the next realize() where x is not finite."""
  infinite = x.detach().isfinite().logical_not()
  check_later(infinite.uop, infinite.storage.device, RuntimeError("linalg." + message))

def broadcast_batches(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
  """Matrices with the same dimensions before their last two."""
  shape = broadcast(tuple(A.shape[:-2]), tuple(B.shape[:-2]))
  return A.expand(*shape, *A.shape[-2:]), B.expand(*shape, *B.shape[-2:])

def solve(A: Tensor, B: Tensor, left: bool = True) -> Tensor:
  """The X of A @ X = B, for A (.., n, n) and B (.., n, m) or (.., n); with left=False of X @ A = B. RuntimeError, with
  the next realize(), where A is singular."""
  check_square(A, "solve")
  if not left: return solve(A.mT, B.mT).mT
  if B.ndim == 1 or B.ndim == A.ndim - 1 and tuple(B.shape) == tuple(A.shape[:-1]):
    return solve(A, as_column(B)).squeeze(-1)
  X = solved(cat(broadcast_batches(A, B), -1))
  refuse_infinite(X, "solve: The solver failed because the input matrix is singular.")
  return X

def inv(A: Tensor) -> Tensor:
  """The inverse of (.., n, n). RuntimeError, with the next realize(), where A is singular."""
  check_square(A, "inv")
  X = solved(cat([A, identity(A.shape[-1], A)], -1))
  refuse_infinite(X, "inv: The input matrix is singular.")
  return X

def det(A: Tensor) -> Tensor:
  """The determinant of (.., n, n): the product of the pivots of elimination, whose steps the gradient walks back."""
  check_square(A, "det")
  n = A.shape[-1]
  M, total = A, A.new_ones(A.shape[:-2])
  for i in range(n):
    k = counter(i, A)
    p = pivot_row(M.detach(), k)
    M = swapped(M, k, p)
    row = element(M.mT, k)
    pivot = element(row, k)
    total = total * where(p == k, pivot, -pivot)
    safe = where(pivot == 0, 1.0, pivot)                                       # then the whole column is zero
    factors = where(place(n, A) > k, element(M, k) / as_column(safe), 0.0)
    M, total = step(M - as_column(factors) * as_row(row), total)
  return total

# ---- Cholesky --------------------------------------------------------------------------------------------------------

def cholesky(A: Tensor, upper: bool = False) -> Tensor:
  """The lower triangular L of A = L @ L^T, for symmetric positive definite (.., n, n), of which the lower triangle is
  read; with upper its transpose. RuntimeError, with the next realize(), where A is not positive definite."""
  check_square(A, "cholesky")
  n = A.shape[-1]
  source = A.mT if upper else A
  with no_grad():
    low = source.detach().tril()
    rest, L = low + low.tril(-1).mT, zeros_like(A)
    for i in range(n):
      k = counter(i, A)
      line = where(place(n, A) < k, 0.0, element(rest, k))
      line = line / as_column(element(line, k).sqrt())
      rest, L = step(rest - as_column(line) * as_row(line), where(place(n, A) == k, as_column(line), L))
  refuse_infinite(L, "cholesky: The factorization could not be completed because the input is not positive-definite.")
  L = of_cholesky(L, source)
  return L.mT if upper else L

def cholesky_slope(L: Tensor, A: Tensor, g: Tensor) -> Tensor:
  """L^-T sym(half the diagonal of tril(L^T g)) L^-1: Murray, Differentiation of the Cholesky decomposition (2016)."""
  inner = (L.mT @ g).tril()
  inner = inner - inner * identity(L.shape[-1], L) * 0.5
  inverse = inv(L)
  total = inverse.mT @ inner @ inverse
  return (total + total.mT) * 0.5
of_cholesky = rule("linalg.cholesky", cholesky_slope)

# ---- QR --------------------------------------------------------------------------------------------------------------

def householder(A: Tensor) -> tuple[Tensor, Tensor]:
  """(.., m, n) -> Q (.., m, m) and R (.., m, n) by reflections, with LAPACK's signs. (Golub and Van Loan, 5.2)"""
  m, n = A.shape[-2:]
  R, Q = A, identity(m, A)
  for i in range(min(m, n)):
    k = counter(i, A)
    line = element(R, k)
    below = where(place(m, A) > k, line, 0.0)
    alpha, rest = element(line, k), (below * below).sum(-1)
    size = (alpha * alpha + rest).sqrt()
    beta = where(alpha < 0, size, -size)
    still = rest == 0                                                          # nothing to reflect
    safe = where(still, 1.0, alpha - beta)
    v = where(place(m, A) == k, 1.0, below / as_column(safe))
    tau = as_column(as_column(where(still, 0.0, (beta - alpha) / where(beta == 0, 1.0, beta))))
    R = R - tau * as_column(v) * (as_row(v) @ R)
    Q = Q - tau * (Q @ as_column(v)) * as_row(v)
    R, Q = step(R, Q)
  return Q, R.triu()

def qr(A: Tensor, mode: str = "reduced") -> QR:
  """Q with orthonormal columns and upper triangular R, A = Q @ R. Of A (.., m, n), k = min(m, n): 'reduced' gives
  (.., m, k) and (.., k, n); 'complete' (.., m, m) and (.., m, n), without a gradient where m > n; 'r' R alone."""
  check_matrix(A, "qr")
  m, n = A.shape[-2:]
  if mode not in ("reduced", "complete", "r"):
    raise RuntimeError(f"qr received unrecognized mode '{mode}' but expected one of 'reduced', 'r', or 'complete'")
  with no_grad(): Q, R = householder(A.detach())
  if mode == "r": return QR(A.new_zeros(0), R[..., :min(m, n), :])
  if mode == "complete" and m > n: return QR(Q, R)
  k = min(m, n)
  square = A[..., :k]
  packed = of_qr(cat([Q[..., :k], R[..., :k, :k]], -2), square)                # (.., m + k, k)
  Q, R = packed[..., :m, :], packed[..., m:, :]
  return QR(Q, R if n <= m else cat([R, Q.mT @ A[..., k:]], -1))

def qr_slope(packed: Tensor, A: Tensor, g: Tensor) -> Tensor:
  """(gQ + Q sym(tril(R gR^T - gQ^T Q))) R^-T: Walter and Lehmann, Algorithmic differentiation of linear algebra
  functions (2010)."""
  m = A.shape[-2]
  Q, R, gQ, gR = packed[..., :m, :], packed[..., m:, :], g[..., :m, :], g[..., m:, :].triu()
  inner = R @ gR.mT - gQ.mT @ Q
  symmetric = inner.tril() + inner.tril(-1).mT
  return solve(R, (gQ + Q @ symmetric).mT).mT
of_qr = rule("linalg.qr", qr_slope)

# ---- singular values -------------------------------------------------------------------------------------------------

SWEEPS = {dtypes.float32: 9, dtypes.float64: 11}

def rotated(x: Tensor, rows: int) -> Tensor:
  """Jacobi's rotation of each column of the left half with the same of the right half: in the first `rows` rows they
  are orthogonal then. Columns then move to the partners of the next round of a tournament."""
  half = x.shape[-1] // 2
  left, right = x[..., :half], x[..., half:]
  a, b = left[..., :rows, :], right[..., :rows, :]
  cross, difference = (a * b).sum(-2, keepdim=True), (b * b).sum(-2, keepdim=True) - (a * a).sum(-2, keepdim=True)
  done = cross == 0
  zeta = difference / where(done, 1.0, cross * 2)
  size = zeta.abs()
  t = where(done, 0.0, where(zeta < 0, -1.0, 1.0) / (size + (size * size + 1).sqrt()))
  t = where(size > 1e15, where(done, 0.0, cross / where(difference == 0, 1.0, difference)), t)
  c = 1 / (t * t + 1).sqrt()
  left, right = left * c - right * (c * t), left * (c * t) + right * c
  return cat([left[..., :1], right[..., :1], left[..., 1:half - 1], right[..., 1:], left[..., half - 1:]], -1) \
    if half > 1 else cat([left, right], -1)

def jacobi(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
  """Of A (.., m, n), m >= n: all of U (.., m, m), S (.., n) descending and V (.., n, n), by rotations of pairs of
  columns until they are orthogonal: a fixed number of sweeps, enough for the dtype. (Hestenes 1958, Brent and Luk
  1985)"""
  m, n = A.shape[-2:]
  even = n + n % 2
  V = identity(even, A)
  state = cat([A.pad([(0, 0)] * (A.ndim - 1) + [(0, even - n)]), V], -2)       # (.., m + even, even)
  for _ in range(SWEEPS[A.dtype] * max(1, even - 1) if n > 1 else 0): state, = step(rotated(state, m))
  sizes = (state[..., :m, :] * state[..., :m, :]).sum(-2).sqrt()
  real = state[..., m:m + n, :].abs().sum(-2) > 0                              # not the column that was added
  order = where(real, sizes, -1.0).argsort(-1, descending=True)[..., :n]
  state, = step(state.gather(-1, as_row(order).expand(*state.shape[:-1], n)))
  W, V = state[..., :m, :], state[..., m:m + n, :]
  Q, R = householder(W)                                                        # R is diagonal
  diagonal = R.diagonal(0, -2, -1)
  signs = where(diagonal < 0, -1.0, 1.0)
  S = diagonal.abs()
  signs = cat([signs, A.new_ones(*signs.shape[:-1], m - n)], -1)
  U, S = step(Q * as_row(signs), S)
  return U, S, V

def svd(A: Tensor, full_matrices: bool = True) -> SVD:
  """A = U @ diag(S) @ Vh, S descending. Of A (.., m, n), k = min(m, n): U (.., m, m) and Vh (.., n, n), or with
  full_matrices=False (.., m, k) and (.., k, n). Gradients are finite where the singular values differ."""
  check_matrix(A, "svd")
  m, n = A.shape[-2:]
  if m < n:
    V, S, Uh = svd(A.mT, full_matrices)
    return SVD(Uh.mT, S, V.mT)
  with no_grad(): U, S, V = jacobi(A.detach())
  batch = tuple(A.shape[:-2])
  parts = [U[..., :n].reshape(*batch, m * n), S, V.reshape(*batch, n * n)]
  packed = of_svd(cat(parts, -1), A)
  reduced, S, V = unpacked(packed, m, n)
  return SVD(cat([reduced, U[..., n:]], -1) if full_matrices else reduced, S, V.mT)

def unpacked(packed: Tensor, m: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
  """U (.., m, n), S (.., n), V (.., n, n)"""
  U, S, V = packed.split([m * n, n, n * n], -1)
  return U.unflatten(-1, (m, n)), S, V.unflatten(-1, (n, n))

def quotient(x: Tensor, y: Tensor) -> Tensor:
  """x / y, but 0 where x is 0."""
  return where(x == 0, 0.0, x / where(x == 0, 1.0, y))

def svd_slope(packed: Tensor, A: Tensor, g: Tensor) -> Tensor:
  """Townsend, Differentiating the singular value decomposition (2016)."""
  m, n = A.shape[-2:]
  (U, S, V), (gU, gS, gV) = unpacked(packed, m, n), unpacked(g, m, n)
  gaps = as_row(S * S) - as_column(S * S)
  gaps = where(gaps.abs() > 0, gaps, identity(n, A))
  def turned(x: Tensor) -> Tensor: return quotient(x - x.mT, gaps)
  inner = turned(U.mT @ gU) * as_row(S) + as_column(S) * turned(V.mT @ gV) + as_row(gS) * identity(n, A)
  total = U @ inner @ V.mT
  if m == n: return total
  return total + quotient(gU - U @ (U.mT @ gU), as_row(S)) @ V.mT
of_svd = rule("linalg.svd", svd_slope)

def svdvals(A: Tensor) -> Tensor: return svd(A, False).S

# ---- eigenvalues -----------------------------------------------------------------------------------------------------

ROUNDS = 60              # QR steps that one eigenvalue may take

def eig(A: Tensor) -> Eig:
  """Eigenvalues (.., n) and eigenvectors (.., n, n) of length 1, as columns, of A (.., n, n) with real eigenvalues:
  there are no complex dtypes. RuntimeError where they are not. The number of steps depends on the data: each is
  computed before the next, so that this can be neither captured nor batched."""
  check_square(A, "eig")
  n, batch = A.shape[-1], tuple(A.shape[:-2])
  if not A.numel(): return Eig(A.new_zeros(*batch, n), zeros_like(A))
  with no_grad(): found = [eigen(matrix) for matrix in A.detach().reshape(-1, n, n).unbind(0)]
  packed = stack([cat([as_row(w), V]) for w, V in found]).reshape(*batch, n + 1, n)
  return Eig(*eigen_parts(of_eig(packed, A)))

def eigen_parts(packed: Tensor) -> tuple[Tensor, Tensor]:
  """Eigenvalues (.., n) and eigenvectors (.., n, n)."""
  return packed[..., 0, :], packed[..., 1:, :]

def eigvals(A: Tensor) -> Tensor: return eig(A).eigenvalues

def eigen(A: Tensor) -> tuple[Tensor, Tensor]:
  """Of one matrix. Schur's form A = Q @ T @ Q^T, T upper triangular: its diagonal, and Q times T's eigenvectors."""
  n = A.shape[-1]
  T, Q = A, identity(n, A)
  small = A.dtype.eps * A.norm().item()
  for size in range(n, 1, -1):
    for _ in range(ROUNDS):
      corner = T[:size, :size].tolist()
      if max(map(abs, corner[-1][:-1])) <= small: break
      T, Q = step(*shifted_step(T, Q, size, shift(corner)))
    else: raise RuntimeError("linalg.eig: the matrix has complex eigenvalues, for which there is no dtype")
  V = Q @ triangular_vectors(T.triu())
  return T.diagonal(), V / (V * V).sum(0, keepdim=True).sqrt()

def shift(T: list[list[float]]) -> float:
  """The eigenvalue of the last two rows and columns that is nearest to the last element; it, where they are complex."""
  (a, b), (c, d) = (row[-2:] for row in T[-2:])
  half, spread = (a - d) / 2, ((a - d) / 2) ** 2 + b * c
  if spread < 0: return d
  root = math.sqrt(spread)
  return d - b * c / (half + math.copysign(root, half)) if half or root else d

def shifted_step(T: Tensor, Q: Tensor, size: int, mu: float) -> tuple[Tensor, Tensor]:
  """The first `size` rows and columns become R @ P + mu, where P @ R = T - mu: similar, and nearer to a triangle."""
  n = T.shape[-1]
  block, _ = householder(T[:size, :size] - identity(size, T) * mu)
  P = block.pad([(0, n - size)] * 2) + identity(n, T) * (place(n, T) >= size)
  return P.mT @ T @ P, Q @ P

def triangular_vectors(T: Tensor) -> Tensor:
  """The eigenvectors of an upper triangular matrix, 1 on the diagonal: back substitution of all columns at once."""
  n = T.shape[-1]
  X = identity(n, T)
  tiny = T.dtype.eps * T.abs().max() + 2.0 ** -100
  values = T.diagonal()
  for i in range(n - 2, -1, -1):
    k = counter(i, T)
    here, later = place(n, T) == k, place(n, T) > k
    gap = values - element(values, k)
    others = element(T.mT, k) @ (X - identity(n, T) * here)
    row = where(later, others / where(gap.abs() < tiny, -tiny, gap), here.to(T.dtype))
    X, = step(where(as_column(here), as_row(row), X))
  return X

def eig_slope(packed: Tensor, A: Tensor, g: Tensor) -> Tensor:
  """Giles, An extended collection of matrix derivative results (2008), with columns of length 1."""
  (w, V), (gw, gV) = eigen_parts(packed), eigen_parts(g)
  gaps = as_row(w) - as_column(w)
  turn = V.mT @ gV
  turn = turn - (V.mT @ V) * as_row(turn.diagonal(0, -2, -1))
  off = 1 - identity(A.shape[-1], A)
  inner = quotient(turn * off, gaps) + as_row(gw) * identity(A.shape[-1], A)
  return solve(V.mT, inner @ V.mT)
of_eig = rule("linalg.eig", eig_slope)

# ---- least squares ---------------------------------------------------------------------------------------------------

def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, driver: str | None = None) -> LeastSquares:
  """The X (.., n, k) for which A @ X is nearest to B, for A (.., m, n) of full rank and B (.., m, k); where m < n the
  smallest such X. By QR, whichever driver is asked for: 'gelsy' gives no residuals, 'gels' no rank, 'gelss' and 'gelsd'
  the singular values too; rcond has no effect."""
  check_matrix(A, "lstsq")
  m, n = A.shape[-2:]
  if B.ndim == A.ndim - 1:
    found = lstsq(A, as_column(B), rcond, driver)
    return found._replace(solution=found.solution.squeeze(-1))
  A, B = broadcast_batches(A, B)
  if m >= n:
    Q, R = qr(A)
    X = solve(R, Q.mT @ B)
  else:
    Q, R = qr(A.mT)
    X = Q @ solve(R.mT, B)
  errors = A @ X - B
  nothing = A.new_zeros(0)
  rank = A.new_full(A.shape[:-2], min(m, n), dtype=dtypes.int64)
  return LeastSquares(X, nothing if m <= n or driver in (None, "gelsy") else (errors * errors).sum(-2),
                      nothing.to(dtypes.int64) if driver == "gels" else rank,
                      svdvals(A.detach()) if driver in ("gelss", "gelsd") else nothing)

# ---- norms -----------------------------------------------------------------------------------------------------------

def vector_norm(x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, dtype: DType | None = None) -> Tensor:
  """(sum |x|^ord)^(1/ord) over dim (None: all); the largest or smallest |x| for ord inf or -inf, how many are not 0
  for ord 0."""
  return (x if dtype is None else x.to(dtype)).norm(ord, dim, keepdim)

def matrix_norm(A: Tensor, ord: Any = "fro", dim: Sequence[int] = (-2, -1), keepdim: bool = False,
                dtype: DType | None = None) -> Tensor:
  """Of matrices in two dimensions: 'fro' the root of the sum of squares, 'nuc' the sum of singular values, 2 and -2 the
  largest and smallest; 1 and -1 the largest and smallest sum of a column's |x|, inf and -inf of a row's."""
  x = A if dtype is None else A.to(dtype)
  rows, columns = (axis_of(d, x.ndim) for d in dim)
  if ord == "fro": return x.norm(2, (rows, columns), keepdim)
  M = x.movedim((rows, columns), (-2, -1))
  if ord == "nuc": out = svdvals(M).sum(-1)
  elif ord in (2, -2): out = extreme(svdvals(M), ord)
  elif ord in (1, -1): out = extreme(M.abs().sum(-2), ord)
  elif ord in (math.inf, -math.inf): out = extreme(M.abs().sum(-1), ord)
  else: raise RuntimeError(f"linalg.matrix_norm: Order {ord} not supported.")
  if not keepdim: return out
  for d in sorted((rows, columns)): out = out.unsqueeze(d)
  return out

def extreme(x: Tensor, sign: float) -> Tensor: return x.amax(-1) if sign > 0 else x.amin(-1)

def norm(A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, dtype: DType | None = None) -> Tensor:
  """A vector's norm over one dimension or, without ord, over any; a matrix's over two."""
  if ord is None: return vector_norm(A, 2, dim, keepdim, dtype)
  dims = tuple(range(A.ndim)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
  if len(dims) == 2: return matrix_norm(A, ord, dims, keepdim, dtype)
  if len(dims) == 1: return vector_norm(A, ord, dims, keepdim, dtype)
  raise RuntimeError(f"linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got {A.ndim}D.")
