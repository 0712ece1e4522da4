/* Builtins that are written in C: arithmetic that says whether it overflowed, atomic operations, questions of types. */
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>

static long numbers[] = {0, 1, -1, 2, 100, -128, 255, 32767, 65536, 0x7fffffff, 0x80000000, 0xffffffff, -0x80000000L,
                         1L << 40, 0x7fffffffffffffff, -0x7fffffffffffffff - 1, 3037000500, 6148914691236517205};
#define COUNT (int)(sizeof numbers / sizeof *numbers)

static unsigned long checksum;
static void add(unsigned long x) { checksum = (checksum ^ x) * 1099511628211u + 7; }

#define TRY(A, B, R) do { A a = (A)numbers[i]; B b = (B)numbers[j]; R r = 1; \
  add(__builtin_add_overflow(a, b, &r)); add(r); add(__builtin_sub_overflow(a, b, &r)); add(r); \
  add(__builtin_mul_overflow(a, b, &r)); add(r); } while (0)
#define TRY_RESULTS(A, B) TRY(A, B, signed char); TRY(A, B, unsigned short); TRY(A, B, int); TRY(A, B, unsigned); \
  TRY(A, B, long); TRY(A, B, unsigned long)

static void overflows(void) {
  for (int i = 0; i < COUNT; i++)
    for (int j = 0; j < COUNT; j++) {
      TRY_RESULTS(long, long); TRY_RESULTS(unsigned long, long); TRY_RESULTS(long, unsigned long);
      TRY_RESULTS(unsigned long, unsigned long); TRY_RESULTS(int, unsigned); TRY_RESULTS(signed char, unsigned long);
    }
  printf("%lx\n", checksum);
}

static void atomics(void) {
  _Atomic int a = 5;
  atomic_fetch_add(&a, 3);
  int old = atomic_exchange(&a, 11), wanted = 11, other = 4;
  printf("%d %d", old, atomic_compare_exchange_strong(&a, &wanted, 12));
  printf(" %d", atomic_compare_exchange_weak(&a, &other, 13));
  printf(" %d %d\n", other, atomic_load(&a));
  atomic_flag flag = ATOMIC_FLAG_INIT;
  printf("%d", atomic_flag_test_and_set(&flag));
  printf("%d ", atomic_flag_test_and_set(&flag));
  atomic_flag_clear(&flag);
  printf("%d\n", atomic_flag_test_and_set(&flag));
  signed char c = 127;
  unsigned s = 3;
  short *p = 0;
  long found[] = {__sync_fetch_and_add(&c, 1), __sync_add_and_fetch(&c, 2), __atomic_sub_fetch(&s, 4, 5),
                  __atomic_fetch_or(&s, 6, 5), __sync_and_and_fetch(&s, 0xfff3), __sync_fetch_and_xor(&s, 0x101),
                  (long)__sync_add_and_fetch(&p, 6), __sync_val_compare_and_swap(&s, 1, 2),
                  __sync_bool_compare_and_swap(&s, 4294967026, 3), __sync_lock_test_and_set(&s, 7)};
  for (int i = 0; i < sizeof found / sizeof *found; i++) printf("%ld ", found[i]);
  __sync_lock_release(&s);
  printf("%d\n", s);
}

struct point { int x; struct { char name[3]; double depth[2]; } in; };
static char fits[__builtin_types_compatible_p(const int, int) + !__builtin_types_compatible_p(int *, const int *)];
static int is_odd(int x) { return __builtin_choose_expr(sizeof(int) == 4, x & 1, "wrong"); }

int main(void) {
  int k = 1;
  overflows();
  atomics();
  printf("%d %d %d %d %d\n", __builtin_clrsb(-1), __builtin_clrsb(300), __builtin_clrsbl(-5L << 30), !!__builtin_isinff(1e39f), !!__builtin_isnanl(0.5L));
  int called = 0; asm("" : "+r"(*(called++, &k))); printf("%d\n", called);
  printf("%zu %zu %zu\n", offsetof(struct point, in.name[2]), offsetof(struct point, in.depth[k]), sizeof fits);
  printf("%d %d %d\n", is_odd(3), __builtin_constant_p(1 + 2), __builtin_constant_p(k));
  printf("%g %g %g\n", __builtin_fabs(-2.5), __builtin_sqrt(2.25), __builtin_fabsf(-0.f));
  return 0;
}
