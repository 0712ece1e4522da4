// what GNU C adds
#include <stdio.h>
#include <stddef.h>
#define max(a, b) ({ __typeof__(a) _a = (a); __typeof__(b) _b = (b); _a > _b ? _a : _b; })
static int order; static void note(int *p) { printf("clean %d\n", *p); }
__attribute__((constructor)) static void before(void) { order = 5; }
__attribute__((destructor)) static void after(void) { printf("after\n"); }
struct __attribute__((aligned(32))) wide { int a; }; int zero[0]; struct z { int n; char tail[0]; };
extern int other(void) __attribute__((alias("real"))); int real(void) { return 42; }
__attribute__((alias("real"), aligned(64), weak)) int own(void) { return 43; }      // its body counts, and its alignment
static inline __attribute__((always_inline)) int sq(int x) { return x * x; }
int fib(n) int n; { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
implicit(a, b) char a; double b; { return a + (int)b; }
static _Thread_local int tls = 3;
typedef const int di __attribute__((mode(DI))); typedef unsigned __attribute__((__mode__(__QI__))) qi;
struct moded { short a __attribute__((mode(SI))), b; float c __attribute__((mode(SF))); };
static __auto_type aside = 3.5;
int main(void) {
  int c __attribute__((cleanup(note))) = 7; printf("%d %g %zu\n", max(3, 4), max(2.5, 1), sizeof(struct wide));
  printf("%d %zu\n", own(), _Alignof(own));
  { int d __attribute__((cleanup(note))) = 8; c++; } printf("%d %d %d %d %d\n", order, other(), sq(7), fib(10), implicit('a', 2.5));
  int n = 100; int o, lost = __builtin_add_overflow(2147483647, 1, &o); printf("%d %d ", lost, o);
  unsigned char uc; lost = __builtin_mul_overflow(16, 16, &uc); printf("%d %d ", lost, uc); printf("%d\n", __builtin_sub_overflow(3u, 4u, &uc));
  long l; printf("%d %d\n", __builtin_mul_overflow(1L << 40, 1L << 23, &l), __builtin_mul_overflow(1L << 40, 1L << 22, &l));
  printf("%d %d %d %d %x %lx\n", __builtin_clz(1), __builtin_ctz(8), __builtin_popcount(255), __builtin_ffs(16), __builtin_bswap32(0x12345678), __builtin_bswap64(1));
  printf("%d %d %d\n", __builtin_types_compatible_p(int, const int), __builtin_constant_p(3 + 4), __builtin_choose_expr(1, 2, "x"));
  printf("%s %d\n", __func__, _Generic(1.0f, int: 1, float: 2, default: 3)); printf("%d %d\n", _Generic("s", char *: 5), ++tls);
  asm volatile("" : "+r"(n) : : "memory"); printf("%d %d\n", n, 5); __auto_type q = 5L; const __auto_type h = .5f; printf("%zu %zu %g %g\n", sizeof q, sizeof h, h, aside); printf("%d\n", __builtin_expect(n == 100, 1) ? 1 : 2);
  int at = 0; __sync_fetch_and_add(&at, 5); printf("%d ", at); printf("%d ", __sync_bool_compare_and_swap(&at, 5, 9)); printf("%d\n", __atomic_load_n(&at, 0));
  printf("%zu %d %zu\n", sizeof(di), (qi)-1, sizeof(struct moded));
  void *labels[] = {&&one, &&two}; goto *labels[1]; one: return 1; two: printf("%g %g\n", __builtin_fabs(-2.5), __builtin_inf()); return 0;
}
