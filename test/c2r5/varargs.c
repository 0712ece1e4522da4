// variable arguments of every class; passing lists on
#include <stdarg.h>
#include <stdio.h>
struct small { int a, b; }; struct fl { float x, y; }; struct dl { double d; long l; }; struct big { long v[4]; };
static double total(int n, ...) { va_list ap; va_start(ap, n); double t = 0; while (n--) t += n % 2 ? va_arg(ap, double) : va_arg(ap, int); va_end(ap); return t; }
static void mixed(const char *f, ...) {
  va_list ap, again; va_start(ap, f); va_copy(again, ap);
  for (; *f; f++) switch (*f) {
    case 'i': printf("%d ", va_arg(ap, int)); break; case 'l': printf("%ld ", va_arg(ap, long)); break;
    case 'd': printf("%g ", va_arg(ap, double)); break; case 'L': printf("%Lg ", va_arg(ap, long double)); break;
    case 's': { struct small s = va_arg(ap, struct small); printf("{%d %d} ", s.a, s.b); break; }
    case 'f': { struct fl s = va_arg(ap, struct fl); printf("{%g %g} ", s.x, s.y); break; }
    case 'm': { struct dl s = va_arg(ap, struct dl); printf("{%g %ld} ", s.d, s.l); break; }
    case 'b': { struct big s = va_arg(ap, struct big); printf("{%ld %ld} ", s.v[0], s.v[3]); break; }
    case 'p': printf("%s ", va_arg(ap, char *)); break; }
  printf("| %d\n", va_arg(again, int)); va_end(ap); va_end(again);
}
static int passed(char *out, const char *format, ...) { va_list ap; va_start(ap, format); int n = vsprintf(out, format, ap); va_end(ap); return n; }
static int sum(va_list *ap) { return va_arg(*ap, int) + va_arg(*ap, int); }
static int by_pointer(int k, ...) { va_list ap; va_start(ap, k); int s = sum(&ap) + va_arg(ap, int); va_end(ap); return s; }
int main(void) {
  printf("%g\n", total(12, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6, 6.5, 7));
  struct small s = {1, 2}; struct fl f = {1.5, 2.5}; struct dl m = {3.5, 4}; struct big b = {{5, 6, 7, 8}};
  mixed("isfmbdlLp", 1, s, f, m, b, 9.5, 10L, 11.5L, "end"); mixed("isssssmmbLid", 1, s, s, s, s, s, m, m, b, 2.25L, 7, 8.5);
  mixed("iddddddddddf", 1, 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., f); mixed("iLLlL", 1, 1.L, 2.L, 3L, 4.L);
  char out[100]; int n = passed(out, "%d %s %c %.2f", 5, "five", '5', 5.0f); printf("%s %d %d\n", out, n, by_pointer(0, 1, 2, 3));
  printf("%d %hhd %ld %c\n", (char)-3, (signed char)300, (long)(short)70000, 'x'); return 0;
}
