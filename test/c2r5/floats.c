// long double, float arithmetic without excess precision, constants
#include <stdio.h>
#include <float.h>
#include <math.h>
long double third = 1.0L / 3, neg = -0.0L, huge = 1e4000L; static long double table[] = {1, 2.5, 1e-3L};
static long double horner(long double x, int n, ...) { return n ? x * horner(x, n - 1) + n : x; }
static long double pick(int k, long double a, double b, float c) { return k == 0 ? a : k == 1 ? b : c; }
struct ld { char c; long double v; }; static struct ld twice(struct ld s) { s.v *= 2; return s; }
// parameters as K&R declare them are passed promoted
static float old(x, c, y) float x; char c; double y; { return 1 + 3 / x + c + y; }
static float many(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r) float a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r; { return a + 2 * q + 3 * r + j; }
static float later();
static void promoted(void) {
  float (*p)() = old, a = 2;
  printf("%g %g %g %g\n", old(a, 300, 1.5f), p(3.0f, 'a', 2.5), later(a, 1), many(1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15., 16., 17., 18.));
}
static float later(x, n) float x; { return n ? x : -x; }
static long double extremes[] = {1e4000L + 1.0L, 1e4000L - 1e4000L, 0.0L + 1e4000L, -0.0L * 1e4000L, 1e4000L / -0.0L, 0.0L / -1e4000L,
  1e4000L * (1e4000L * 1e4000L), 5.0L / (1e4000L * 1e4000L), -0.0L / 3.0L, 0.0L / 0.0L, 1.0L / 3 - 0.0L};
int main(void) {
  promoted();
  for (int k = 0; k < 11; k++) printf("%.20Lg ", k == 9 ? extremes[k] != extremes[k] : extremes[k]);
  printf("%g %g %d\n", (double)1e4000L, (float)-1e4000L, 1e4000L < 1e300 * 1e300);
  printf("%.20Lg %d %Lg\n", third, signbit((double)neg) != 0, huge); volatile long double x = third; x = x * 3 - 1; printf("%Lg %d\n", x, x == 0);
  for (int i = 0; i < 3; i++) printf("%.19Lg ", table[i] + pick(i, 10, 20, 30)); printf("%Lg\n", horner(1.5L, 4));
  volatile float f = 0.1f, g = 0.2f; volatile double d = f * g; printf("%.17g %.17g %.17g\n", d, (double)f * g, (double)(f + g * f));
  volatile long long ll = (1LL << 62) + 1; long double w = ll; printf("%Lf %lld %lu %d\n", w, (long long)w, (unsigned long)(w * 2), (int)(w > 1e18));
  struct ld s = {'c', 1.25L}; s = twice(s); printf("%c %Lg %zu\n", s.c, s.v, sizeof s); x = s.v; x++; ++x; x -= 0.25; x /= 3; printf("%.19Lg %d\n", x--, (_Bool)x);
  printf("%g %g %g %a\n", sqrt(2), pow(2, 0.5), floor(-2.5), 0x1.8p-3); printf("%d %d %Lg\n", FLT_DIG, DBL_MANT_DIG, 0 ? LDBL_MAX : 1.0L);
  printf("%g %g %g\n", 1e-310, 4.9e-324, 1.17549435e-38f); printf("%d %d\n", isnan(NAN), isinf(-INFINITY)); float h = 3; h /= 7; h *= h; printf("%.9g\n", h);
  double z = 1e16; z += 1; printf("%.0f %d\n", z, z == 1e16); volatile double a = 1.1, b = 2.2, c = 3.3; printf("%.17g\n", a * b + c); printf("%.17g\n", -a * b - c); return 0;
}
