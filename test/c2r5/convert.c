// integer and floating conversions, shifts, division, comparison
#include <stdio.h>
int main(void) {
  short x = -1; unsigned short y = 65535; signed char c = (signed char)200; unsigned char u = 200; long long q = -1;
  printf("%d %d %d %d %d\n", x == y, c, u, c >> 1, u << 24 < 0);
  printf("%d %d %d\n", (x ? x : 5u) > 0, -1 < 1u, q < 1u);
  printf("%d %d\n", (signed char)(u + 100), (unsigned char)-1 >> 1);
  x = 32767; x++; printf("%d ", x); printf("%d ", x--); x += 40000; printf("%d\n", x);
  int i = 7; i *= 1.5; printf("%d\n", i); i <<= 2; i %= 9; i |= 64; i ^= 3; i &= ~1; i >>= 1; printf("%d\n", i);
  printf("%d %d %u %ld\n", -7 / 2, -7 % 2, -7u / 2, -7L / 2);
  printf("%lu %lu %lu\n", sizeof(x + x), sizeof(char) + sizeof('a'), sizeof 1.0f);
  volatile double d = 3.99, n = -2.5, big = 1e18; volatile float f = 16777217;
  printf("%d %d %ld %.1f %u %d\n", (int)d, (int)n, (long)big, f, (unsigned)d, (char)d);
  volatile unsigned long ul = 0xfffffffffffff801UL; printf("%.1f %.1f %.1f\n", (double)ul, (float)ul, (double)(long)ul);
  volatile double nan = 0.0 / 0.0, inf = 1e300 * 1e300;
  printf("%d%d%d%d%d%d %d%d\n", nan < 1, nan > 1, nan <= 1, nan >= 1, nan == nan, nan != nan, !nan, inf > 1);
  printf("%d %d\n", nan ? 1 : 0, (_Bool)0.5);
  printf("%lld %d %x\n", 1LL << 40 >> 3, -16 >> 2, -16u >> 28);
  printf("%d %d %d\n", 'a', '\377', L'\x1234'); printf("%ld %lu\n", 2147483648, 0xffffffffffffffff);
  unsigned char b = 255; b++; printf("%d\n", b); b--; printf("%d\n", b); b = b * 2; printf("%d\n", b);
  _Bool t = 2; t += 5; printf("%d ", t); --t; printf("%d\n", t); float g = 0.1f; double h = g; printf("%.17g %.9g\n", h, g + 0.2f);
  printf("%d\n", 1 ? -1 : 0u ? 2 : 3); printf("%g %g\n", 1 / 3.0f, -0.0); enum { A = -1, B } e = A; printf("%d\n", e < 0);
  return 0;
}
