// corners of the language that real programs stand in
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stdarg.h>
#include <setjmp.h>
#include <limits.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdbool.h>
#include <wchar.h>
#include <ctype.h>
#include <errno.h>
#include <assert.h>
#include <inttypes.h>
struct t { int a; }; struct s { struct t; int b, a; }; struct u { struct v { int q; }; struct { int r; }; };
enum colour { RED, GREEN = 5, BLUE }; enum big { HUGE_ONE = 0x100000000LL, NEG = -1 };
struct bits { enum colour c : 3; bool b : 1; signed s : 4; unsigned u : 5; long long l : 40; unsigned char : 0; char z; };
typedef int fn(int); fn twice; int twice(int x) { return 2 * x; } static fn *pick(int k); fn *pick(int k) { return k ? twice : abs; }
int (*choose(int k))(int) { return k ? &twice : *abs; }
static int sum(int n, int a[n][n]) { int s = 0; for (int i = 0; i < n; i++) for (int j = 0; j < n; j++) s += a[i][j]; return s; }
static int first(int a[static 2]) { return a[0]; }
static const char *const names[] = {[RED] = "red", [GREEN] = "green", [BLUE] = "blue"};
static const struct { const char *n; int (*f)(int); } table[] = {{"abs", abs}, {.f = twice, .n = "twice"}};
char lit[] = {"abc"}, *mid = &"hello"[2]; int grid[3][2] = {[1] = {7}, [2][1] = 9}; struct { int x[4]; } rr[] = {[0 ... 2] = {{1, 2, [3] = 3}}};
union un { int i; float f; char c[8]; } un = {.f = 1.0f}, un2 = {.c = "xyz"};
static long long fact(unsigned n) { return n < 2 ? 1 : n * fact(n - 1); }
#define COUNT(...) COUNT_(__VA_ARGS__, 4, 3, 2, 1, 0)
#define COUNT_(a, b, c, d, n, ...) n
#define LOG(f, ...) printf(f "\n", ##__VA_ARGS__)
#define CAT(a, b) a##b
#define STR(x) #x
#define XSTR(x) STR(x)
static jmp_buf env; static void thrower(int n) { if (n == 0) longjmp(env, 42); thrower(n - 1); }
static double avg(int n, ...) { va_list ap, aq; va_start(ap, n); va_copy(aq, ap); double s = 0; for (int i = 0; i < n; i++) s += va_arg(ap, double); va_end(ap); s += va_arg(aq, double); va_end(aq); return s / n; }
static void duff(char *to, const char *from, int count) { int n = (count + 7) / 8; switch (count % 8) { case 0: do { *to++ = *from++; case 7: *to++ = *from++; case 6: *to++ = *from++; case 5: *to++ = *from++; case 4: *to++ = *from++; case 3: *to++ = *from++; case 2: *to++ = *from++; case 1: *to++ = *from++; } while (--n > 0); } }
static const char *cls(long long v) { switch (v) { case LLONG_MIN ... -1: return "neg"; case 0: return "zero"; case 1 ... 9: return "digit"; case 1LL << 40: return "big"; default: return "other"; } }
struct __attribute__((packed)) pk { char a; int b; short c : 3; unsigned long d : 33; double e; };
static int counter(void) { static int n = 10; return n++; }
static struct s mk(int a, int b) { struct s r; r.b = b; r.a = a; return r; }
extern int printf(const char *, ...);
unsigned cell = 2;
static int touch(void) { cell |= 128; return 1; }
static void touched(void) {                                             // an operand is evaluated before the place is read
  cell |= touch();
  enum { in = 1 }; void *at = &cell;
  if (sizeof(enum { in = 2 })) printf("%d ", in); else printf("%d ", -in);
  while (sizeof(enum { in = 3 })) { printf("%d ", in); break; }
  switch (sizeof(enum { in = 4 })) default: printf("%d ", in);
  printf("%d %d\n", in, _Generic(0 ? (int volatile *)0 : (void const *)0, void const volatile *: 5, default: 6));
  in ? *at : *at;
  printf("%u %d %d\n", cell, _Generic((const int *)0, int *: 1, const int *: 2), _Generic(1, const int: 3, int: 4));
}
int main(int argc, char **argv) {
  touched();
  printf("%zu %zu %zu %zu\n", sizeof(struct s), sizeof(struct u), sizeof(struct bits), sizeof(enum big));
  struct bits b = {BLUE, 2, -3, 37, -5}; b.s += 12; b.u--; b.l <<= 3; printf("%d %d %d %u %lld %d\n", b.c, b.b, b.s, b.u, (long long)b.l, b.u - 40 < 0);
  printf("%d %d %d %d\n", pick(1)(4), pick(0)(-4), choose(1)(5), (*choose(0))(-6));
  int m[2][2] = {{1, 2}, {3, 4}}; int n = 2; printf("%d %d %zu\n", sum(n, m), first(m[1]), sizeof(char[n + 3]));
  printf("%s %s %d %s %d\n", names[GREEN], names[1] ? "x" : "null", table[1].f(4), table[0].n, table[0].f(-9));
  printf("%s %zu %s %d %d %d %d\n", lit, sizeof lit, mid, grid[1][0], grid[1][1], grid[2][1], rr[2].x[3] + rr[1].x[1]);
  printf("%x %s %lld\n", un.i, un2.c, fact(15)); printf("%d %d %s %s\n", COUNT(a, b), COUNT(a, b, c, d), XSTR(CAT(fo, o)), STR("q\n" 'c'));
  LOG("none"); LOG("%d %s", 1, "two"); int k = setjmp(env); if (!k) thrower(3); printf("%d\n", k);
  printf("%g %g\n", avg(2, 1.5, 2.5, 3.5), avg(1, 4.0)); char out[20] = {0}; duff(out, "abcdefghijklmno", 15); printf("%s\n", out);
  for (long long v = -1; v < 11; v += 5) printf("%s ", cls(v)); printf("%s %s\n", cls(1LL << 40), cls(0));
  struct pk p = {1, -2, 3, 0x1ffffffffUL, 2.5}; p.c++; p.d -= 2; printf("%d %d %d %lx %g %zu\n", p.a, p.b, p.c, (unsigned long)p.d, p.e, sizeof p);
  unsigned char uc = 255; uc += 1; signed char sc = 127; sc++; uc = ~uc; uc <<= 1; printf("%d %d %d %d\n", uc, sc, -1 >> 1, -7 / 2 * 10 + -7 % 3);
  printf("%u %lu %d %d\n", (unsigned)3e9, (unsigned long)1.8e19, (int)-2.9, (char)300); printf("%.9g %.17g %g\n", (float)0xfffffffffffffffULL, (double)0xffffffffffffffffULL, (double)(1L << 62));
  printf("%d %d %d %d\n", counter(), counter() + 0, 0b101, '\x80'); printf("%d %d %ls %zu %zu\n", L'\u20ac', (int)sizeof L"abc", L"wide", sizeof u"ab", sizeof U"ab");
  printf("%d %ld %d\n", (int)(&m[1][1] - &m[0][0]), (long)((char *)&m[0] - (char *)&m[1]), mk(3, 4).b + mk(5, 6).a);
  { int i = 5; int *q = &i, **qq = &q; (**qq)++; *(&i) += 2; printf("%d %d\n", i, (i, i + 1)); } int x = 3; x = x++ + 1; 
  { int i = 0; loop: if (i < 3) { printf("%d", i); i++; goto loop; } printf("\n"); }
  printf("%d %d\n", !!argc, argv[argc] == 0); printf("%s %d %d\n", __func__, __LINE__, (int)sizeof(__func__)); 
  printf("%d %d %d\n", _Generic((const int){0}, int: 1, default: 2), _Generic("a", char *: 3, const char *: 4), _Generic(1 ? 1 : 2.0, double: 5, int: 6));
  int e1 = ({ int r = 0; for (int i = 0; i < 4; i++) { if (i == 2) continue; r += i; } r; }); printf("%d %d\n", e1, ({ e1 > 3 ? 1 : 2; }));
  _Alignas(64) char al[3]; printf("%d %zu %zu\n", (int)((uintptr_t)al % 64), _Alignof(double), _Alignof(struct s)); 
  long double ld = 1.0L / 3; printf("%.20Lf %Lg %d\n", ld, ld * 3 - 1 == 0 ? 0.0L : 1.0L, (int)(ld * 10)); printf("%a %g %g\n", 0x1.8p3, 1e-320, DBL_MAX * 10);
  printf("%d %d %d %d\n", isnan(NAN), isinf(-INFINITY), signbit(-0.0) != 0, isgreater(1.0, NAN)); printf("%d %d %d\n", NAN == NAN, NAN < 1, !(NAN >= 1));
  printf("%d %d %d %d %d\n", __builtin_clzll(1), __builtin_parity(7), __builtin_bswap16(0x1234), __builtin_popcountll(-1), __builtin_ctzl(1L << 40));
  volatile int vv = 3; vv += vv; printf("%d\n", vv); int arr[] = {1, 2, 3,}; int *end = arr + sizeof arr / sizeof *arr; int tot = 0; for (int *q = arr; q != end; ) tot += *q++; printf("%d %d\n", tot, 2[arr]);
  { extern int twice(int); int (*f[2])(int) = {twice, abs}; printf("%d\n", f[0](3) + (*f[1])(-1)); } struct { int a, b[]; } *fl = malloc(sizeof *fl + 8); fl->b[1] = 6; printf("%d %zu\n", fl->b[1], sizeof *fl); free(fl);
  { int v[n]; memset(v, 1, sizeof v); int (*pv)[n] = &v; printf("%x %zu %zu\n", (*pv)[1], sizeof *pv, sizeof v); n = 5; printf("%zu\n", sizeof v); }
  do { if (x > 2) break; printf("no\n"); } while (0); switch (x) default: printf("dflt\n"); if (0) ; else printf("else\n");
  printf("%d %d\n", INT_MAX + (unsigned)1 == 0x80000000, -1 < 1u); printf("%zu %d\n", sizeof(1 ? (char)1 : (short)2), (int)sizeof('a')); printf("%" PRId64 " %" PRIxPTR "\n", INT64_MIN, (uintptr_t)255);
  struct { struct { union { int a; float f; }; int b; } in[2]; } deep = {.in[1].a = 3, .in[0] = {.b = 4}}; printf("%d %d %d\n", deep.in[1].a, deep.in[0].b, deep.in[1].b);
  struct s s1 = mk(1, 2), s2 = s1; s1.a = 9; printf("%d %d %d\n", s2.a, s1.a, (x ? s1 : s2).a); const char *z = x ? "yes" : (void *)0; printf("%s %d\n", z, (z ? 1 : 0) & 3 ^ 6 | 8);
  errno = ERANGE; printf("%d %d %d\n", errno == ERANGE, isalpha('x') != 0, toupper('q')); assert(x); unsigned long long ull = 1ULL << 63; printf("%llu %lld %g\n", ull, (long long)ull, (double)ull); float ff = 16777217; printf("%.1f %d\n", ff, (int)(0.1f + 0.2f == 0.3f));
  return 0;
}
